"""OwedPositions: what must be acknowledged before a position may be committed holds back that position, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial


class OwedPositions:
    """Of one reader of a partition number: topic → offsets of records that are read and still owe something. `paid`: one owes less."""

    def __init__(self, paid: Callable[[], None]) -> None:
        self._paid = paid
        self._offsets: dict[str, dict[int, int]] = {}

    def count(self, topic: str) -> int:
        """How many records of this topic owe something."""
        return len(self._offsets.get(topic, ()))

    def offsets(self, topic: str) -> Collection[int]:
        """Of these records."""
        return self._offsets.get(topic, {}).keys()

    def hold(self, topic: str, offset: int) -> Callable[[], None]:
        """The record at `offset` owes one thing more; call what is returned once that is acknowledged."""
        offsets = self._offsets.setdefault(topic, {})
        offsets[offset] = offsets.get(offset, 0) + 1
        return partial(self._release, offsets, offset)

    def clamp(self, positions: dict[str, int]) -> dict[str, int]:
        """Positions that do not pass what owes something."""
        clamped = dict(positions)
        for topic, offsets in self._offsets.items():
            if offsets and topic in clamped:
                clamped[topic] = min(clamped[topic], *offsets)
        return clamped

    def _release(self, offsets: dict[int, int], offset: int) -> None:
        offsets[offset] -= 1
        if not offsets[offset]:
            del offsets[offset]
        self._paid()
