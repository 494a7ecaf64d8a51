"""Derived identifiers: the same input always gives the same id, so that redelivery and re-runs cannot double anything."""

from __future__ import annotations

from hashlib import blake2b

from shared.contracts.base import StepId

_SEPARATOR = b"\x1f"
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS = tuple(a + b for a in _ALPHABET for b in _ALPHABET)
"""RFC 4648 base 32, two characters at a time: `base64.b32encode` takes ten times as long."""


def job_id(cluster: str, topic: str, partition: int, offset: int, timestamp_ms: int) -> str:
    """Id of a job that came without one: from where its record lies, so a redelivered record is the same job.

    The cluster id and the timestamp keep a re-created topic from repeating ids.
    """
    text = f"{cluster}\x1f{topic}\x1f{partition}\x1f{offset}\x1f{timestamp_ms}"
    return "j_" + encoded(blake2b(text.encode(), digest_size=16).digest())


def encoded(digest: bytes) -> str:
    """128 bits in 26 characters."""
    number = int.from_bytes(digest) << 2
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])


def step_id(job: str, pattern: str, version: int, path: str, rendered: bytes) -> StepId:
    """128 bits, hex, from the job, the pattern and its version, the path of calls (which counts iterations) and the rendered input."""
    head = _SEPARATOR.join((job.encode(), pattern.encode(), b"%d" % version, path.encode(), b""))
    return StepId(blake2b(head + rendered, digest_size=16).hexdigest())
