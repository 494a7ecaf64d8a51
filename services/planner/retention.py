"""Retention: when what lies in the log and is still needed must be written again. Pure."""

from __future__ import annotations

OLDEST_SECONDS = 7 * 86_400.0
"""However quiet the log is: retention deletes by age, and must not delete what is carried."""


def stale(offset: int, at: float, expected: int, distance: int, wall: float) -> bool:
    """Whether what lies at `offset`, written at `at`, must be written again: it lies far behind the end, or is old."""
    return expected - offset > distance or wall - at > OLDEST_SECONDS
