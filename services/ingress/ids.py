"""Job ids: `j_` + ULID (github.com/ulid/spec): 48 bits of milliseconds, 80 bits of randomness, Crockford's base 32."""

from __future__ import annotations

import re
from random import Random

from shared.murmur import Endings

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(a + b for a in _ALPHABET for b in _ALPHABET)
"""Two characters at a time: 10 bits."""
_ENDINGS = Endings([_PAIRS[7 * number & 1023] + pair for number, pair in enumerate(_PAIRS)])
_GENERATED = re.compile(r"j_[0-7][0-9A-HJKMNP-TV-Z]{25}")


def new_job_id(wall_seconds: float, random: Random, home: int = 0, homes: int = 1) -> str:
    """Sorts by time, down to the millisecond. `wall_seconds`: since the Unix epoch. Its last four characters are chosen so that it has
    this home among so many.
    """
    number = (int(wall_seconds * 1000) & 0xFFFF_FFFF_FFFF) << 70 | random.getrandbits(70)
    head = "j_" + "".join([_PAIRS[number >> shift & 1023] for shift in range(110, 9, -10)])
    return _ENDINGS.complete(head, number & 1023, home, homes)


def is_generated(job: str) -> bool:
    """Whether an ingress made this id, so that its home is the hash of the id."""
    return _GENERATED.fullmatch(job) is not None
