"""What foreign producers write into jobs: names of any script, numbers beyond all bounds, needs that no node meets."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from tests.support.cluster.laws.told import NOBODY_HAS

NAMES = ("größe", "東京", "مرحبا", "🙂‍↔️", "e\u0301", "\u2028", "ﬀ")
LOW: tuple[dict[str, Any], ...] = (
    {"calls": 2}, {"steps": 2}, {"attempts": 1}, {"attempts": 2}, {"tokens": 600}, {"wall_seconds": 3.0},
)  # fmt: skip
"""Limits that a chain meets."""
BEYOND: tuple[dict[str, Any], ...] = (
    {"limits": {"cost": 1e303}},
    {"limits": {"tokens": 10**310}},
    {"limits": {"calls": 2**63}},
    {"needs": {"min_vram_bytes": 2**64}},
    {"needs": {"min_context": -1}},
    {"deadline_at": 1e308},
    {"not_before": float("inf")},
    {"options": {"seed": 10**400}},
    {"options": {"temperature": float("nan")}},
    {"format": {"maximum": float("-inf")}},
    {"tools": [{"type": "function", "function": {"parameters": {"const": 1e999}}}]},
    {"metadata": {"a": "\ud800"}},
    {"id": "größe"},
    {"id": "j_1"},
    {"tenant": "東京"},
)


_SPREAD_SECONDS = 8.0


def misspelt(body: dict[str, Any], random: Random, later: Callable[..., None], anywhere: Callable[..., None]) -> None:
    """A job; and what is none under its id, and cancels of nothing. These are dead letters, however well the id is known by then."""
    cancel = ("type", b"cancel")
    anywhere(json.dumps(body).encode(), None)
    for record in ((json.dumps(body | {"promt": "q"}).encode(), None), (None, None, cancel), (None, b"\xff\xfe", cancel)):
        later(random.uniform(0.0, _SPREAD_SECONDS), partial(anywhere, *record))


def nobody_has(chain: list[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Jobs that no node can ever run."""
    return (
        {"model": f"größe 3/{NOBODY_HAS}"},
        {"needs": {"tags": [NOBODY_HAS]}},
        {"needs": {"tags": [NOBODY_HAS], "min_vram_bytes": 2**53 - 1, "min_context": 2**31}},
        {"needs": {"node": NOBODY_HAS}, "pattern": "chain", "chain": chain},
    )
