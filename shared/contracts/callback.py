"""Callback: where the end of a job is told over HTTP, as its caller wants it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from shared.contracts.base import TAG, Contract

End = Literal["succeeded", "failed", "cancelled", "expired"]
ENDS: tuple[End, ...] = ("succeeded", "failed", "cancelled", "expired")
"""As `result.Status` has them."""
CallbackUrl = Annotated[str, StringConstraints(pattern=r"^https?://[!-~]+$", max_length=2_048)]
"""Of its form alone. Which addresses may be called, the ingresses' settings say, and ask again at each delivery."""
SecretName = Annotated[str, StringConstraints(pattern=f"^{TAG}$", max_length=32)]


COMMON = "default"
"""The name of the secret that is meant where none is named."""


class Callback(Contract):
    """The secret itself is in no record: whoever delivers has those of each tenant by their names."""

    model_config = ConfigDict(extra="forbid")

    url: CallbackUrl
    secret: SecretName = COMMON
    """By which of the tenant's secrets its deliveries are signed."""
    events: tuple[End, ...] = Field(default=ENDS, min_length=1, max_length=len(ENDS))
    """Of which ends it is told."""
