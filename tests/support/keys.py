"""API keys for tests: each key is its name."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from shared.access import Access
from shared.clock import Clock
from shared.contracts.keys import KIND, ApiKey, KeySecret, Role


def api_key(name: str, tenant: str = "default", role: Role = Role.USER, **terms: Any) -> ApiKey:
    """As the registry holds it."""
    return ApiKey(tenant=tenant, role=role, secrets=(KeySecret(digest=sha256(name.encode()).hexdigest()),), at=0.0, **terms)


def access_with(clock: Clock, **tenants: str | None) -> Access:
    """Keys by name: of this tenant's user; of an administrator where it is None."""
    access = Access(clock)
    for name, tenant in tenants.items():
        key = api_key(name, role=Role.ADMIN) if tenant is None else api_key(name, tenant)
        access.on_entry(KIND, name, key.to_bytes())
    return access
