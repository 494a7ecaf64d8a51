"""Carried: events that outlive their place in the log. They hold the watermark; before it has to pass them they are written again.

So a cancel that must be known for days, or the last run of a schedule, costs replay a bounded way back and memory one entry. Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, NamedTuple, TypeVar

from services.planner.retention import stale
from services.planner.state.watermark import UNACKNOWLEDGED
from shared.contracts.event import CancelRecorded, ScheduleFired

E = TypeVar("E", CancelRecorded, ScheduleFired)
_AT_ONCE = 100


class _Entry(NamedTuple, Generic[E]):
    event: E
    offset: int


class Carried(Generic[E]):
    """name → event. In the order of offsets, so that the first bounds the watermark."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, _Entry[E]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def get(self, name: str) -> E | None:
        entry = self._entries.get(name)
        return None if entry is None else entry.event

    def put(self, name: str, event: E, offset: int = UNACKNOWLEDGED) -> None:
        """A new event under this name. Until it is acknowledged the old one holds the watermark: it is what a successor may find."""
        known = self._entries.get(name)
        if known is not None and offset == UNACKNOWLEDGED:
            self._entries[name] = _Entry(event, known.offset)
            return
        self._entries[name] = _Entry(event, offset)
        self._entries.move_to_end(name)

    def begins_at(self, name: str, offset: int) -> None:
        """The event, or its copy, is acknowledged at `offset`."""
        self.put(name, self._entries[name].event, offset)

    def drop(self, name: str) -> E | None:
        entry = self._entries.pop(name, None)
        return None if entry is None else entry.event

    def drop_oldest(self) -> None:
        self._entries.popitem(last=False)

    def drop_if(self, gone: Callable[[str, E], bool]) -> None:
        for name in [name for name, entry in self._entries.items() if gone(name, entry.event)]:
            del self._entries[name]

    @property
    def lowest(self) -> int | None:
        """Offset that the watermark may not pass; None when nothing acknowledged is carried."""
        first = next(iter(self._entries.values()), None)
        return None if first is None or first.offset == UNACKNOWLEDGED else first.offset

    def stale(self, expected: int, distance: int, wall: float) -> list[tuple[str, E]]:
        """A bounded number of those that lie more than `distance` records before the end, or are old; oldest first."""
        late: list[tuple[str, E]] = []
        for name, (event, offset) in self._entries.items():
            if offset == UNACKNOWLEDGED or len(late) == _AT_ONCE:
                break
            if stale(offset, event.at, expected, distance, wall):
                late.append((name, event))
        return late
