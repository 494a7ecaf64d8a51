"""Which records of `job-events` are valid, the same rule for every reader (ARCHITECTURE, planner protocol): those whose epoch is the offset
of the last PlannerStarted before them. Pure.
"""

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
    guess, and exact from the first valid record on. `gapless`: every record from a valid one on is read (the watermark names one), so
    that the first names the epoch in force and nothing but a PlannerStarted changes it. Then it is `established`; a guess is good enough
    to show a status, not to end a caller.
    """

    __slots__ = ("_epoch", "_gapless", "_prefix")

    def __init__(self, epoch: int | None = None, *, gapless: bool = False) -> None:
        self.epoch = epoch
        self._gapless = gapless

    @property
    def epoch(self) -> int | None:
        """The epoch in force."""
        return self._epoch

    @epoch.setter
    def epoch(self, epoch: int | None) -> None:
        self._epoch = epoch
        self._prefix = b'{"epoch":%d,' % (-1 if epoch is None else epoch)

    @property
    def established(self) -> bool:
        """Whether that is no guess."""
        return self._gapless and self._epoch is not None

    def establish(self, epoch: int) -> None:
        """It is in force where reading has come to: a record there is known to be valid."""
        self.epoch, self._gapless = epoch, True

    def missed(self) -> None:
        """Records were not read, perhaps a PlannerStarted: the epoch is a guess from now on."""
        self._gapless = False

    def begin(self, epochs: list[int]) -> None:
        """The epochs of the first batch before any PlannerStarted in it."""
        if self.epoch is None and epochs:
            self.epoch = max(epochs)

    def started(self, offset: int) -> None:
        """A PlannerStarted lies at `offset`."""
        self.epoch, self._gapless = offset, True

    def admits_value(self, value: bytes, offset: int) -> bool:
        """Whether this event is valid where it lies; one comparison for what our planner writes in the epoch in force."""
        return value.startswith(self._prefix) or self.admits(epoch_of(value), offset)

    def admits(self, epoch: int | None, offset: int) -> bool:
        """Whether a record with this epoch is valid at `offset`. An epoch begins before its events: none from ahead is taken for one."""
        if epoch is None or epoch >= offset:
            return False
        if self.epoch is None or (epoch > self.epoch and not self._gapless):
            self.epoch = epoch
        return epoch == self.epoch
