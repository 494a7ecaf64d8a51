"""Moments as people give them to commands: a time ago, or an instant."""

from __future__ import annotations

import re
from datetime import datetime

from infra.cli.exits import CommandExit, Exit

_AGO = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(s|m|h|d)")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


def instant(text: str, now: float) -> float:
    """Seconds since 1970 of a time ago (`30m`, `2h`), or of ISO 8601 with an offset. Raises CommandExit (usage)."""
    if found := _AGO.fullmatch(text):
        return now - float(found[1]) * _SECONDS[found[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise CommandExit(Exit.USAGE, f"{text!r} is neither a time ago (30m, 2h, 7d) nor ISO 8601 with an offset (2026-01-31T12:00:00Z)")
    return moment.timestamp()
