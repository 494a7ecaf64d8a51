"""Patterns: procedures that turn a job into steps. One file each, without Kafka in it; a new one is added to the tuple below."""

from __future__ import annotations

from shared.patterns.chain import CHAIN
from shared.patterns.port import Pattern
from shared.patterns.single import SINGLE

_ALL: tuple[Pattern, ...] = (SINGLE, CHAIN)

BY_VERSION: dict[tuple[str, int], Pattern] = {(p.name, p.version): p for p in _ALL}
"""Every version that a job in flight may be pinned to."""
CURRENT: dict[str, Pattern] = {p.name: max((q for q in _ALL if q.name == p.name), key=lambda q: q.version) for p in _ALL}
"""What a new job gets."""
