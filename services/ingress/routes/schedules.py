"""`GET/PUT/DELETE /v1/schedules/{id}`, `GET /v1/schedules`: recurring jobs, written to the registry.

A schedule's name is its tenant's own: two tenants may use the same. Whoever may act for the tenant may declare, see and remove it; an
administrator names the tenant (`x-tutti-tenant`, `?tenant=`, or in the job). Planners follow the registry within a second.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from services.ingress.declaring import Declaring
from services.ingress.handlers import Door
from services.ingress.http.encodings import check_inline_size
from services.ingress.http.exchange import call_headers, query_tenant
from services.ingress.problems import Problem, Refused, registry_unread
from services.ingress.replies.register import may_take
from services.ingress.routes.asking import Routes, as_json, body_of, caller, client_of, named, unknown
from shared.access import Client
from shared.contracts import ids
from shared.contracts.base import SCHEDULE, PriorityClass
from shared.contracts.job import Job
from shared.contracts.schedule import KIND, LATE_SECONDS, CronText, LateSeconds, Missed, Schedule, TimeZone
from shared.errors import InvalidInput
from shared.processing.registry import ENTRY_BYTES
from shared.scheduling.cron import Cron
from shared.scheduling.schedule_table import MOST, ScheduleEntry, ScheduleTable

_NEXT = 5
"""Runs that are foretold."""


class ScheduleSubmission(BaseModel):
    """The body of a PUT."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    cron: CronText
    time_zone: TimeZone = "UTC"
    job: Job
    priority_class: PriorityClass = Field(default=PriorityClass.STANDARD, alias="class")
    missed: Missed = Missed.LAST
    late_seconds: LateSeconds = LATE_SECONDS
    enabled: bool = True


class _ScheduleRoutes:
    """Answers come from what this instance has read of the registry; what it wrote itself it knows at once."""

    def __init__(self, door: Door, declaring: Declaring, table: ScheduleTable) -> None:
        self._door, self._declaring, self._table = door, declaring, table

    async def list(self, request: Request) -> Response:
        """The caller's schedules, by name, without their jobs."""
        client, entries = caller(self._door, request), self._table.entries
        shown = [self._view(entries[name]) for name in sorted(entries) if client.may_see(entries[name].schedule.job.tenant)]
        return as_json({"schedules": [{key: value for key, value in view.items() if key != "job"} for view in shown]})

    async def get(self, request: Request) -> Response:
        """One schedule, its job, and when it runs next."""
        return as_json(self._view(self._known(request)))

    async def put(self, request: Request) -> Response:
        """Declare it, or declare it anew. What was due before that is not made up for when the times have changed or it was off."""
        name, client = _name(request), caller(self._door, request)
        given = await body_of(self._door, request, ScheduleSubmission, ENTRY_BYTES)
        entry = self._entry(name, given, client, call_headers(request.scope).tenant or query_tenant(request))
        value = entry.schedule.to_bytes()
        check_inline_size(len(value))
        await self._write(request, "declare", entry.schedule, value)
        return as_json(self._view(entry))

    async def delete(self, request: Request) -> Response:
        """No run begins any more; what has begun goes on."""
        await self._write(request, "remove", self._known(request).schedule, None)
        return Response(status_code=204)

    def _entry(self, name: str, given: ScheduleSubmission, client: Client, tenant: str | None) -> ScheduleEntry:
        """Raises InvalidInput, Refused."""
        self._must_be_complete()
        cron = Cron(given.cron, given.time_zone)
        job = given.job
        if job.id is not None or job.not_before is not None or job.deadline_at is not None:
            raise InvalidInput("A schedule's job has no id, not_before or deadline_at of its own: each run gets them.", param="job")
        asked = given.priority_class if "priority_class" in given.model_fields_set else None
        priority_class = client.class_of(asked, given.priority_class)
        named = job.tenant if "tenant" in job.model_fields_set else None
        job = job.model_copy(update={"tenant": client.tenant_of(named or tenant)})
        self._door.offered.check(job, client)
        inside = ids.under(job.tenant, name)
        known = self._table.entries.get(inside)
        if known is None:
            self._check_room(job.tenant)
        fields = {field: getattr(given, field) for field in ScheduleSubmission.model_fields}
        schedule = Schedule(**{**fields, "id": inside, "job": job, "priority_class": priority_class, "since": self._since(known, given)})
        return ScheduleEntry(schedule, cron)

    def _check_room(self, tenant: str) -> None:
        """Raises Refused: as of whoever waits here (`register`), no tenant has all of them."""
        entries = self._table.entries.values()
        if not may_take(sum(entry.schedule.job.tenant == tenant for entry in entries), MOST - len(entries)):
            raise Refused(Problem(429, "too_many_schedules", f"a cluster has at most {MOST} schedules, and leaves some to every tenant"))

    def _since(self, known: ScheduleEntry | None, given: ScheduleSubmission) -> float:
        now = self._door.clock.wall()
        if known is None or not known.schedule.enabled:
            return now
        same = (known.schedule.cron, known.schedule.time_zone) == (given.cron, given.time_zone)
        return known.schedule.since if same else now

    def _known(self, request: Request) -> ScheduleEntry:
        client, tenant = client_of(self._door, request)
        self._must_be_complete()
        entry = self._table.entries.get(ids.under(tenant, _name(request)))
        if entry is None or not client.may_see(entry.schedule.job.tenant):
            raise unknown("there is no such schedule")
        return entry

    def _must_be_complete(self) -> None:
        if not self._table.complete():
            raise Refused(registry_unread(self._door.settings.retry_after_seconds))

    def _view(self, entry: ScheduleEntry) -> dict[str, Any]:
        schedule = entry.schedule
        upcoming = islice(entry.cron.runs(max(self._door.clock.wall(), schedule.since)), _NEXT) if schedule.enabled else ()
        view: dict[str, Any] = schedule.model_dump(mode="json", exclude_none=True)
        view["class"] = view.pop("priority_class")
        return {**view, "id": ids.public(schedule.id), "tenant": schedule.job.tenant, "next_at": [*upcoming]}

    async def _write(self, request: Request, did: str, schedule: Schedule, value: bytes | None) -> None:
        entry, tenant, known = {schedule.id: value}, schedule.job.tenant, self._table.apply
        await self._declaring.write(request, did, KIND, ids.public(schedule.id), entry, tenant=tenant, known=known)


def routes(door: Door, declaring: Declaring, table: ScheduleTable) -> Routes:
    """By path and method."""
    own = _ScheduleRoutes(door, declaring, table)
    return {
        "/v1/schedules": {"GET": own.list},
        "/v1/schedules/{schedule}": {"GET": own.get, "PUT": own.put, "DELETE": own.delete},
    }


def _name(request: Request) -> str:
    return named(request, "schedule", "a schedule's name", SCHEDULE)
