"""How often each model is asked for, by the hour of the day. Pure; bounded by the models that a node has.

Each node tells it of the models that it is asked for most (`Node.demand`), so that the cluster's demand is the sum over those that live,
and a worker that starts again goes on with what its earlier boot, or else the others, have told.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from shared.contracts.base import at_most
from shared.contracts.node import HOURS, MOST_DEMANDED

RECENT_SECONDS = 600.0
"""What was asked for so lately is expected again."""
_HOUR = 3_600
_FADES = 0.5
"""Of what earlier days had in an hour, each day."""


class _Hours:
    __slots__ = ("asked_at", "day", "today", "usual")

    def __init__(self, day: int) -> None:
        self.day = day
        self.today, self.usual = [0.0] * HOURS, [0.0] * HOURS
        self.asked_at = 0.0

    def turn(self, day: int) -> None:
        """A new day has begun, or several."""
        for _ in range(min(day - self.day, 10)):
            self.usual = [_FADES * usual + (1 - _FADES) * count for usual, count in zip(self.usual, self.today, strict=True)]
            self.today = [0.0] * HOURS
        self.day = max(day, self.day)

    def lately(self, wall: float) -> bool:
        """Whether it was asked for of late."""
        return 0 <= wall - self.asked_at < RECENT_SECONDS

    def likely(self, hour: int, wall: float) -> float:
        """Calls within this hour."""
        return max(self.usual[hour], sum(self.today[hour - 1 : hour + 1] if hour else self.today[:1]) if self.lately(wall) else 0.0)


class WarmModels:
    """`wall`: seconds since 1970; a clock that is set back or forward costs a load at worst."""

    def __init__(self) -> None:
        self._models: dict[str, _Hours] = {}

    def asked(self, model: str, wall: float) -> None:
        """A call of it begins."""
        hours = self._of(model, wall)
        hours.today[hour_of(wall)] += 1.0
        hours.asked_at = wall

    def used(self, model: str, wall: float) -> bool:
        """Whether it was asked for of late."""
        return model in self._models and self._models[model].lately(wall)

    def told(self, models: Collection[str], wall: float) -> dict[str, tuple[int, ...]]:
        """Of these the ones that are asked for most: calls that are likely in each hour of the day."""
        for gone in self._models.keys() - set(models):
            del self._models[gone]
        found = dict[str, tuple[int, ...]]()
        for model in self._models:
            hours = self._of(model, wall)
            usual = [*hours.usual]
            usual[hour_of(wall)] = hours.likely(hour_of(wall), wall)
            if any(counts := tuple(at_most(round(count)) for count in usual)):
                found[model] = counts
        return dict(sorted(found.items(), key=lambda each: (-sum(each[1]), each[0]))[:MOST_DEMANDED])

    def adopt(self, told: Iterable[Mapping[str, tuple[int, ...]]], wall: float) -> None:
        """What others, or an earlier boot, have told, where nothing is known here: the mean of all, so that their sum stays what it is."""
        every = list(told)
        for model in {model for one in every for model in one} - self._models.keys():
            known = [one[model] for one in every if model in one]
            self._of(model, wall).usual = [sum(counts) / len(every) for counts in zip(*known, strict=True)]

    def _of(self, model: str, wall: float) -> _Hours:
        day = int(wall) // (_HOUR * HOURS)
        hours = self._models.setdefault(model, _Hours(day))
        hours.turn(day)
        return hours


def hour_of(wall: float) -> int:
    """Of the day, in UTC."""
    return int(wall) // _HOUR % HOURS
