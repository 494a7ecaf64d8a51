"""Polling for a condition of the outside world, with an end."""

from __future__ import annotations

import time
from collections.abc import Callable

from shared.clock import SystemClock

_clock = SystemClock()


def wait_until(condition: Callable[[], bool], timeout_seconds: float, *, every_seconds: float = 0.1) -> bool:
    """True as soon as `condition()` is; False when `timeout_seconds` have passed. Always asks at least once."""
    deadline = _clock.monotonic() + timeout_seconds
    while not condition():
        if _clock.monotonic() >= deadline:
            return False
        time.sleep(every_seconds)
    return True


def seconds_since(start: float) -> float:
    """Seconds since `now()` returned `start`."""
    return _clock.monotonic() - start


def now() -> float:
    """Seconds since an arbitrary start."""
    return _clock.monotonic()
