"""RecentIds: where history tells the end of jobs with client-given ids that ended lately: a repeat gets the same result, no second run.

An id takes 24 bytes: what a repeat needs is read again from `job-events` at the offset found here, which hardly ever happens.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import NamedTuple

BLOCK = 2_000
"""A look goes through all blocks."""


class EndedAt(NamedTuple):
    """`offset`: of the settle event. `at`: monotonic seconds."""

    offset: int
    at: float


@dataclass(frozen=True, slots=True)
class _Block:
    """Ids sorted by their hash."""

    hashes: array[int]
    offsets: array[int]
    times: array[float]
    newest: float
    first: int
    last: int
    """The least and the greatest offset."""


class RecentIds:
    """Bounded by count, rounded up to a whole block, and by age in seconds; the oldest leave first."""

    def __init__(self, count: int, seconds: float, block: int = BLOCK) -> None:
        self.count = count
        self._block = block
        self._seconds = seconds
        self._open: dict[int, EndedAt] = {}
        self._blocks: deque[_Block] = deque()
        """Oldest first."""
        self._sealed = 0

    def __len__(self) -> int:
        return self._sealed + len(self._open)

    def add(self, job: str, offset: int, now: float) -> None:
        """A job with a client-given id ended; ids that tutti made cannot come again."""
        self._put(_hash(job), EndedAt(offset, now))

    def merge(self, entries: Iterable[tuple[int, EndedAt]], now: float) -> None:
        """What a predecessor remembered, by hash, as far as it is within the bounds. Of an id that is known the newest end counts."""
        found: dict[int, EndedAt] = {}
        for hashed, ended in (*self._entries(-1), *entries):
            if not self._gone(ended.at, now) and (hashed not in found or found[hashed].offset < ended.offset):
                found[hashed] = ended
        self._open, self._sealed = {}, 0
        self._blocks.clear()
        for hashed, ended in sorted(found.items(), key=lambda entry: entry[1].offset)[-self.count :]:
            self._put(hashed, ended)

    def forget(self, now: float) -> None:
        """Drop what has left the window."""
        while self._blocks and self._gone(self._blocks[0].newest, now):
            self._sealed -= len(self._blocks.popleft().hashes)
        while self._open and self._gone(next(iter(self._open.values())).at, now):
            del self._open[next(iter(self._open))]

    def shift(self, seconds: float) -> None:
        """All that is remembered ended so much later: it was told by another clock."""
        self._open = {hashed: EndedAt(offset, at + seconds) for hashed, (offset, at) in self._open.items()}
        self._blocks = deque(
            replace(block, times=array("d", (at + seconds for at in block.times)), newest=block.newest + seconds) for block in self._blocks
        )

    def between(self, since: int, until: int | None = None) -> list[tuple[int, EndedAt]]:
        """(hash, end) of what ended at these offsets."""
        return [entry for entry in self._entries(since) if until is None or entry[1].offset < until]

    @property
    def oldest(self) -> int | None:
        """Offset of the first end that is remembered."""
        if self._blocks:
            return self._blocks[0].first
        return next(iter(self._open.values())).offset if self._open else None

    def _put(self, hashed: int, ended: EndedAt) -> None:
        self._open.pop(hashed, None)
        self._open[hashed] = ended
        if len(self._open) >= self._block:
            self._append(_sealed(self._open))
            self._open = {}
            while self._blocks and self._sealed - len(self._blocks[0].hashes) >= self.count:
                self._sealed -= len(self._blocks.popleft().hashes)

    def _entries(self, since: int) -> Iterator[tuple[int, EndedAt]]:
        """All that ended at `since` or later; of the newest there are few to look at."""
        for block in self._blocks:
            if block.last >= since:
                for hashed, offset, at in zip(block.hashes, block.offsets, block.times, strict=True):
                    if offset >= since:
                        yield hashed, EndedAt(offset, at)
        for hashed, ended in reversed(self._open.items()):
            if ended.offset < since:
                break
            yield hashed, ended

    def find(self, job: str, now: float) -> int | None:
        """Offset of the settle event of this id, if it ended within the window. In one of 10^15 lookups it is another job's."""
        hashed = _hash(job)
        ended = self._open.get(hashed)
        if ended is None:
            ended = self._find_sealed(hashed)
        return None if ended is None or self._gone(ended.at, now) else ended.offset

    def _find_sealed(self, hashed: int) -> EndedAt | None:
        """Asked for every job with a client-given id: 5 us."""
        for block in reversed(self._blocks):
            hashes = block.hashes
            index = bisect_left(hashes, hashed)
            if index < len(hashes) and hashes[index] == hashed:
                return EndedAt(block.offsets[index], block.times[index])
        return None

    def _gone(self, at: float, now: float) -> bool:
        return now - at > self._seconds

    def _append(self, block: _Block) -> None:
        self._sealed += len(block.hashes)
        self._blocks.append(block)


def _sealed(entries: dict[int, EndedAt]) -> _Block:
    ordered = sorted(entries)
    ended = [entries[hashed] for hashed in ordered]
    offsets, times = array("q", (one.offset for one in ended)), array("d", (one.at for one in ended))
    return _Block(array("Q", ordered), offsets, times, max(times), min(offsets), max(offsets))


def _hash(job: str) -> int:
    return int.from_bytes(blake2b(job.encode(), digest_size=8).digest())
