"""`/v1/jobs`: submit, look at, cancel. Accepted (202) means: Kafka has the job, it will end."""

from __future__ import annotations

import asyncio
import math

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from services.ingress.dialect_openai import AUTO_MODELS
from services.ingress.dialect_tutti import JobSubmission
from services.ingress.exchange import call_headers, read_body
from services.ingress.handlers import Desk
from services.ingress.ids import is_generated
from services.ingress.problems import Problem, Refused
from services.ingress.status import JobStatus, State
from shared.contracts.bounds import check_depth
from shared.contracts.chat import Operation
from shared.errors import InvalidInput

ROUTE = "/v1/jobs"


class InvalidQuery(InvalidInput):
    """A query parameter is not valid."""

    code = "invalid_query"
    param = "wait"


def not_found(job: str) -> Refused:
    """404: nothing is known of this id here."""
    return Refused(Problem(404, "job_not_found", f"no job {job!r} is known", "id"))


class Jobs:
    """tutti's own dialect."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def create(self, request: Request) -> Response:
        """202 with the id and Location once Kafka has the job; 200 with the status when it ends within `?wait=` seconds."""
        desk = self._desk
        call = call_headers(request.scope)
        wait = self._wait(request)
        body = await read_body(request.receive, call.content_length, desk.settings.body_bytes)
        check_depth(body)
        submission = JobSubmission.model_validate_json(body)
        if "priority_class" not in submission.model_fields_set and call.priority_class is not None:
            submission = submission.model_copy(update={"priority_class": call.priority_class})
        if call.deadline_seconds is not None and submission.deadline_at is None:
            submission = submission.model_copy(update={"deadline_at": desk.clock.wall() + call.deadline_seconds})
        await desk.open()
        job = submission.id or desk.submitter.new_id()
        status = await self._submit(submission, job, call.tenant, call.trace)
        if wait > 0:
            status = await self._settled(job, wait) or status
        return _accepted(status)

    async def _submit(self, submission: JobSubmission, job: str, tenant: str | None, trace: str | None) -> JobStatus:
        desk, priority_class = self._desk, submission.priority_class
        now = desk.clock.wall()
        seconds = desk.settings.deadline_seconds[priority_class] if submission.deadline_at is None else submission.deadline_at - now
        if submission.not_before is None:
            desk.admit(priority_class, seconds)
        body = submission.body(job, tenant, self._model(submission))
        follow_until = desk.clock.monotonic() + max(0.0, seconds) + desk.settings.deadline_grace_seconds if submission.stream else None
        await desk.enqueue(job, body, priority_class, trace, follow_until)
        status = JobStatus(
            id=job, home=desk.submitter.home_of(job), priority_class=priority_class, tenant=submission.tenant, submitted_at=now
        )
        desk.events.remember(status)
        return status

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

    async def _settled(self, job: str, seconds: float) -> JobStatus | None:
        """The status once the job has ended; None when it has not within `seconds`."""
        with self._desk.followers.following(job) as news:
            try:
                async with asyncio.timeout(seconds):
                    while True:
                        news.clear()
                        status = await self._desk.status(job)
                        if status is not None and status.state is State.SETTLED:
                            return status
                        await news.wait()
            except TimeoutError:
                return None

    async def get(self, request: Request) -> Response:
        """The status: state, steps, result."""
        job = request.path_params["job"]
        status = await self._desk.status(job)
        if status is None:
            raise not_found(job)
        return Response(status.public(), media_type="application/json")

    async def cancel(self, request: Request) -> Response:
        """202: the cancel is in Kafka; 200 with the status when the job has ended already.

        Of an id that an ingress made the home is known, so a job can be cancelled before anything else is known of it.
        """
        desk, job = self._desk, request.path_params["job"]
        await desk.open()
        status = await desk.status(job)
        if status is not None and status.state is State.SETTLED:
            return Response(status.public(), media_type="application/json")
        if status is None and not is_generated(job):
            raise not_found(job)
        home = desk.submitter.home_of(job) if status is None else status.home
        await desk.submitter.cancel_and_wait(job, home, "cancelled by the caller")
        state = "unknown" if status is None else status.state.value
        return Response(to_json({"id": job, "state": state, "cancel_requested": True}), 202, media_type="application/json")


def _accepted(status: JobStatus) -> Response:
    location = f"{ROUTE}/{status.id}"
    headers = {"location": location, "x-tutti-job": status.id}
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
