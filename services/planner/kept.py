"""Kept: what a successor must find again in history, wherever it begins to read. Pure; model: `tests/model/test_kept.py`.

    told ──► on its way ──► acknowledged, it has a place ──► far behind the end, or old: told again
                            └ there it holds the watermark, until its next place is acknowledged

So a cancel that must be known for days, a long-lived job or the last run of a schedule costs replay a bounded way back, and retention,
which deletes by age, never reaches it. A kind of kept things is one `Kind`: its things by name, which events tell of them, how one is told
again; what is no more than its newest event is a line of `KeptEvents`, what changes with each round one of `Changing`. Whatever ends by an
event is dropped when that event is acknowledged: until then a successor may find it alive.

Not in the table, by right: jobs that are out hold the watermark only until the position of their record has passed (`watermark`), so
nothing of them is told again; what judges have said is advice, in the registry (`agents/beliefs`); deliveries are their ingress's.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import partial
from math import inf
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, TypeVar

from services.planner.draft import Draft
from shared.contracts.event import CancelRecorded, Event, ScheduleFired
from shared.contracts.taken import TakenAhead
from shared.processing.tries import Chore

N = TypeVar("N", bound=Hashable)
T = TypeVar("T")
E = TypeVar("E", CancelRecorded, ScheduleFired, TakenAhead)

OLDEST_SECONDS = 7 * 86_400.0
"""However quiet a log is: what is older is written again."""
LOOK_SECONDS = 60.0
"""Longest time in which nobody looks for what is too old, or over, while there are rounds."""
PORTION = 100
"""So many of a kind are told again in one round."""

Fold = Callable[[Any, int, float], None]
"""(event, its offset, when it was written in seconds of the log's time): one found in replay, in the log's order."""


class Place(NamedTuple):
    """Of the newest acknowledged event that tells all of a thing. `at`: when it was made, wall-clock seconds."""

    offset: int
    at: float


class Kind(Generic[N, T]):
    """Things of one kind. `again`: tell one once more, by name; False: it must stay where it is.

    `tidy` comes first in each round that looks. `distance`: how many events behind the end one may lie, if not as many as the home says.
    """

    def __init__(
        self,
        what: str,
        again: Callable[[Draft, N], bool],
        *,
        tidy: Callable[[Draft], None] | None = None,
        distance: int | None = None,
        events: Mapping[type, Fold] = MappingProxyType({}),
    ) -> None:
        self.chore = Chore(f"writing {what} again")
        self.things: dict[N, T] = {}
        self.events = events
        self._again, self._tidy, self._distance = again, tidy, distance
        self.places: dict[N, Place] = {}
        """In the order of offsets."""
        self._coming: set[N] = set()
        """On their way in this round."""

    def tell(self, draft: Draft, group: str, event: Event, name: N, *, ledger: bool = False) -> None:
        """Append the event that is all of this thing from now on."""
        self._coming.add(name)
        draft.add(group, event, partial(self.lies, name, draft.wall), ledger=ledger)

    def lies(self, name: N, at: float, offset: int) -> None:
        """That event is acknowledged, or was found in replay."""
        self._coming.discard(name)
        self.places.pop(name, None)
        if name in self.things:
            self.places[name] = Place(offset, at)

    def drop(self, name: N) -> T | None:
        """It is needed no longer."""
        self.places.pop(name, None)
        return self.things.pop(name, None)

    def offset(self, name: N) -> int | None:
        """Where it lies; None: on its way."""
        place = self.places.get(name)
        return None if place is None else place.offset

    @property
    def lowest(self) -> int | None:
        """Offset that the watermark may not pass; None: nothing acknowledged is kept."""
        return min((place.offset for place in self.places.values()), default=None)

    def renew(self, draft: Draft, expected: int, distance: int) -> bool:
        """Tell those again that lie too far before `expected`, the next own offset, or are old. Whether there may be more of them."""
        if self._tidy is not None:
            self._tidy(draft)
        told = 0
        for name, (offset, at) in self.places.items():
            if expected - offset <= (self._distance or distance) and draft.wall - at <= OLDEST_SECONDS:
                break
            if name not in self._coming and self._again(draft, name):
                told += 1
                if told == PORTION:
                    return True
        return False


class KeptEvents(Kind[str, E]):
    """Things that are no more than their newest event, which is told again as it is.

    `named`: its field with the name. `key`: of the record, made from that. `stays`: which must stay where it is.
    """

    def __init__(
        self,
        what: str,
        event: type[E],
        named: str,
        *,
        key: str = "{}",
        stays: Callable[[Draft, str], bool] = lambda *_: False,
        tidy: Callable[[Draft], None] | None = None,
        fold: Fold | None = None,
    ) -> None:
        super().__init__(what, self._once_more, tidy=tidy, events={event: fold or self.restore})
        self._named, self._key, self._stays = named, key, stays

    def add(self, draft: Draft, event: E, group: str | None = None) -> None:
        """A new one. `group`: that it is written with."""
        name = getattr(event, self._named)
        self.things[name] = event
        self.tell(draft, group or self._key.format(name), event, name)

    def restore(self, event: E, offset: int, _: float) -> None:
        """One found in replay: the newest counts."""
        name = getattr(event, self._named)
        self.things[name] = event
        self.lies(name, event.at, offset)

    def _once_more(self, draft: Draft, name: str) -> bool:
        if self._stays(draft, name):
            return False
        self.add(draft, self.things[name].model_copy(update={"epoch": draft.epoch, "at": draft.wall}))
        return True


class Changing(Kind[N, T]):
    """Things of tenants that change: the newest event of one is all of it, written at the end of each round in which it changed.

    `key`: of the record, made from the name's parts. `read`: (event, when it was written in seconds of the log's time) → the thing.
    `state`: the event that tells of one now; where it says `gone`, nothing is kept once that is acknowledged.
    """

    def __init__(
        self,
        what: str,
        event: type,
        key: str,
        *,
        named: Callable[[Any], N],
        read: Callable[[Any, float], T],
        state: Callable[[Draft, N, T], Event],
        tidy: Callable[[Draft], None] | None = None,
        distance: int | None = None,
    ) -> None:
        super().__init__(what, self._once_more, tidy=tidy, distance=distance, events={event: self.restore})
        self._key, self._named, self._read, self._state = key, named, read, state
        self.changed: dict[N, None] = {}

    def key(self, name: N) -> str:
        """Of its record, and of its timer where it has one."""
        return self._key.format(*name) if isinstance(name, tuple) else self._key.format(name)

    def touch(self, name: N) -> None:
        """It is another one from now on."""
        self.changed[name] = None

    def flush(self, draft: Draft, may: Callable[[N], bool] = lambda _: True) -> None:
        """At the end of a round: the events of what changed; `may`: whether that of this one may be written."""
        for name in self.changed:
            thing = self.things.get(name)
            if thing is None or not may(name):
                continue
            event = self._state(draft, name, thing)
            if getattr(event, "gone", False):
                draft.add(self.key(name), event, partial(self._gone, name), ledger=True)
            else:
                self.tell(draft, self.key(name), event, name, ledger=True)
        self.changed.clear()

    def restore(self, event: Any, offset: int, written: float) -> None:
        """One found in replay: the newest is the whole thing."""
        name = self._named(event)
        if getattr(event, "gone", False):
            self.drop(name)
        else:
            self.things[name] = self._read(event, written)
            self.lies(name, event.at, offset)

    def _gone(self, name: N, _: int) -> None:
        self.drop(name)

    def _once_more(self, _draft: Draft, name: N) -> bool:
        self.touch(name)
        return True


class Timed(Changing[tuple[str, str], T]):
    """By (tenant, name), each with a timer. `prefix`: before both, in the key of its record and its timer; no job's id begins so.
    `due_at`: when a thing wants attention, monotonic seconds.
    """

    def __init__(
        self, what: str, event: type, prefix: str, set_timer: Callable[[str, float], None], due_at: Callable[[T], float], **more: Any
    ) -> None:
        super().__init__(what, event, prefix + "{}/{}", **more)
        self._prefix, self._set_timer, self._due_at = prefix, set_timer, due_at
        self.attention: dict[tuple[str, str], None] = {}
        """Those that changed, or whose timer may be another one by now: `flush` looks at them."""

    def touch(self, name: tuple[str, str]) -> None:
        super().touch(name)
        self.attention[name] = None

    def of_timer(self, key: str) -> tuple[str, str]:
        """Whose timer has this key; it gets another one."""
        tenant, _, name = key.removeprefix(self._prefix).partition("/")
        self.attention[tenant, name] = None
        return tenant, name

    def flush(self, draft: Draft, may: Callable[[tuple[str, str]], bool] = lambda _: True) -> None:
        super().flush(draft, may)
        for name in self.attention:
            if (thing := self.things.get(name)) is not None:
                self._set_timer(self.key(name), max(draft.now, self._due_at(thing)))
        self.attention.clear()

    def drop(self, name: tuple[str, str]) -> T | None:
        self._set_timer(self.key(name), inf)
        return super().drop(name)


class Kept:
    """All kinds of one book: what replay, the watermark and upkeep know of them."""

    def __init__(self, *kinds: Kind[Any, Any]) -> None:
        self.kinds = kinds
        self._folds = {event: fold for kind in kinds for event, fold in kind.events.items()}
        self._at, self._by = -1, -inf

    def restore(self, event: Event, offset: int, written: float) -> bool:
        """Fold an event that tells of a kept thing; False: it is another one."""
        fold = self._folds.get(type(event))
        if fold is not None:
            fold(event, offset, written)
        return fold is not None

    def due(self, expected: int, now: float) -> bool:
        """Whether something of it may be too far behind the next own offset, or over."""
        return expected >= self._at or now >= self._by

    def looked(self, expected: int, now: float, events: int) -> None:
        """It was looked at: again in so many own events, or a while."""
        self._at, self._by = expected + events, now + LOOK_SECONDS

    @property
    def lowest(self) -> int | None:
        """Offset that the watermark may not pass."""
        return min((lowest for kind in self.kinds if (lowest := kind.lowest) is not None), default=None)
