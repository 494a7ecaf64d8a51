"""`/v1/jobs`: submit, look at, cancel. Accepted (202) means: Kafka has the job, it will end."""

from __future__ import annotations

import math
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from services.ingress.access import Client
from services.ingress.dialect_tutti import JobSubmission
from services.ingress.exchange import CallHeaders, InvalidHeader, call_headers
from services.ingress.handlers import Desk
from services.ingress.idempotency import job_id_of, may_come_again
from services.ingress.ids import is_generated
from services.ingress.meter import Charge, estimate
from services.ingress.problems import Problem, Refused
from services.ingress.register import Kind, Reader
from services.ingress.registry import AUTO_MODELS
from services.ingress.status import JobStatus, State
from services.ingress.waiters import Follow
from shared.contracts.bounds import check_depth
from shared.contracts.chat import Operation
from shared.contracts.digest import request_digest
from shared.delays import too_far
from shared.errors import InvalidInput, TuttiError

ROUTE = "/v1/jobs"
REPEATED = "idempotent-replayed"
"""Header of an answer about a job that was known before; Stripe's name for it."""


class InvalidQuery(InvalidInput):
    """A query parameter is not valid."""

    code = "invalid_query"
    param = "wait"


class TooFarAhead(InvalidInput):
    """not_before: at most 7 days ahead."""

    code = "invalid_input"
    param = "not_before"


def not_found(job: str) -> Refused:
    """404: nothing is known of this id here."""
    return Refused(Problem(404, "job_not_found", f"no job {job!r} is known", "id"))


class Order(NamedTuple):
    """A submission: its job's id, whose it is, and, when the id may come again, the digest of what the caller wrote."""

    job: str
    tenant: str
    submission: JobSubmission
    digest: str | None
    trace: str | None


