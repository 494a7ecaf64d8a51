"""Kept: what a successor must find again in history, wherever it begins to read. Pure; model: `tests/model/test_kept.py`.

    told ──► on its way ──► acknowledged, it has a place ──► far behind the end, or old: told again
                            └ there it holds the watermark, until its next place is acknowledged

So a cancel that must be known for days, a long-lived job or the last run of a schedule costs replay a bounded way back, and retention,
which deletes by age, never reaches it. A kind of kept things is one `Kind`: its things by name, which events tell of them, how one is told
again; what is no more than its newest event is a line of `KeptEvents`. Whatever ends by an event is dropped when that event is
acknowledged: until then a successor may find it alive.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import partial
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

    `tidy` comes first in each round. `distance`: how many events behind the end one may lie, if not as many as the home says.
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


class Kept:
    """All kinds of one book: what replay, the watermark and upkeep know of them."""

    def __init__(self, *kinds: Kind[Any, Any]) -> None:
        self.kinds = kinds
        self._folds = {event: fold for kind in kinds for event, fold in kind.events.items()}

    def restore(self, event: Event, offset: int, written: float) -> bool:
        """Fold an event that tells of a kept thing; False: it is another one."""
        fold = self._folds.get(type(event))
        if fold is not None:
            fold(event, offset, written)
        return fold is not None

    @property
    def lowest(self) -> int | None:
        """Offset that the watermark may not pass."""
        return min((lowest for kind in self.kinds if (lowest := kind.lowest) is not None), default=None)
