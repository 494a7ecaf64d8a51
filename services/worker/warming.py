"""Which model is likely to be asked for soon, by the hours in which it was asked before. Pure; bounded by the models that a node has.

An endpoint that has nothing in memory, since it has begun anew or its models' time is over, is given that model back before somebody waits
for it. Of this worker's own calls only, and of its own life: a restart begins anew.
"""

from __future__ import annotations

from collections.abc import Collection

FEWEST = 2.0
"""Calls that are expected within the hour: for fewer nothing is loaded."""
RECENT_SECONDS = 600.0
"""What was asked for so lately is expected again."""
_HOUR, _HOURS = 3_600, 24
_FADES = 0.5
"""Of what earlier days had in an hour, each day."""


class _Hours:
    __slots__ = ("asked_at", "day", "today", "usual")

    def __init__(self, day: int) -> None:
        self.day = day
        self.today, self.usual = [0.0] * _HOURS, [0.0] * _HOURS
        self.asked_at = 0.0

    def turn(self, day: int) -> None:
        """A new day has begun, or several."""
        for _ in range(min(day - self.day, 10)):
            self.usual = [_FADES * usual + (1 - _FADES) * count for usual, count in zip(self.usual, self.today, strict=True)]
            self.today = [0.0] * _HOURS
        self.day = max(day, self.day)


class WarmModels:
    """`wall`: seconds since 1970; a clock that is set back or forward costs a load at worst."""

    def __init__(self) -> None:
        self._models: dict[str, _Hours] = {}

    def asked(self, model: str, wall: float) -> None:
        """A call of it begins."""
        day, hour = self._when(wall)
        hours = self._models.setdefault(model, _Hours(day))
        hours.turn(day)
        hours.today[hour] += 1.0
        hours.asked_at = wall

    def likely(self, models: Collection[str], wall: float) -> str | None:
        """The one of these that is expected most within this hour, if any is."""
        day, hour = self._when(wall)
        for gone in self._models.keys() - set(models):
            del self._models[gone]
        best, most = None, FEWEST
        for name, hours in sorted(self._models.items()):
            hours.turn(day)
            recent = sum(hours.today[hour - 1 : hour + 1]) if 0 <= wall - hours.asked_at < RECENT_SECONDS else 0.0
            expected = max(hours.usual[hour], recent)
            if expected >= most and (best is None or expected > most):
                best, most = name, expected
        return best

    def _when(self, wall: float) -> tuple[int, int]:
        return int(wall) // (_HOUR * _HOURS), int(wall) // _HOUR % _HOURS