class Jobs:
    """tutti's own dialect."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def create(self, request: Request) -> Response:
        """202 with id and Location once Kafka has the job; 200 with the status when it has ended: before, or within `?wait=` seconds."""
        desk = self._desk
        call = call_headers(request.scope)
        client = desk.access.identify(call.api_key)
        wait = self._wait(request)
        async with desk.bodies.read(request.receive, call, client.named(call.tenant), desk.settings.body_bytes) as body:
            check_depth(body)
            order = self._order(JobSubmission.model_validate_json(body), call, client)
            await desk.open()
        del body
        with desk.waiting(Kind.END, order.tenant, wait) if wait else nullcontext() as reader:
            return await self._create(order, client, reader)

    async def _create(self, order: Order, client: Client, reader: Reader | None) -> Response:
        """`reader`: waits for the end."""
        desk = self._desk
        known = None if order.digest is None else await desk.known(order.job, order.digest)
        charge = await desk.meter.charge(client, 0 if known else estimate(order.submission, desk.settings.answer_tokens))
        status = known or await self._submit(order, charge)
        if reader is not None and status.state is not State.SETTLED:
            status = await self._settled(order.job, reader) or status
        return _accepted(status, charge, repeated=known is not None)

    def _order(self, submission: JobSubmission, call: CallHeaders, client: Client) -> Order:
        """What is wanted, by whom, under which id. Raises Refused (403), InvalidHeader."""
        desk = self._desk
        if call.idempotency_key is not None and submission.id is not None:
            raise InvalidHeader("idempotency-key", "the body gives an id already; one of both is enough")
        tenant = client.tenant_of(submission.named_tenant() or call.tenant)
        job = submission.id or (call.idempotency_key and job_id_of(tenant, call.idempotency_key)) or desk.submitter.new_id()
        digest = None if is_generated(job) and submission.id is None else request_digest(submission.body(id=job, tenant=tenant))
        changes: dict[str, Any] = {"id": job, "tenant": tenant}
        if "priority_class" not in submission.model_fields_set and call.priority_class is not None:
            changes["priority_class"] = call.priority_class
        if call.deadline_seconds is not None and submission.deadline_at is None:
            changes["deadline_at"] = desk.clock.wall() + call.deadline_seconds
        submission = submission.model_copy(update=changes)
        client.check_class(submission.priority_class)
        return Order(job, tenant, submission, digest, call.trace)

    async def _submit(self, order: Order, charge: Charge) -> JobStatus:
        """Queue it. Raises Conflict when the id is known with another body; what was charged is given back when it is refused."""
        try:
            return await self._queue(order, charge)
        except TuttiError:
            self._desk.meter.correct(charge, 0)
            raise

    async def _queue(self, order: Order, charge: Charge) -> JobStatus:
        desk, job, submission = self._desk, order.job, order.submission
        now, monotonic = desk.clock.wall(), desk.clock.monotonic()
        priority_class = submission.priority_class
        seconds = desk.settings.deadline_seconds[priority_class] if submission.deadline_at is None else submission.deadline_at - now
        desk.check_capability(submission.capability or ("embed" if submission.kind is Operation.EMBED else "chat"))
        desk.check_suits(submission)
        if submission.not_before is None:
            desk.admit(priority_class, seconds)
        elif too_far(submission.not_before, now):
            raise TooFarAhead
        else:
            seconds += max(0.0, submission.not_before - now) if submission.deadline_at is None else 0.0
        body = submission.body(model=self._model(submission))
        unsure = order.digest is not None and may_come_again(job) and not await desk.claim(job, order.digest)
        follow = None
        if submission.stream or unsure:
            until = monotonic + max(0.0, seconds) + desk.settings.deadline_grace_seconds
            follow = Follow(job, until, desk.followers.wake, partial(desk.told, order.digest) if unsure and order.digest else None)
        await desk.enqueue(job, body, priority_class, trace=order.trace, follow=follow, digest=order.digest)
        if follow is not None and unsure and order.digest is not None:
            await desk.first_word(follow, order.digest)
        desk.meter.watch(charge, job)
        status = JobStatus(
            id=job,
            home=desk.submitter.home_of(job),
            priority_class=priority_class,
            tenant=order.tenant,
            submitted_at=now,
            not_before=submission.not_before,
            pattern=submission.pattern,
            digest=order.digest,
        )
        desk.events.remember(status)
        return (unsure and desk.journal.status(job)) or status

    def _model(self, submission: JobSubmission) -> str:
        """Known by its registered spelling, or one of its fallbacks is."""
        for step in submission.chain:
            if step.model is not None and step.model not in AUTO_MODELS:
                self._desk.resolve(step.model, Operation.CHAT)
        if submission.model in AUTO_MODELS:
            return "auto"
        catalogue = self._desk.registry.catalogue
        if catalogue.resolve(submission.model) is None and catalogue.knows_any(submission.fallback_models):
            return submission.model
        return self._desk.resolve(submission.model, submission.kind)

    def _wait(self, request: Request) -> float:
        text = request.query_params.get("wait", "0")
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds <= self._desk.settings.max_wait_seconds:
            raise InvalidQuery(f"wait: seconds, 0 to {self._desk.settings.max_wait_seconds:g}")
        return seconds

    async def _settled(self, job: str, reader: Reader) -> JobStatus | None:
        """The status once the job has ended, or as it is when the reader must go."""
        with self._desk.followers.following(job, reader.news):
            while True:
                reader.news.clear()
                status = await self._desk.status(job)
                if status is not None and status.state is State.SETTLED:
                    return status
                if reader.over:
                    return status
                await reader.news.wait()

    async def get(self, request: Request) -> Response:
        """The status: state, steps, result."""
        job = request.path_params["job"]
        client = self._desk.access.identify(call_headers(request.scope).api_key)
        status = await self._desk.status(job)
        if status is None or not client.may_see(status.tenant):
            raise not_found(job)
        return Response(status.public(), media_type="application/json")

    async def cancel(self, request: Request) -> Response:
        """202: the cancel is in Kafka; 200 with the status when the job has ended already.

        Of an id that an ingress made the home is known, so a job can be cancelled before anything else is known of it.
        """
        desk, job = self._desk, request.path_params["job"]
        client = desk.access.identify(call_headers(request.scope).api_key)
        await desk.open()
        status = await desk.status(job)
        if not client.may_see(None if status is None else status.tenant):
            raise not_found(job)
        if status is not None and status.state is State.SETTLED:
            return Response(status.public(), media_type="application/json")
        if status is None and not is_generated(job):
            raise not_found(job)
        home = desk.submitter.home_of(job) if status is None else status.home
        waits = None if status is None else status.waits()
        await desk.submitter.cancel_and_wait(job, home, "cancelled by the caller", waits)
        state = "unknown" if status is None else status.state.value
        return Response(to_json({"id": job, "state": state, "cancel_requested": True}), 202, media_type="application/json")


def _accepted(status: JobStatus, charge: Charge, *, repeated: bool) -> Response:
    location = f"{ROUTE}/{status.id}"
    headers = {"location": location, "x-tutti-job": status.id} | {name.decode(): value.decode() for name, value in charge.headers}
    if repeated:
        headers[REPEATED] = "true"
    if status.state is State.SETTLED:
        if status.result is not None and status.result.answer is not None and status.result.answer.simulated:
            headers["x-tutti-simulated"] = "true"
        return Response(status.public(), headers=headers, media_type="application/json")
    body = {
        "id": status.id,
        "state": status.state.value,
        "class": status.priority_class,
        "status_url": location,
        "events_url": f"{location}/events",
    }
    return Response(to_json(body), 202, headers=headers, media_type="application/json")
