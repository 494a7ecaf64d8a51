"""API keys: who calls, for whom, and what he may. Entries of `registry` (`key/<name>`), and of a keys file. Only digests are kept."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from shared.contracts.base import CLASSES, DAY_SECONDS, TENANT, Contract, EpochSeconds, Instant, Label, PriorityClass, Tenant

KIND = "key"
"""Of the entries."""
KeyName = Annotated[str, StringConstraints(pattern=f"^{TENANT}$", max_length=64)]
"""By it its holder is known; it names the rate buckets, and is shown in logs."""
GRACE_SECONDS = DAY_SECONDS
"""Unless it is said otherwise, so long a key holds that was rotated away."""
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$", to_lower=True, max_length=64)]
"""SHA-256 of the key, in hex."""
Rated = Annotated[float, Field(ge=1e-3, le=1e12)]
Burst = Annotated[float, Field(ge=1, le=1e12)]


class Role(StrEnum):
    """What a key may (`shared.access.RIGHTS`). Administrators and operators for every tenant, the others for their own."""

    ADMIN = "admin"
    OPERATOR = "operator"
    USER = "user"
    VIEWER = "viewer"


class KeyTerms(Contract):
    """What a key stands for, however it is declared."""

    model_config = ConfigDict(extra="forbid")

    tenant: Tenant = "default"
    """Whose jobs these are."""
    role: Role = Role.USER
    classes: tuple[PriorityClass, ...] = Field(default=CLASSES, min_length=1, max_length=len(CLASSES))
    ceiling: PriorityClass | None = None
    """The most urgent class that it may ask for; who names none gets at most this."""
    requests_per_minute: Rated | None = None
    """Unlimited when left out; so are tokens."""
    request_burst: Burst | None = None
    """One minute's worth when left out."""
    tokens_per_minute: Rated | None = None
    """Estimated before, settled after."""
    token_burst: Burst | None = None
    expires_at: Instant | None = None
    """From then on it is no key any more, by the clock of whoever is asked."""

    @model_validator(mode="after")
    def _allows_a_class(self) -> Self:
        if not self.allowed:
            raise ValueError("no class of `classes` is at or below `ceiling`")
        return self

    @property
    def allowed(self) -> tuple[PriorityClass, ...]:
        """The classes that it may ask for, the most urgent first."""
        most = 0 if self.ceiling is None else CLASSES.index(self.ceiling)
        return tuple(c for c in CLASSES[most:] if c in self.classes)


class KeySecret(Contract):
    """A key's digest. `until`: it has been rotated away, and holds no longer than this."""

    digest: Digest
    until: EpochSeconds | None = None


class ApiKey(KeyTerms):
    """A key that administrators have made at run time."""

    model_config = ConfigDict(extra="ignore")

    secrets: tuple[KeySecret, ...] = Field(min_length=1, max_length=2)
    """The one in force first; then the one before, while it still holds."""
    at: EpochSeconds
    by: Label = ""
    """The name of the key that last changed it."""
