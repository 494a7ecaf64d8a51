"""Cron: the instants that a cron expression names in a time zone. Pure.

Five fields (minute hour day month weekday), or six with seconds first. Around changes of the clocks it does as Debian's cron does: what is
due at an hour that is left out runs when the clocks have changed, what is due at an hour that comes twice runs the first time, and what
runs every so many minutes goes on by the real time.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from shared.errors import InvalidInput

_WINDOW_SECONDS = 7 * 86_400.0
_WINDOW_WITH_SECONDS = 3_600.0
_FIRST_SPAN_SECONDS = 120.0
_INVALID = "invalid_cron"
"""Code of what is no expression, or no time zone."""


class Cron:
    """One expression in one zone. Raises InvalidInput."""

    def __init__(self, expression: str, time_zone: str = "UTC") -> None:
        try:
            # A name with a null byte or an absolute path is a ValueError, a folder of the data base an OSError.
            self._zone = ZoneInfo(time_zone)
        except (LookupError, ValueError, OSError):
            raise InvalidInput(f"there is no time zone {time_zone!r}", code=_INVALID) from None
        self._expression = expression
        self.window_seconds = _WINDOW_WITH_SECONDS if len(expression.split()) == 6 else _WINDOW_SECONDS
        """How far back runs are looked for: a bound on their number."""
        try:
            next(CronSim(expression, datetime(2026, 1, 1, tzinfo=UTC)))
        except CronSimError as error:
            raise InvalidInput(f"not a cron expression: {str(error).lower()}", code=_INVALID) from None
        except StopIteration:
            raise InvalidInput("the cron expression names no day that exists", code=_INVALID) from None

    def runs(self, after: float) -> Iterator[float]:
        """Every instant later than `after`, in order (epoch seconds)."""
        last = after
        for moment in CronSim(self._expression, datetime.fromtimestamp(after, self._zone)):
            instant = moment.timestamp()
            if instant > last:
                last = instant
                yield instant

    def next(self, after: float) -> float | None:
        """The first instant later than `after`; None when there is none within 50 years."""
        return next(self.runs(after), None)

    def newest(self, after: float, until: float, count: int) -> list[float]:
        """The last `count` instants in (after, until], in order; none older than the window."""
        after, span = max(after, until - self.window_seconds), _FIRST_SPAN_SECONDS
        while True:
            start = max(after, until - span)
            found = list(self._between(start, until))
            if len(found) >= count or start == after:
                return found[-count:]
            span *= 2

    def _between(self, start: float, until: float) -> Iterator[float]:
        if until <= start:
            return
        for instant in self.runs(start):
            if instant > until:
                return
            yield instant
