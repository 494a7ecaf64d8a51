"""BlobRef: where a body above the inline bound lies. In records of tutti's own only; from outside a reference is refused."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from shared.contracts.base import DIGEST, Contract, EpochSeconds, Offset, Ordinal, Partition

BLOB_BYTES = 16 * 1024 * 1024
"""Largest body that is kept: the largest request as it is written out, the vectors of the largest embedding."""


class BlobRef(Contract):
    """A body in the topic `blobs`, cut into chunks. Their key is made of the tenant and the digest (`processing.blobs.key_of`), so that
    whoever names another tenant's blob finds nothing. Other writers' chunks may lie between the first and the last.
    """

    digest: Annotated[str, StringConstraints(pattern=f"^{DIGEST}$", max_length=32)]
    """BLAKE2b of 128 bits over the whole body, hex."""
    partition: Partition
    first: Offset
    """Of the first chunk."""
    last: Offset
    """Of the last chunk."""
    chunks: Annotated[Ordinal, Field(le=1_000)]
    size: Annotated[Ordinal, Field(le=BLOB_BYTES)]
    """Bytes."""
    written_at: EpochSeconds
    """By its writer's clock. Fourteen days later it is gone; what is still needed is written again before."""
