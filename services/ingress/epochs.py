"""Which records of `job-events` are valid (DESIGN 6): those whose epoch is the offset of the last PlannerStarted before them. Pure."""

from __future__ import annotations

import re

_EPOCH = re.compile(rb'\s*\{\s*"epoch"\s*:\s*(\d{1,18})\s*[,}]')
_EPOCH_ANYWHERE = re.compile(rb'"epoch"\s*:\s*(\d{1,18})\s*[,}]')


def epoch_of(value: bytes) -> int | None:
    """The epoch of an event, without parsing it: it is the first field that our planner writes."""
    found = _EPOCH.match(value) or _EPOCH_ANYWHERE.search(value)
    return int(found[1]) if found else None


class EpochFilter:
    """One partition's epoch in force. `epoch` None: begun in the middle of the log.

    A stale record's epoch is always lower than the one in force, so when begun in the middle the highest epoch seen is the best
    guess, and exact from the first valid record on.
    """

    __slots__ = ("epoch",)

    def __init__(self, epoch: int | None = None) -> None:
        self.epoch = epoch

    def begin(self, epochs: list[int]) -> None:
        """The epochs of the first batch before any PlannerStarted in it."""
        if self.epoch is None and epochs:
            self.epoch = max(epochs)

    def started(self, offset: int) -> None:
        """A PlannerStarted lies at `offset`."""
        self.epoch = offset

    def admits(self, epoch: int | None) -> bool:
        """Whether a record with this epoch is valid here."""
        if epoch is None:
            return False
        if self.epoch is None or epoch > self.epoch:
            self.epoch = epoch
        return epoch == self.epoch
