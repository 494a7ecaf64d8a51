"""Job ids: `j_` + ULID (github.com/ulid/spec): 48 bits of milliseconds, 80 bits of randomness, Crockford's base 32."""

from __future__ import annotations

import re
from random import Random

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(a + b for a in _ALPHABET for b in _ALPHABET)
"""Two characters at a time: 10 bits."""
_GENERATED = re.compile(r"^j_[0-7][0-9A-HJKMNP-TV-Z]{25}$")


def new_job_id(wall_seconds: float, random: Random) -> str:
    """Sorts by time, down to the millisecond. `wall_seconds`: since the Unix epoch."""
    number = (int(wall_seconds * 1000) & 0xFFFF_FFFF_FFFF) << 80 | random.getrandbits(80)
    return "j_" + "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])


def is_generated(job: str) -> bool:
    """Whether an ingress made this id, so that its home is the crc32 of the id."""
    return _GENERATED.match(job) is not None
