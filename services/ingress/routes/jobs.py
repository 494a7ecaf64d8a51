"""`/v1/jobs`: submit, look at, cancel. Accepted (202) means: Kafka has the job, it will end."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, nullcontext
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from services.ingress.admission.idempotency import is_same, job_id_of, may_come_again
from services.ingress.admission.meter import Charge
from services.ingress.dialects.tutti.requests import JobSubmission
from services.ingress.handlers import Door
from services.ingress.http.cache_wishes import cache_headers, wishes_of, with_wishes
from services.ingress.http.exchange import (
    CallHeaders,
    bad_header,
    bad_query,
    call_headers,
)
from services.ingress.problems import Problem, Refused
from services.ingress.replies.register import Following, WaitKind
from services.ingress.replies.waiters import Follow
from services.ingress.routes.asking import client_of, in_text, json_stream, reader_of
from services.ingress.status.mermaid import MEDIA_TYPE, mermaid
from services.ingress.status.status import JobState, JobStatus
from services.ingress.submit import is_generated
from shared.access import Client
from shared.contracts import ids
from shared.contracts.base import ID, PriorityClass
from shared.contracts.bounds import check_depth
from shared.contracts.ids import digest_of
from shared.model_names import AUTO
from shared.scheduling.places import PlaceInLine

ROUTE = "/v1/jobs"
_PUBLIC_ID = re.compile(ID)
REPEATED = "idempotent-replayed"
"""Header of an answer about a job that was known before; Stripe's name for it."""


def not_found(job: str) -> Refused:
    """404: nothing is known of this id here, or nothing that this caller may see."""
    return Refused(Problem(404, "job_not_found", f"no job {ids.public(job)!r} is known", "id"))


def asked_for(door: Door, request: Request, public: str | None = None) -> tuple[Client, str]:
    """Who calls, and the id inside the cluster of the job in the path (or of this one): one of his tenant, or of the one that an
    administrator names.

    Raises Refused (401, 403, 404), InvalidInput.
    """
    client, tenant = client_of(door, request)
    job = str(request.path_params["job"]) if public is None else public
    if not _PUBLIC_ID.fullmatch(job):
        raise Refused(Problem(404, "job_not_found", "no job has such an id", "id"))
    return client, ids.qualified(tenant, job)


class _JobOrder(NamedTuple):
    """What a submission is about. `public` is the job's id as the caller knows it, `job` the one inside the cluster; when the id may come
    again, `digest` is that of what the caller wrote.
    """

    client: Client
    public: str
    job: str
    tenant: str
    digest: str | None
    trace: str | None


