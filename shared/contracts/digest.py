"""Request digest: tells a repeated submission from another body under the same id. The ingress and the planner must agree on it."""

from __future__ import annotations

from hashlib import blake2b


def request_digest(body: bytes) -> str:
    """Of a job's canonical body (`Job.to_bytes`): what a caller left to the defaults is written out, so spelling does not matter."""
    return blake2b(body, digest_size=16).hexdigest()
