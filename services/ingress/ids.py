"""Job ids: `j_` + ULID (github.com/ulid/spec): 48 bits of milliseconds, 80 bits of randomness, Crockford's base 32."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(a + b for a in _ALPHABET for b in _ALPHABET)
"""Two characters at a time: 10 bits."""
_GENERATED = re.compile(r"j_[0-7][0-9A-HJKMNP-TV-Z]{25}")


def new_job_id(wall_seconds: float, random: Random, fits: Callable[[str], bool] | None = None) -> str:
    """Sorts by time, down to the millisecond. `wall_seconds`: since the Unix epoch.

    `fits`: what the id must satisfy (a home, by its hash); its last two characters are varied until it does, 1,024 times at most.
    """
    number = (int(wall_seconds * 1000) & 0xFFFF_FFFF_FFFF) << 80 | random.getrandbits(80)
    head = "j_" + "".join([_PAIRS[number >> shift & 1023] for shift in range(120, 9, -10)])
    for turn in range(1024):
        job = head + _PAIRS[(number + turn) & 1023]
        if fits is None or fits(job):
            break
    return job


def is_generated(job: str) -> bool:
    """Whether an ingress made this id, so that its home is the crc32 of the id."""
    return _GENERATED.fullmatch(job) is not None
