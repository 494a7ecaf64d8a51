"""Calls: somebody asks and waits, in whatever dialect. The hot path, on bare ASGI: one validation in, one JSON out; the job's write
is not awaited.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any, NamedTuple

from starlette.responses import Response

from services.ingress.admission.idempotency import job_id_of
from services.ingress.admission.meter import Charge
from services.ingress.dialects.port import Asked, Dialect, StreamWriter, Terms, Told, origin_headers
from services.ingress.handlers import Door
from services.ingress.http import sse
from services.ingress.http.cache_wishes import cache_headers, wishes_of, with_wishes
from services.ingress.http.exchange import (
    CallHeaders,
    HeaderList,
    Receive,
    Scope,
    Send,
    call_headers,
    send_json,
    send_part,
    start_stream,
    watch,
    watched,
)
from services.ingress.http.resource import CLIENT_GONE, refuse
from services.ingress.problems import ClientGone, Problem, Refused, of_error
from services.ingress.replies.assembly import StreamConflict
from services.ingress.replies.waiters import Caller
from services.ingress.status.notes import TOLD_SECONDS, PlaceNotes, StepNotes
from shared.access import Client, Right
from shared.contracts import ids
from shared.contracts.base import PriorityClass
from shared.contracts.bounds import check_depth
from shared.contracts.chat import Answer
from shared.contracts.ids import digest_of
from shared.contracts.job import Job
from shared.model_names import AUTO
from shared.patterns.single import SINGLE
from shared.telemetry import logs, metrics

_log = logs.get(__name__)


class CallOrder(NamedTuple):
    """How a request is to be answered: how urgent, and, when it has an Idempotency-Key, its digest. `model`: as the client spells it."""

    model: str
    stream: bool
    wishes: Any
    priority_class: PriorityClass
    seconds: float
    trace: str | None
    digest: str | None
    came: float
    """By the monotonic clock."""
    cached: bool
    """It asks the cache for something."""
    noted: bool
    """What becomes of its steps is told beside the stream: its pattern is none of a single step, and the dialect has comments."""

    @property
    def keyed(self) -> bool:
        """The client will come again if the connection breaks: the job goes on without him."""
        return self.digest is not None


class _Call(NamedTuple):
    """A request whose job is on its way. Nothing of a large body is left in it."""

    order: CallOrder
    caller: Caller
    correlation: bytes
    charge: Charge


Later = Callable[[CallOrder, Job, CallHeaders, Client], Awaitable[Response]]


class Calls:
    """An ASGI application for one dialect's path. `later`: queues what nobody waits for."""

    def __init__(self, door: Door, dialect: Dialect, later: Later | None = None) -> None:
        self._door, self._dialect, self._later = door, dialect, later
        self._seconds = metrics.HTTP_SECONDS.labels(dialect.path)
        self._ok = metrics.HTTP_REQUESTS.labels(dialect.path, "200")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = self._door.clock.monotonic()
        try:
            status = await self._serve(scope, receive, send)
        except Exception as error:
            status = await self._refuse(send, error)
        if status == 200:
            self._ok.inc()
        else:
            metrics.HTTP_REQUESTS.labels(self._dialect.path, str(status)).inc()
        self._seconds.observe(self._door.clock.monotonic() - began)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> int:
        door, came = self._door, self._door.clock.monotonic()
        call = call_headers(scope)
        client = door.access.identify(call.api_key)
        client.check(Right.WRITE)
        async with door.bodies.read(receive, call, client.named(call.tenant), door.settings.body_bytes) as body:
            check_depth(body)
            request = self._dialect.request.model_validate_json(body)
            del body
            await door.open()
            door.admit_caller()
            conversation = None if request.continues is None else await self._conversation(request.continues, call, client)
            order, job = self._order(request, call, client, came, conversation)
            at_once = None if self._dialect.at_once is None else self._dialect.at_once(request, door.clock.wall())
            if at_once is not None:
                await send_json(send, 200, at_once)
                return 200
            if request.later and self._later is not None:
                queued = await self._later(order, job, call, client)
            else:
                begun, queued = await self._begin(order, job, client), None
            del request, job
        if queued is not None:
            await queued(scope, receive, send)
            return queued.status_code
        send = watched(send, begun.caller, door.clock)
        watching = watch(receive, begun.caller)
        try:
            return await (self._stream(begun, send) if order.stream else self._answer(begun, send))
        finally:
            watching.cancel()
            self._door.leave(begun.caller, begun.correlation)
            if not order.keyed:
                self._abandon(begun.caller, detach=call.detach)

    async def _conversation(self, job: str, call: CallHeaders, client: Client) -> str:
        """Of the job that a request goes on from. Raises Refused (404; 400 where it is of none)."""
        status = await self._door.visible(client, ids.qualified(client.tenant_of(call.tenant), job))
        if status is None:
            raise Refused(Problem(404, "previous_response_not_found", "no response of this id is known", "previous_response_id"))
        if status.conversation is None:
            reason = "what was said before it is not kept: make it with store: true, or in a conversation"
            raise Refused(Problem(400, "previous_response_not_stored", reason, "previous_response_id"))
        return status.conversation

    def _order(self, request: Asked, call: CallHeaders, client: Client, came: float, conversation: str | None) -> tuple[CallOrder, Job]:
        """What the request is about, and the job that answers it. Raises Refused (403, 404), UnsupportedParameter."""
        door = self._door
        usual = PriorityClass.STANDARD if request.later else PriorityClass.INTERACTIVE
        priority_class = client.class_of(call.priority_class, usual)
        seconds = call.deadline_seconds or door.settings.deadline_seconds[priority_class]
        tenant = client.tenant_of(call.tenant)
        key, pattern = call.idempotency_key, door.offered.pattern_of(request.model)
        terms = Terms(
            identifier=door.submitter.new_id() if key is None else job_id_of(tenant, key),
            tenant=tenant,
            model=AUTO if pattern else door.offered.resolve(request.model, self._dialect.operation),
            pattern=pattern,
            deadline_seconds=seconds,
            conversation=conversation,
        )
        job = self._dialect.to_job(request, terms)
        if call.cache is not None or call.cache_control is not None:
            job = with_wishes(job, wishes_of(call.cache, call.cache_control))
        digest = None
        if key is not None:
            digest = digest_of(job.model_copy(update={"deadline_seconds": None, "model": request.model, "cache": None}).record())
        noted = job.stream and job.pattern != SINGLE.name and bool(self._dialect.heartbeat)
        order = CallOrder(
            request.model,
            job.stream,
            request.wishes(),
            priority_class,
            seconds,
            call.trace,
            digest,
            came,
            cached=job.cache is not None and job.cache.mode is not None,
            noted=noted,
        )
        return order, job

    async def _begin(self, order: CallOrder, job: Job, client: Client) -> _Call:
        """Submit the job, or join it when it was submitted before under the same key. Raises whatever can be said against it."""
        door = self._door
        assert job.id is not None
        known = None if order.digest is None else await door.known(job.id, order.digest)
        async with door.charged(client, job, job.id, known=known is not None) as charge:
            if known is not None and door.may_join(known):
                caller, correlation = door.join(job, order.seconds)
                settled = door.journal.status(job.id, known)
                if settled is not None and settled.result is not None:
                    caller.on_final(settled.result)
            else:
                await door.judge(job, client, order.priority_class, order.seconds, at_once=True)
                if order.digest is not None:
                    await door.claim(job.id, order.digest)
                record = await door.record_of(job, client)
                caller, correlation = door.call(record, order.priority_class, order.seconds, order.trace, order.digest)
        return _Call(order, caller, correlation, charge)

    def _abandon(self, caller: Caller, *, detach: bool) -> None:
        """Cancel a job for which nobody waits any longer. `detach`: the caller wants it to go on without him."""
        if caller.gone and not detach:
            self._door.submitter.cancel(caller.job, caller.home, "nobody waits for the answer any longer")
        elif isinstance(caller.error, StreamConflict):
            self._door.submitter.cancel(caller.job, caller.home, "the stream could not be continued")

    async def _answer(self, call: _Call, send: Send) -> int:
        caller = call.caller
        while not caller.ended:
            await caller.changed()
        answer = caller.answer
        if answer is None:
            return await self._refuse(send, caller.why_not, [(b"x-tutti-job", caller.job.encode())])
        assert caller.result is not None
        told = self._told(call, caller.result.accepted_at)
        body = self._dialect.answer(told, answer, caller.result.usage)
        await send_json(send, 200, body, [*self._headers(call, answer.simulated, answer), *origin_headers(answer)])
        return 200

    def _told(self, call: _Call, created: float) -> Told:
        order, clock = call.order, self._door.clock
        return Told(call.caller.job, int(created), order.model, order.wishes, lambda: clock.monotonic() - order.came)

    async def _refuse(self, send: Send, error: Exception, headers: HeaderList = ()) -> int:
        return await refuse(send, error, self._dialect.path, headers, self._dialect.problem)

    def _headers(self, call: _Call, simulated: bool, answer: Answer | None) -> list[tuple[bytes, bytes]]:
        """Of a stream without its answer: what streams comes from a model."""
        headers = [
            (b"x-tutti-job", call.caller.job.encode()),
            *call.charge.headers,
            *(cache_headers(call.order.cached, answer) if answer is not None else ()),
        ]
        if simulated:
            headers.append((b"x-tutti-simulated", b"true"))
        return headers

    async def _stream(self, call: _Call, send: Send) -> int:
        """The head goes out with the first piece, or after a while without one; from then on errors are events."""
        caller = call.caller
        await self._first_piece(caller)
        if caller.ended and caller.answer is None:
            return await self._refuse(send, caller.why_not, [(b"x-tutti-job", caller.job.encode())])
        order = call.order
        writer = self._dialect.stream(self._told(call, self._door.clock.wall()))
        await start_stream(send, [*self._dialect.stream_headers, *self._headers(call, self._simulated(caller), caller.answer)])
        if not (caller.streaming or caller.ended):
            await send_part(send, self._dialect.heartbeat)
        notes = StepNotes(caller.job, self._door.journal) if order.noted else None
        try:
            with nullcontext() if notes is None else self._door.followers.waking(caller.job, caller.wake):
                await self._pump(caller, order, writer, send, notes)
        except Exception as error:
            _log.failure("stream_failed", error, job=caller.job)
            await send_part(send, writer.failed(of_error(error)), more=False)
        return CLIENT_GONE if isinstance(caller.error, ClientGone) else 200

    def _simulated(self, caller: Caller) -> bool:
        """By what has come of the answer, else by the nodes that could give it."""
        answer = caller.answer
        if answer is not None:
            return answer.simulated
        return caller.simulated if caller.streaming else self._door.registry.catalogue.simulated

    async def _first_piece(self, caller: Caller) -> None:
        """What fails before it is answered as the plain request would be: a status tells clients more than an event after a 200."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._door.settings.head_seconds):
                while not (caller.streaming or caller.ended):
                    await caller.changed()
        while not (caller.acknowledged or caller.ended):
            await caller.changed()

    async def _pump(self, caller: Caller, order: CallOrder, writer: StreamWriter, send: Send, notes: StepNotes | None) -> None:
        clock, heartbeat = self._door.clock, self._door.settings.heartbeat_seconds
        caller.quiet_since = clock.monotonic()
        place = partial(self._door.place_of, caller, order.priority_class)
        places = PlaceNotes(place) if self._dialect.heartbeat and self._door.settings.places else None
        while True:
            part = _new_text(caller, writer)
            if caller.streaming:
                places = None
            elif places is not None and not caller.ended:
                part = b"".join(map(sse.comment, places.news()))
            if notes is not None:
                part = b"".join(map(sse.comment, notes.news())) + part
            if caller.ended:
                await send_part(send, part + _end(caller, writer), more=False)
                return
            if not part and clock.monotonic() - caller.quiet_since >= heartbeat:
                part = self._dialect.heartbeat
            if part:
                caller.quiet_since = clock.monotonic()
                await send_part(send, part)
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(None if places is None else TOLD_SECONDS):
                        await caller.changed()


def _new_text(caller: Caller, writer: StreamWriter) -> bytes:
    """What has come since the last look, rendered."""
    delta = caller.take()
    if not delta.text and not delta.thinking:
        return b""
    part = b"" if writer.begun else _begin(caller, writer)
    part += writer.thinking(delta.thinking) if delta.thinking else b""
    return part + writer.text(delta.text) if delta.text else part


def _begin(caller: Caller, writer: StreamWriter) -> bytes:
    """The first chunk, by the piece that came first; by the answer where no piece came before its end."""
    answer = caller.answer
    if answer is None or caller.model is not None:
        return writer.begin(caller.model, caller.simulated)
    return writer.begin(answer.model, answer.simulated)


def _end(caller: Caller, writer: StreamWriter) -> bytes:
    """The last events of a stream, good or bad."""
    answer = caller.answer
    if answer is None:
        return writer.failed(of_error(caller.why_not))
    assert caller.result is not None
    return writer.last(answer, caller.result.usage)