class Jobs:
    """tutti's own dialect."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def create(self, request: Request) -> Response:
        """202 with id and Location once Kafka has the job; 200 with the status when it has ended: before, or within `?wait=` seconds."""
        door = self._door
        call = call_headers(request.scope)
        client = door.access.identify(call.api_key)
        wait = self._wait(request)
        async with AsyncExitStack() as arriving:
            body = await arriving.enter_async_context(
                door.bodies.read(request.receive, call, client.named(call.tenant), door.settings.body_bytes)
            )
            check_depth(body)
            order, submission = self._order(JobSubmission.model_validate_json(body), call, client)
            del body
            await door.open()
            with door.waiting(WaitKind.END, order.tenant, wait) if wait else nullcontext() as reader:
                status, charge, repeated = await self._queued(order, submission)
                del submission  # nothing of a large body is left while somebody waits
                await arriving.aclose()
                if reader is not None and status.state is not JobState.SETTLED:
                    status = await self._settled(order, reader) or status
        return self._accepted(status, charge, client, repeated=repeated)

    async def submit(self, submission: JobSubmission, call: CallHeaders, client: Client) -> tuple[JobStatus, Charge]:
        """Queue it, or find that it was queued before. Raises whatever can be said against it."""
        order, submission = self._order(submission, call, client)
        await self._door.open()
        status, charge, _ = await self._queued(order, submission)
        return status, charge

    async def _queued(self, order: _JobOrder, submission: JobSubmission) -> tuple[JobStatus, Charge, bool]:
        """The last: it was known before."""
        door = self._door
        known = None if order.digest is None else await door.known(order.job, order.digest)
        async with door.charged(order.client, submission, order.job, known=known is not None) as charge:
            status = known or await self._queue(order, submission)
        return status, charge, known is not None

    def _order(self, submission: JobSubmission, call: CallHeaders, client: Client) -> tuple[_JobOrder, JobSubmission]:
        """By whom it is wanted, under which id, and what. Raises Refused (403), InvalidInput."""
        door = self._door
        if call.idempotency_key is not None and submission.id is not None:
            raise bad_header("idempotency-key", "the body gives an id already; one of both is enough")
        tenant = client.tenant_of(submission.named_tenant() or call.tenant)
        public = submission.id or (call.idempotency_key and job_id_of(tenant, call.idempotency_key)) or door.submitter.new_id()
        digest = (
            None
            if is_generated(public)
            else digest_of(submission.model_copy(update={"id": public, "tenant": tenant, "cache": None}).record())
        )
        changes: dict[str, Any] = {"id": public, "tenant": tenant}
        asked = submission.priority_class if "priority_class" in submission.model_fields_set else call.priority_class
        changes["priority_class"] = client.class_of(asked, PriorityClass.STANDARD)
        if call.deadline_seconds is not None and submission.deadline_at is None and submission.deadline_seconds is None:
            changes["deadline_seconds"] = call.deadline_seconds
        submission = with_wishes(submission.model_copy(update=changes), wishes_of(call.cache, call.cache_control))
        return _JobOrder(client, public, ids.qualified(tenant, public), tenant, digest, call.trace), submission

    async def _queue(self, order: _JobOrder, submission: JobSubmission) -> JobStatus:
        """Raises Conflict when the id is known with another body, and whatever else is against it."""
        door, job = self._door, order.job
        now, monotonic = door.clock.wall(), door.clock.monotonic()
        priority_class = submission.priority_class
        seconds = submission.deadline_seconds or door.settings.deadline_seconds[priority_class]
        if submission.deadline_at is not None:
            seconds = submission.deadline_at - now
        if submission.not_before is not None and submission.deadline_at is None:
            seconds += max(0.0, submission.not_before - now)
        await door.judge(submission, order.client, priority_class, seconds, at_once=False)
        submission = submission.model_copy(update={"model": self._model(submission)})
        record = await door.record_of(submission, order.client)
        unsure = order.digest is not None and may_come_again(job) and not await door.claim(job, order.digest)
        follow = None
        if submission.stream or unsure:
            until = monotonic + max(0.0, seconds) + door.settings.deadline_grace_seconds
            follow = Follow(job, until, door.followers.wake, partial(door.told, order.digest) if unsure and order.digest else None)
        offset = await door.enqueue(order.public, record, priority_class, trace=order.trace, follow=follow, digest=order.digest)
        if follow is not None and unsure and order.digest is not None:
            await door.first_word(follow, order.digest)
        status = JobStatus(
            id=job,
            home=door.submitter.home_of(job),
            priority_class=priority_class,
            tenant=order.tenant,
            submitted_at=now,
            queued_offset=offset,
            not_before=submission.not_before,
            deadline_at=submission.deadline_at,
            pattern=submission.pattern,
            digest=order.digest,
            callback=submission.callback,
            streamed=submission.stream,
        )
        await door.events.remember(status)
        if not unsure or door.journal.after(job, -1):
            return status
        told = door.journal.status(job)
        return told if told is not None and told.digest == order.digest else status

    def _model(self, submission: JobSubmission) -> str:
        """Known by its registered spelling, or one of its fallbacks is."""
        model, catalogue, offered = submission.model, self._door.registry.catalogue, self._door.offered
        if model != AUTO and catalogue.resolve(model) is None and catalogue.knows_any(offered.meant(*submission.fallback_models)):
            return model
        return offered.resolve(model, submission.kind)

    def _wait(self, request: Request) -> float:
        text = request.query_params.get("wait", "0")
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds <= self._door.settings.max_wait_seconds:
            raise bad_query("wait", f"seconds, 0 to {self._door.settings.max_wait_seconds:g}")
        return seconds

    async def _settled(self, order: _JobOrder, reader: Following) -> JobStatus | None:
        """The status once the job has ended, or as it is when the reader must go; None where nothing can be shown of it.

        Raises Conflict when its id turns out to be another request's.
        """
        with self._door.followers.following(order.job, reader.news):
            while True:
                reader.news.clear()
                status = await self._door.visible(order.client, order.job)
                if status is not None and order.digest is not None and not is_same(status, order.digest):
                    status = None
                if status is not None and status.state is JobState.SETTLED:
                    return status
                if reader.over:
                    return status
                await reader.news.wait()

    async def get(self, request: Request) -> Response:
        """The status: state, steps, result."""
        client, job = asked_for(self._door, request)
        status = await self._door.visible(client, job)
        if status is None:
            raise not_found(job)
        return self._shown(status.with_progress(self._door.registry.table))

    async def tree(self, request: Request) -> Response:
        """The steps as a tree: JSON, or a Mermaid chart. It holds no text of prompts or answers."""
        client, job = asked_for(self._door, request)
        form = request.query_params.get("format") or ("mermaid" if MEDIA_TYPE in request.headers.get("accept", "") else "json")
        if form not in ("json", "mermaid"):
            raise bad_query("format", "json or mermaid")
        status = await self._door.visible(client, job)
        if status is None:
            raise not_found(job)
        tree = status.tree()
        if form == "mermaid":
            return Response(mermaid(tree), media_type=MEDIA_TYPE)
        return Response(tree.model_dump_json(exclude_none=True), media_type="application/json")

    def _shown(self, status: JobStatus, headers: Mapping[str, str] = MappingProxyType({})) -> Response:
        """The whole status. Who reads a large answer is registered, and its bytes count, until he has it."""
        door, answer = self._door, None if status.result is None else status.result.answer
        if answer is None or answer.blob is None:
            line = door.place(status)
            shown = status if line is None else status.model_copy(update={"line": line.rounded()})
            return Response(shown.public(), headers={**headers, **_in_line(line)}, media_type="application/json")
        reader = reader_of(door, WaitKind.END, status.owner)
        return json_stream(door, reader, self._fetched(reader, status), headers)

    async def _fetched(self, reader: Following, status: JobStatus) -> AsyncIterator[bytes]:
        yield await self._door.public(reader, status)

    async def cancel(self, request: Request) -> Response:
        """202: the cancel is in Kafka; 200 with the status when the job has ended already.

        Who may act for every tenant may cancel a job whose id an ingress made before anything else is known of it: its home is.
        """
        client, job = asked_for(self._door, request)
        status = await self.end(client, job)
        if status is not None and status.state is JobState.SETTLED:
            return self._shown(status)
        state = "unknown" if status is None else status.state.value
        body = {"id": ids.public(job), "state": state, "cancel_requested": True}
        return Response(to_json(body), 202, media_type="application/json")

    async def end(self, client: Client, job: str) -> JobStatus | None:
        """Ask for its end, unless it has ended; what is known of it. Raises Refused (404)."""
        door = self._door
        await door.open()
        status = await door.visible(client, job)
        if status is None and not (client.for_all and is_generated(job)):
            raise not_found(job)
        if status is None or status.state is not JobState.SETTLED:
            home = door.submitter.home_of(job) if status is None else status.home
            waits = None if status is None else status.waits()
            await door.submitter.cancel_and_wait(job, home, "cancelled by the caller", waits)
        return status

    def _accepted(self, status: JobStatus, charge: Charge, client: Client, *, repeated: bool) -> Response:
        job, query = ids.public(status.id), _query(status, client)
        location = f"{ROUTE}/{job}{query}"
        headers = {"location": location, "x-tutti-job": job} | in_text(charge.headers)
        if repeated:
            headers[REPEATED] = "true"
        if status.state is JobState.SETTLED:
            if status.result is not None and status.result.answer is not None and status.result.answer.simulated:
                headers["x-tutti-simulated"] = "true"
            answer = None if status.result is None else status.result.answer
            headers |= in_text(cache_headers(asked=False, answer=answer))
            return self._shown(status, headers)
        line = self._door.place(status)
        headers |= _in_line(line)
        body = {
            "id": job,
            "state": status.state.value,
            "class": status.priority_class,
            **({} if line is None else {"line": line.rounded()}),
            "status_url": location,
            "events_url": f"{ROUTE}/{job}/events{query}",
        }
        return Response(to_json(body), 202, headers=headers, media_type="application/json")


def _in_line(line: PlaceInLine | None) -> dict[str, str]:
    if line is None:
        return {}
    seconds = {} if line.seconds is None else {"x-tutti-start-seconds": f"{line.seconds:.1f}"}
    return {"x-tutti-place": str(line.place), **seconds}


def _query(status: JobStatus, client: Client) -> str:
    """What makes a URL lead to a job whose id lies under another tenant than the caller's own."""
    tenant = ids.owner(status.id)
    return "" if tenant is None or tenant == client.tenant_of(None) else f"?tenant={tenant}"
