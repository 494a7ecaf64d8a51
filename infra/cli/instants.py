"""Times as people give them to commands: a duration, a time ago, an instant."""

from __future__ import annotations

import re
from datetime import datetime

from infra.cli.exits import CommandExit, Exit
from shared.contracts.base import DAY_SECONDS

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhd]?)")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": DAY_SECONDS}


def seconds_of(text: str, unit: str = "") -> float | None:
    """A duration (`30m`, `2h`); None: it is none. `unit`: of a bare number, which else is none."""
    found = _DURATION.fullmatch(text)
    seconds = _SECONDS.get(found[2] or unit) if found else None
    return None if found is None or seconds is None else float(found[1]) * seconds


def instant(text: str, now: float) -> float:
    """Seconds since 1970 of a time ago (`30m`, `2h`), or of ISO 8601 with an offset. Raises CommandExit (usage)."""
    if (ago := seconds_of(text)) is not None:
        return now - ago
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise CommandExit(Exit.USAGE, f"{text!r} is neither a time ago (30m, 2h, 7d) nor ISO 8601 with an offset (2026-01-31T12:00:00Z)")
    return moment.timestamp()
