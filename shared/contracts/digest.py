"""Digests: tell a repeated submission from another body under the same id, and one blob from another. All services must agree on them."""

from __future__ import annotations

from hashlib import blake2b


def digest_of(body: bytes) -> str:
    """Of a job the canonical body (`Job.to_bytes`): what a caller left to the defaults is written out, so spelling does not matter."""
    return blake2b(body, digest_size=16).hexdigest()
