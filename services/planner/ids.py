"""Derived identifiers: the same input always gives the same id, so that redelivery and re-runs cannot double anything."""

from __future__ import annotations

from base64 import b32encode
from hashlib import blake2b

from shared.contracts.base import StepId

_SEPARATOR = b"\x1f"


def job_id(cluster: str, topic: str, partition: int, offset: int, timestamp_ms: int) -> str:
    """Id of a job that came without one: from where its record lies, so a redelivered record is the same job.

    The cluster id and the timestamp keep a re-created topic from repeating ids.
    """
    text = f"{cluster}\x1f{topic}\x1f{partition}\x1f{offset}\x1f{timestamp_ms}"
    return "j_" + b32encode(blake2b(text.encode(), digest_size=16).digest()).decode().rstrip("=").lower()


def step_id(job: str, pattern: str, version: int, path: str, rendered: bytes) -> StepId:
    """128 bits, hex, from the job, the pattern and its version, the path of calls (which counts iterations) and the rendered input."""
    head = _SEPARATOR.join((job.encode(), pattern.encode(), b"%d" % version, path.encode(), b""))
    return StepId(blake2b(head + rendered, digest_size=16).hexdigest())
