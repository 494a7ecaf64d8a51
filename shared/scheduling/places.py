"""Places in line: how many start before a step that waits, and when it is likely to start. Pure; time is passed in.

What waits is counted, not simulated: tenants take turns in a class (`fair_queue`), classes have shares (`class_shares`). What is ahead
by these rules, and finds no free place, is divided by the pace at which such have started of late. What comes later and is more
urgent is not foreseen, nor how long a turn is: so there is a range, and no number at all where too little was seen to give one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

from shared.contracts.base import PriorityClass
from shared.scheduling.class_shares import INTERACTIVE_SHARE, WEIGHTS

HALF_LIFE_SECONDS = 30.0
FEWEST = 10.0
"""Of what happened (decayed): fewer say nothing about the pace."""
SURE = 2.0
"""Standard deviations in the range."""
UNFORESEEN = 0.25
"""Variance, relative, of what is not counted: several routers, lengths of turns, models (decision 0047)."""


class Pace:
    """How many happen a second while there is too much to do: neither idle time lowers it, nor does it count what fills free places."""

    def __init__(self) -> None:
        self.news = 0
        """Since the last look: whoever sees one adds it."""
        self._seen = 0.0
        self._busy_seconds = 0.0
        self._was_busy = False
        self._at: float | None = None

    def look(self, now: float, *, busy: bool) -> None:
        """`now`: monotonic seconds; `busy`: whether from now on something waits. What is old counts half each `HALF_LIFE_SECONDS`."""
        elapsed = 0.0 if self._at is None else max(0.0, now - self._at)
        decay = 0.5 ** (elapsed / HALF_LIFE_SECONDS)
        self._seen = self._seen * decay + (self.news if self._was_busy else 0)
        self._busy_seconds = self._busy_seconds * decay + (elapsed if self._was_busy else 0.0)
        self.news, self._was_busy, self._at = 0, busy, now

    @property
    def seen(self) -> float:
        """On how many the pace is founded."""
        return self._seen

    @property
    def per_second(self) -> float | None:
        """None while too little is known."""
        return None if self._seen < FEWEST or self._busy_seconds <= 0 else self._seen / self._busy_seconds


class AheadInLine(NamedTuple):
    """Counted facts about one that waits: numbers of what has not started."""

    priority_class: PriorityClass
    own: int = 0
    """Of its own tenant and class, before it."""
    others: Sequence[int] = ()
    """Of each other tenant in its class."""
    unread: int = 0
    """Of its class, before it in Kafka. Whose they are nobody knows yet: by turns it may pass them all, or none."""
    classes: Mapping[PriorityClass, int] = {}
    """In each other class."""
    free: int = 0
    """Places of nodes that could start such now."""


@dataclass(frozen=True, slots=True)
class PlaceInLine:
    """`place` 1 is the next. Seconds from now, with a range; None is what cannot be said."""

    place: int
    seconds: float | None = None
    earliest: float | None = None
    latest: float | None = None

    def rounded(self) -> PlaceInLine:
        """For people: tenths of seconds."""
        return PlaceInLine(self.place, *(None if each is None else round(each, 1) for each in (self.seconds, self.earliest, self.latest)))


def place_in_line(ahead: AheadInLine, pace: Pace) -> PlaceInLine:
    """Where one that has not started stands. `pace`: of starts of such steps, all classes together."""
    turns = ahead.own + sum(min(waiting, ahead.own + 1) for waiting in ahead.others)
    before = _with_other_classes(ahead, turns + ahead.unread)
    starts, per_second = max(0, before + 1 - ahead.free), pace.per_second
    if per_second is None:
        return PlaceInLine(before + 1, *((0.0, 0.0) if not starts else ()))
    fewest = ahead.own + sum(min(waiting, ahead.own) for waiting in ahead.others)
    doubt = 1.0 + SURE * sqrt(UNFORESEEN + 1.0 / pace.seen + 1.0 / (before + 1))
    seconds = starts / per_second
    return PlaceInLine(before + 1, seconds, min(seconds, fewest / per_second) / doubt, (before + 1) / per_second * doubt)


def _with_other_classes(ahead: AheadInLine, own_class: int) -> int:
    """What is served before it in all classes, where so many of its own are: the others get their shares meanwhile, at most."""
    waiting, urgent = ahead.classes, PriorityClass.INTERACTIVE
    times = INTERACTIVE_SHARE / (1.0 - INTERACTIVE_SHARE)
    lower = {each: waiting.get(each, 0) for each in WEIGHTS if each is not ahead.priority_class}
    if ahead.priority_class is urgent:
        return own_class + min(sum(lower.values()), int(own_class / times))
    weight = WEIGHTS[ahead.priority_class]
    below = own_class + sum(min(count, int((own_class + 1) * WEIGHTS[each] / weight)) for each, count in lower.items())
    return below + min(waiting.get(urgent, 0), int((below + 1) * times))


def differs(told: PlaceInLine, now: PlaceInLine) -> bool:
    """Whether it is worth telling again: another place by a tenth, or another time by a quarter and two seconds."""
    if told.place == now.place and (told.seconds is None) == (now.seconds is None):
        return abs((told.seconds or 0.0) - (now.seconds or 0.0)) > max(2.0, (told.seconds or 0.0) / 4)
    return now.place <= 3 or abs(told.place - now.place) * 10 >= told.place or (told.seconds is None) != (now.seconds is None)


def in_words(place: int, seconds: float | None) -> str:
    """For people: `place 12, starts in ~40 s`."""
    return f"place {place}" + ("" if seconds is None else f", starts in ~{_rounded(seconds)}")


def _rounded(seconds: float) -> str:
    for unit, size in (("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(1, seconds):.0f} s"


def error_of(predicted: float, real: float) -> float:
    """How wrong it was, as a part of what it was: 0 is exact. Waits below 0.1 s count as that."""
    return abs(predicted - real) / max(real, 0.1)
