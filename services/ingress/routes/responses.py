"""`/v1/responses` beside the call itself: responses that are asked for later, by the durable job that each is. Its events are numbered by
the answer (`response_objects`), so a stream goes on behind any of them at any instance.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response

from services.ingress.dialects.openai import response_objects as objects
from services.ingress.dialects.openai.response_requests import PREFIX, Echo
from services.ingress.dialects.port import Told
from services.ingress.dialects.tutti.requests import JobSubmission
from services.ingress.handlers import Door
from services.ingress.http import sse
from services.ingress.http.exchange import CallHeaders, bad_query
from services.ingress.problems import Problem, Refused, of_result
from services.ingress.replies.register import Following, WaitKind
from services.ingress.routes.asking import ReaderStream, in_text, json_stream, reader_of
from services.ingress.routes.calls import CallOrder
from services.ingress.routes.jobs import Jobs, asked_for, not_found
from services.ingress.status.status import JobState, JobStatus
from shared.access import Client
from shared.contracts import ids
from shared.contracts.job import Job
from shared.contracts.result import Status

_HEADERS = in_text(sse.HEADERS)


class Responses:
    """All but the call that waits."""

    def __init__(self, door: Door, jobs: Jobs) -> None:
        self._door, self._jobs = door, jobs

    async def later(self, order: CallOrder, job: Job, call: CallHeaders, client: Client) -> Response:
        """Queue it and answer at once, or stream it from its beginning; the job goes on whoever reads."""
        given = {name: value for name, value in job if name in job.model_fields_set and name != "id"}
        submission = JobSubmission(**given, **{"class": order.priority_class}).model_copy(update={"id": job.id})
        status, charge = await self._jobs.submit(submission, call._replace(idempotency_key=None), client)
        told = Told(ids.public(status.id), int(self._door.clock.wall()), order.model, order.wishes)
        headers = in_text(charge.headers) | {"x-tutti-job": told.job}
        if order.stream:
            return self._streamed(status, told, -1, headers)
        return Response(objects.unfinished(told, "queued"), headers=headers, media_type="application/json")

    async def get(self, request: Request) -> Response:
        """The response as it is now; with `?stream=true` its events behind `?starting_after=`."""
        _, status = await self._known(request)
        told = _told(status)
        if request.query_params.get("stream") == "true":
            return self._streamed(status, told, _after(request), {"x-tutti-job": told.job})
        answer = None if status.result is None else status.result.answer
        if answer is None or answer.blob is None:
            return _response(_shown(told, status))
        reader = reader_of(self._door, WaitKind.END, status.owner)
        return json_stream(self._door, reader, self._fetched(reader, status))

    async def cancel(self, request: Request) -> Response:
        """Ask for its end; the response as it is now."""
        client, status = await self._known(request)
        status = await self._jobs.end(client, status.id) or status
        return _response(_shown(_told(status), status))

    async def delete(self, request: Request) -> Response:
        """Refused: what happened stays in history for its time."""
        await self._known(request)
        raise Refused(Problem(400, "unsupported", "a response is a durable job: it is kept as long as the history of jobs is"))

    async def _known(self, request: Request) -> tuple[Client, JobStatus]:
        """Raises Refused (404)."""
        name = str(request.path_params["response"])
        client, job = asked_for(self._door, request, name.removeprefix(PREFIX) if name.startswith(PREFIX) else "")
        status = await self._door.visible(client, job)
        if status is None:
            raise not_found(job)
        return client, status

    async def _fetched(self, reader: Following, status: JobStatus) -> AsyncIterator[bytes]:
        assert status.result is not None, "only of what has ended"
        whole = await self._door.whole_now(reader, status.result)
        yield _shown(_told(status), status if whole is None else status.model_copy(update={"result": whole}))

    def _streamed(self, status: JobStatus, told: Told, after: int, headers: dict[str, str]) -> Response:
        self._door.stay()
        reader = reader_of(self._door, WaitKind.EVENTS, status.owner)
        writer = objects.ResponseWriter(told, after)
        return ReaderStream(self._door, reader, self._events(status, writer, reader), _HEADERS | headers)

    async def _events(self, status: JobStatus, writer: objects.ResponseWriter, reader: Following) -> AsyncIterator[bytes]:
        """Text as it comes where its chunks come to this instance; else all of it at its end."""
        door, job = self._door, status.id
        follow = door.waiters.following(job)
        yield writer.begin(status.model, simulated=False)
        with door.followers.following(job, reader.news) as news:
            while True:
                news.clear()
                now = door.journal.status(job, status) or status
                if now.result is not None:
                    yield await self._last(now, writer, reader)
                    return
                if follow is not None and len(follow.text) > writer.characters:
                    yield writer.text(follow.text[writer.characters :])
                if reader.over:
                    return
                try:
                    async with asyncio.timeout(door.settings.heartbeat_seconds):
                        await news.wait()
                except TimeoutError:
                    yield sse.HEARTBEAT

    async def _last(self, status: JobStatus, writer: objects.ResponseWriter, reader: Following) -> bytes:
        assert status.result is not None, "only of what has ended"
        result = status.result if status.result.status is not Status.SUCCEEDED else await self._door.whole_now(reader, status.result)
        if result is None or result.answer is None or result.status is not Status.SUCCEEDED:
            return writer.failed(of_result(result or status.result))
        text = result.answer.text[writer.characters :]
        return (writer.text(text) if text else b"") + writer.last(result.answer, result.usage)


def _told(status: JobStatus) -> Told:
    created = status.accepted_at or status.submitted_at or 0.0
    return Told(ids.public(status.id), int(created), status.model or "auto", Echo(background=True, store=status.conversation is not None))


def _shown(told: Told, status: JobStatus) -> bytes:
    result = status.result
    if result is None:
        return objects.unfinished(told, "in_progress" if status.state is JobState.RUNNING else "queued")
    if result.status is Status.SUCCEEDED and result.answer is not None:
        return objects.whole(told, result.answer, result.usage)
    if result.status is Status.CANCELLED:
        return objects.unfinished(told, "cancelled")
    return objects.broken(told, of_result(result))


def _after(request: Request) -> int:
    """Raises InvalidInput."""
    text = request.query_params.get("starting_after", "-1")
    if not (text == "-1" or (text.isascii() and text.isdigit() and len(text) < 12)):
        raise bad_query("starting_after", "the sequence_number of an event")
    return int(text)


def _response(body: bytes) -> Response:
    return Response(body, media_type="application/json")
