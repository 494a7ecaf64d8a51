"""DataKey: a key that bodies are sealed with, wrapped by a cluster key. An entry of `data-keys`; a record without value shreds it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from shared.contracts.base import TENANT, Contract, EpochSeconds

CLUSTER_KEY = r"[0-9a-f]{16}"


class DataKey(Contract):
    """Under the key `tenant/id`. Of one tenant several may hold at once: any opens, the newest seals."""

    tenant: Annotated[str, StringConstraints(pattern=f"^(?:{TENANT})?$", max_length=64)]
    """Empty: of what is nobody's in particular."""
    cluster_key: Annotated[str, StringConstraints(pattern=f"^{CLUSTER_KEY}$", max_length=16)]
    """The id of the cluster key that wraps it: of its digest."""
    wrapped: Annotated[bytes, Field(max_length=128)]
    """Nonce and AES-256-GCM of the 32 bytes, for this entry's key alone."""
    at: EpochSeconds
    """When it was made."""
