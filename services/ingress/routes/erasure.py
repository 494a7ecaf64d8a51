"""`POST /v1/tenants/{id}/erase`: what is held of a tenant goes, by administrators. Without `"dry_run": false` it is only told what would.

Keys go first, so that nothing new comes; then limits, schedules, conversations, batches, files; last the entry by which every service
erases what it holds (`contracts/erased.py`). What Kafka has goes with its retention; where it is sealed, its keys
go, at once. Jobs that run go on: what they write is later than the erasing, and one whose history cannot be read any more is forgotten when
another planner takes its home.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from services.ingress.declaring import Declaring
from services.ingress.handlers import Door
from services.ingress.problems import Problem, Refused, registry_unread
from services.ingress.routes.asking import Routes, as_json, body_of, caller
from services.ingress.routes.tenants import tenant_named
from shared.contracts import ids, keys, schedule
from shared.contracts.batch import BatchCancelled
from shared.contracts.budget import KIND as LIMITS
from shared.contracts.conversation import ConversationDropped
from shared.contracts.erased import KIND, Erased
from shared.scheduling.schedule_table import ScheduleTable
from shared.sealing.entries import DataKeys
from shared.service import Environment
from shared.topics import DAY_MS, FAMILIES

_BODY_BYTES = 1024
OF_NO_TENANT = frozenset({"registry", "files", "data-keys", "nodes", "credits", "presence"})
"""Families of topics without anything of a tenant but what is erased here."""


class Erasure(BaseModel):
    """The body."""

    model_config = ConfigDict(extra="forbid")

    dry_run: bool = True


class _Part(BaseModel):
    """What goes, or stays. `count`: as far as this instance knows it."""

    what: str
    count: int | None = None
    days: float | None = None
    """How long it stays."""


_ELSEWHERE = (
    _Part(what="sums of days in the sink's store: counts and cost, by name (TUTTI_SINK__TOTALS_DAYS)"),
    _Part(what="the audit chain: ids and hashes, no text (TUTTI_SINK__AUDIT_DAYS); what administrators did (TUTTI_SINK__ACTS_DAYS)"),
    _Part(what="keys of a keys file, and blobs and backups outside of tutti: yours to remove"),
)


class ErasureView(BaseModel):
    """The answer."""

    tenant: str
    erased: bool
    goes: list[_Part]
    stays: list[_Part]


class _ErasureRoutes:
    def __init__(self, door: Door, declaring: Declaring, schedules: ScheduleTable, environment: Environment) -> None:
        self._door, self._declaring, self._schedules, self._topics = door, declaring, schedules, environment.topics
        self._data_keys = DataKeys(environment.log, environment.topics.data_keys)

    async def create(self, request: Request) -> Response:
        """Answered once Kafka has all that is to be done; the services do it within seconds."""
        tenant = tenant_named(request)
        given = await body_of(self._door, request, Erasure, _BODY_BYTES, tenant="default", empty=b"{}")
        if not (self._door.access.complete() and self._schedules.complete()):
            raise Refused(registry_unread(self._door.settings.retry_after_seconds))
        if not given.dry_run and caller(self._door, request).name in self._keys(tenant):
            raise Refused(Problem(409, "own_key", "the key that asks is one of the tenant's: ask with another one", "id"))
        view = ErasureView(
            tenant=tenant, erased=not given.dry_run, goes=[*self._goes(tenant), *await self._seals(tenant)], stays=self._stays()
        )
        if not given.dry_run:
            await self._erase(request, tenant)
        return as_json(view, exclude_none=True)

    def _keys(self, tenant: str) -> list[str]:
        return sorted(name for name, key in self._door.access.declared.items() if key.tenant == tenant)

    def _runs(self, tenant: str) -> list[str]:
        return sorted(name for name, entry in self._schedules.entries.items() if entry.schedule.job.tenant == tenant)

    def _talks(self, tenant: str) -> list[str]:
        return [known.conversation for known in self._door.events.conversations if known.tenant == tenant]

    def _batches(self, tenant: str) -> list[str]:
        return [known.batch for known in self._door.events.batches if known.tenant == tenant]

    def _goes(self, tenant: str) -> list[_Part]:
        return [
            _Part(what="API keys made at run time", count=len(self._keys(tenant))),
            _Part(what="limits", count=int(tenant in self._door.tenants.limits)),
            _Part(what="schedules", count=len(self._runs(tenant))),
            _Part(what="conversations", count=len(self._talks(tenant))),
            _Part(what="batches", count=len(self._batches(tenant))),
            _Part(what="files", count=len([*self._door.files.of(tenant)])),
            _Part(what="status of jobs, in memory and in Redis"),
            _Part(what="rows of jobs and conversations in the sink's store"),
            _Part(what="answers in the cache"),
        ]

    async def _seals(self, tenant: str) -> list[_Part]:
        """Where records are sealed: their keys go, and what is sealed cannot be read any more, however long it stays."""
        held = () if self._topics.data_keys in self._topics.missing else await self._data_keys.of_tenant(tenant)
        what = "keys of its sealed records: what Kafka has of it, and backups of that, cannot be read any more"
        return [_Part(what=what, count=len(held))] if held else []

    async def _erase(self, request: Request, tenant: str) -> None:
        write, door = self._declaring.write, self._door
        await self._declaring.tell(request, "erase", LIMITS, tenant, tenant=tenant)
        for name in self._keys(tenant):
            await write(request, "revoke", keys.KIND, name, {name: None}, tenant=tenant, known=door.access.on_entry)
        if tenant in door.tenants.limits:
            await write(request, "remove", LIMITS, tenant, {tenant: None}, tenant=tenant)
        for name in self._runs(tenant):
            await write(request, "remove", schedule.KIND, ids.public(name), {name: None}, tenant=tenant, known=self._schedules.apply)
        for conversation in self._talks(tenant):
            await door.submitter.to_owner(ConversationDropped(tenant=tenant, conversation=conversation))
        for batch in self._batches(tenant):
            await door.submitter.to_owner(BatchCancelled(tenant=tenant, batch=batch, forget=True))
        for file in [*door.files.of(tenant)]:
            await door.files.remove(file)
        by = caller(door, request).name
        await self._declaring.put(KIND, tenant, Erased(at=door.clock.wall(), by=by).to_bytes())
        if self._topics.data_keys not in self._topics.missing:
            await self._data_keys.shred(tenant)

    def _stays(self) -> list[_Part]:
        """In Kafka by each topic's retention; in the sink's store by its settings."""
        days = [(family.pattern, family.retention_ms) for family in FAMILIES if family.pattern not in OF_NO_TENANT]
        kept = [_Part(what=f"records of {pattern}", days=round(ms / DAY_MS, 3)) for pattern, ms in days if ms is not None]
        digests = self._door.settings.status_ttl_seconds * 1000 / DAY_MS
        return [*kept, _Part(what="digests of requests in Redis, by which a repeated id is known", days=digests), *_ELSEWHERE]


def routes(door: Door, declaring: Declaring, schedules: ScheduleTable, environment: Environment) -> Routes:
    """By path and method."""
    own = _ErasureRoutes(door, declaring, schedules, environment)
    return {
        "/v1/tenants/{tenant}/erase": {"POST": own.create},
    }
