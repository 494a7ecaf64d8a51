"""KeptIds: remembered ids, written to history in groups, so that a successor knows them (decision 0018).

A group is an event that holds the ids whose settle events lie in a stretch of the log. The newest names all others that are still
needed, by offset; it holds the watermark, and so does the first settle event behind it. Both are written anew long before they are far
behind, so a successor replays little more than without them, and reads a few dozen groups: a bounded number, whatever the window holds.

A caller's id costs about 50 bytes of `job-events`: once in a small group, once where small ones are joined.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from math import inf
from struct import Struct
from typing import NamedTuple

from services.planner.draft import Draft
from services.planner.kept import Kind
from services.planner.state.recent_ids import EndedAt, RecentIds
from shared.contracts.event import IdsRemembered

NAME = "#ids"
"""Of the event in a round, and its key; no job's id begins so."""
GROUP_IDS = 64
DISTANCE = 512
"""Events of anything: beyond it what holds the watermark is written anew."""
SMALL_GROUPS = 16
"""So many are joined."""
_SMALL_IDS = 8 * GROUP_IDS
_ENTRY = Struct("<QII")
_LATEST = 2**32 - 1
_HEAD, _TAIL = "head", "tail"


class _Group(NamedTuple):
    """`offset`: of its event."""

    since: int
    until: int
    offset: int
    size: int
    """How many ids it holds."""


class KeptIds:
    """Of one book. Offsets are those of `job-events`."""

    def __init__(self, index: RecentIds) -> None:
        self._index = index
        self._groups: list[_Group] = []
        """In order of `since`; what was read of them, or written here."""
        self._unread: tuple[int, ...] = ()
        """Groups of predecessors that are still to be read."""
        self.kept = Kind[str, None]("ids", self._again, tidy=self._tidy, distance=DISTANCE, events={IdsRemembered: self.restore})
        """The newest group, and the first settle event behind it."""
        self._covered = 0
        """Ids that ended before this offset are in groups."""
        self._tail: deque[int] = deque()
        """Settle events that are in no group, ascending."""
        self._newest: tuple[IdsRemembered, float] | None = None
        """Found in replay, with the time of its record."""
        self._to_monotonic = 0.0
        """What makes monotonic seconds of the log's time."""
        self._writing = False

    def ended(self, offset: int) -> None:
        """A settle event of an id that is remembered is acknowledged."""
        if offset >= self._covered:
            self._tail.append(offset)
            self._hold(_TAIL, self._tail[0])

    def _hold(self, name: str, offset: int | None) -> None:
        """The watermark stays there. It is never old: what nobody remembers any more is let go of."""
        if offset is None:
            self.kept.drop(name)
        elif offset != self.kept.offset(name):
            self.kept.things[name] = None
            self.kept.lies(name, inf, offset)

    def _tidy(self, draft: Draft) -> None:
        """Forget, and append a group when enough ids are in none."""
        self._drop_forgotten(draft.now)
        if not (self._tail or self._groups or self._unread):
            self._hold(_HEAD, None)
        if len(self._tail) >= GROUP_IDS:
            self._again(draft)

    def _again(self, draft: Draft, _: str = "") -> bool:
        """A new group stands for both that hold the watermark."""
        if self._writing:
            return False
        self._writing = True
        since, until = self._since(), self._tail[-1] + 1 if self._tail else self._covered
        kept = [group.offset for group in self._groups if group.since < since]
        group = IdsRemembered(
            epoch=draft.epoch,
            at=draft.wall,
            since=since,
            until=until,
            ids=packed(self._index.between(since, until), since, draft.wall - draft.now),
            earlier=(*self._unread, *kept),
        )
        draft.add(NAME, group, partial(self._written, group))
        return True

    def _written(self, group: IdsRemembered, offset: int) -> None:
        """It is acknowledged."""
        self._writing = False
        self._groups = [known for known in self._groups if known.since < group.since]
        self._add(group, offset)
        self._covered = group.until
        while self._tail and self._tail[0] < group.until:
            self._tail.popleft()
        self._hold(_HEAD, offset)
        self._hold(_TAIL, next(iter(self._tail), None))

    # After a take-over

    def restore(self, event: IdsRemembered, offset: int, written: float) -> None:
        """One found in replay, in the log's order: the newest tells what is needed. `written`: seconds of the log's time."""
        self._groups = []
        self._add(event, offset)
        self._unread = tuple(other for other in event.earlier if other != offset)
        self._hold(_HEAD, offset)
        self._covered, self._newest = event.until, (event, written)

    def resume(self, to_monotonic: float, now: float) -> None:
        """Replay is over: learn the newest group, and see what is in none."""
        self._to_monotonic = to_monotonic
        if self._newest is not None:
            self._index.merge(unpacked(*self._newest, to_monotonic), now)
            self._newest = None
        self._tail = deque(sorted(ended.offset for _, ended in self._index.between(self._covered)))
        self._hold(_TAIL, next(iter(self._tail), None))

    @property
    def unread(self) -> tuple[int, ...]:
        """Offsets of the groups that must be read before all ids are known."""
        return self._unread

    def learn(self, found: Iterable[tuple[int, IdsRemembered, float]], now: float) -> None:
        """What was read there, with the times of the records. A group that is gone was too old to matter."""
        entries: list[tuple[int, EndedAt]] = []
        for offset, event, written in found:
            self._add(event, offset)
            entries.extend(unpacked(event, written, self._to_monotonic))
        self._index.merge(entries, now)
        self._unread = ()
        self._groups.sort()

    def _add(self, event: IdsRemembered, offset: int) -> None:
        if event.ids:
            self._groups.append(_Group(event.since, event.until, offset, len(event.ids) // _ENTRY.size))

    def _since(self) -> int:
        """Where the next group begins: with many small ones behind one another, at the first of these."""
        small = 0
        since = self._covered
        for group in reversed(self._groups):
            if group.size > _SMALL_IDS:
                break
            small, since = small + 1, group.since
        return since if small >= SMALL_GROUPS else self._covered

    def _drop_forgotten(self, now: float) -> None:
        """What nobody remembers any more holds no watermark: it may be older than the log."""
        self._index.forget(now)
        oldest = self._index.oldest
        while self._tail and (oldest is None or self._tail[0] < oldest):
            self._tail.popleft()
        if self._groups and (oldest is None or self._groups[0].until <= oldest):
            self._groups = [group for group in self._groups if oldest is not None and group.until > oldest]
        self._hold(_TAIL, next(iter(self._tail), None))


def packed(entries: Iterable[tuple[int, EndedAt]], since: int, to_wall: float) -> bytes:
    """`to_wall`: what makes epoch seconds of monotonic ones."""
    return b"".join(_ENTRY.pack(hashed, ended.offset - since, min(max(0, int(ended.at + to_wall)), _LATEST)) for hashed, ended in entries)


def unpacked(event: IdsRemembered, written: float, to_monotonic: float) -> Iterator[tuple[int, EndedAt]]:
    """(hash, where and when it ended, monotonic). How long before the event, its writer's clock tells; when that was, the record's time
    (`written`): no two machines' clocks are compared.
    """
    later = written - event.at + to_monotonic
    whole = len(event.ids) // _ENTRY.size * _ENTRY.size
    for hashed, after, at in _ENTRY.iter_unpack(event.ids[:whole]):
        yield hashed, EndedAt(event.since + after, at + later)
