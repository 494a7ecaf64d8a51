"""Derived identifiers: the same input always gives the same id, so that redelivery and re-runs cannot double anything."""

from __future__ import annotations

from hashlib import blake2b

from shared.contracts.base import StepId
from shared.contracts.headers import Origin
from shared.contracts.ids import home_of
from shared.murmur import Spelling

_SEPARATOR = b"\x1f"
_BOUT = 64
_RFC_4648 = Spelling("abcdefghijklmnopqrstuvwxyz234567")
"""Base 32; `base64.b32encode` takes ten times as long."""


def job_id(cluster: str, lies: Origin, homes: int) -> str:
    """Id of a job that came without one: from where its record lies, so a redelivered record is the same job; it is at home there.

    The cluster id and the timestamp keep a re-created topic from repeating ids.
    """
    text = f"{cluster}\x1f{lies.topic}\x1f{lies.partition}\x1f{lies.offset}\x1f{lies.timestamp}"
    return derived("j_", text, lies.partition % homes, homes)


def comparison_id(job: str, accepted_at: float, homes: int) -> str:
    """Of the job that compares this one's answer with its baseline: at home where that one is."""
    return derived("j_", f"compare\x1f{job}\x1f{accepted_at}", home_of(job, homes), homes)


def line_id(tenant: str, batch: str, number: int, homes: int) -> str:
    """Of the job that is this line of a tenant's batch. Neighbours share a home (`_BOUT`), as jobs that arrive together do."""
    text = f"line\x1f{tenant}\x1f{batch}\x1f{number}"
    return derived("j_", text, (home_of(batch, homes) + number // _BOUT) % homes, homes)


def derived(prefix: str, text: str, home: int, homes: int) -> str:
    """An id of 26 characters after the prefix (of two): 110 bits of the text's hash, and an ending by which this is its home."""
    number = int.from_bytes(blake2b(text.encode(), digest_size=15).digest())
    return _RFC_4648.spell(prefix, number, home, homes)


def step_id(job: str, pattern: str, version: int, path: str, rendered: bytes) -> StepId:
    """128 bits, hex, from the job, the pattern and its version, the path of calls (which counts iterations) and the rendered input."""
    head = _SEPARATOR.join((job.encode(), pattern.encode(), b"%d" % version, path.encode(), b""))
    return StepId(blake2b(head + rendered, digest_size=16).hexdigest())
