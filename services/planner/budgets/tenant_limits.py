"""LimitsByTenant: the limits that administrators have declared, as the registry tells them. Bounded."""

from __future__ import annotations

from shared.contracts.budget import TenantLimits
from shared.telemetry import logs

log = logs.get(__name__)

_MOST = 10_000


class LimitsByTenant(dict[str, TenantLimits]):
    """Tenant → limits. Who is not in it has none."""

    def on_entry(self, _kind: str, name: str, value: bytes | None) -> None:
        """An entry of the registry, in log order. Raises ValueError when it is not valid: the one before stands."""
        if value is None:
            self.pop(name, None)
        elif name in self or len(self) < _MOST:
            self[name] = TenantLimits.model_validate_json(value)
        else:
            log.error("tenant_ignored", reason="too many tenants have limits")
