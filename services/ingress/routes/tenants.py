"""`GET/PUT/DELETE /v1/tenants/{id}`, `GET /v1/tenants`: the limits that administrators declare, written to the registry.

Changing needs an administrator's key, listing an operator's; a tenant's own key may look at its own. Limits hold within a second of the
answer.
"""

from __future__ import annotations

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from services.ingress.admission.tenant_days import Spending
from services.ingress.declaring import Declaring
from services.ingress.handlers import Door
from services.ingress.problems import Problem, Refused
from services.ingress.routes.asking import Routes, as_json, body_of, caller, named
from shared.access import Right
from shared.contracts.base import TENANT
from shared.contracts.budget import KIND, TenantLimits, day_of
from shared.validators.checks import check_settings

_BODY_BYTES = 16 * 1024


class TenantView(BaseModel):
    """A tenant as shown. `today` is what this instance has seen; it lags behind by what homes have not told yet."""

    id: str
    limits: TenantLimits
    today: Spending | None = None


class _TenantRoutes:
    """Answers change with the registry: what was just put may take a moment to be read back."""

    def __init__(self, door: Door, declaring: Declaring) -> None:
        self._door, self._declaring = door, declaring

    async def list(self, request: Request) -> Response:
        """All tenants that have limits, by name."""
        caller(self._door, request).check(Right.OPERATE)
        return as_json({"tenants": [self._view(name) for name in sorted(self._door.tenants.limits)]}, exclude_none=True)

    async def get(self, request: Request) -> Response:
        """One tenant's limits and spending; 404 when nothing is declared."""
        name = tenant_named(request)
        if not caller(self._door, request).may_see(name):
            raise Refused(Problem(403, "tenant_not_allowed", "this key may not look at another tenant"))
        if name not in self._door.tenants.limits:
            raise Refused(Problem(404, "not_found", "no limits are declared for this tenant"))
        return as_json(self._view(name), exclude_none=True)

    async def put(self, request: Request) -> Response:
        """Declare; what is left out is unlimited. Answered once Kafka has it."""
        name = tenant_named(request)
        limits = await body_of(self._door, request, TenantLimits, _BODY_BYTES, tenant=name)
        for policy in limits.policies:
            check_settings(policy.checks)
        await self._declaring.write(request, "declare", KIND, name, {name: limits.to_bytes()}, tenant=name)
        return as_json(TenantView(id=name, limits=limits), exclude_none=True)

    async def delete(self, request: Request) -> Response:
        """The tenant has no limits any more."""
        name = tenant_named(request)
        await self._declaring.write(request, "remove", KIND, name, {name: None}, tenant=name)
        return Response(status_code=204)

    def _view(self, name: str) -> TenantView:
        tenants = self._door.tenants
        today = day_of(self._door.clock.wall())
        return TenantView(id=name, limits=tenants.limits[name], today=tenants.spending(name, today))


def routes(door: Door, declaring: Declaring) -> Routes:
    """By path and method."""
    own = _TenantRoutes(door, declaring)
    return {
        "/v1/tenants": {"GET": own.list},
        "/v1/tenants/{tenant}": {"GET": own.get, "PUT": own.put, "DELETE": own.delete},
    }


def tenant_named(request: Request) -> str:
    """Of the path. Raises Refused (400)."""
    return named(request, "tenant", "a tenant's name", TENANT, code="invalid_tenant", param=None)
