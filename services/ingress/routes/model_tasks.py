"""Tasks on models as durable jobs: `/v1/model-tasks` for tutti's own clients, and what a dialect has for it (`TaskDoor`). Operators only.

The nodes are chosen here, once, by what they have told; the job names them, so that nothing is chosen anew. What is done is told on `acts`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from services.ingress.admission.targets import TaskOrder, targets
from services.ingress.declaring import Declaring
from services.ingress.dialects.port import TaskDoor
from services.ingress.dialects.tutti.requests import JobSubmission
from services.ingress.handlers import Door
from services.ingress.http.exchange import CallHeaders, Receive, Scope, Send, call_headers, send_part, start_stream, watch, watched
from services.ingress.http.resource import Endpoint
from services.ingress.problems import Refused, no_node, of_error
from services.ingress.replies.waiters import Caller
from services.ingress.routes.asking import caller
from services.ingress.routes.jobs import Jobs
from shared.access import Client
from shared.clock import Clock
from shared.contracts import ids
from shared.contracts.base import PriorityClass
from shared.contracts.bounds import check_depth
from shared.contracts.job import Job
from shared.contracts.node import Node
from shared.contracts.tasks import PIN, Action, Pin
from shared.model_names import canonical, spelling
from shared.patterns.models import MODELS

ORDER_BYTES = 64 * 1024
_SHOWN = 200
_PINS = frozenset({Action.PIN, Action.UNPIN, Action.UNLOAD, Action.DELETE})


class TaskRoutes:
    """Of one instance. `pins`: entries as they stand."""

    def __init__(self, door: Door, declaring: Declaring, jobs: Jobs, pins: Collection[str]) -> None:
        self._door, self._declaring, self._jobs, self._pins = door, declaring, jobs, pins

    async def create(self, request: Request) -> Response:
        """202 with the job's id once Kafka has it. Raises Refused, and as any submission."""
        call, client, body = await self._read(request)
        order = TaskOrder.model_validate_json(body)
        fields = await self._fields(request, order, stream=False)
        given = JobSubmission.model_validate(fields | ({"class": order.priority_class} if order.priority_class else {}))
        status, _ = await self._jobs.submit(given, call, client)
        await self._note_pins(order, fields["input"], client)
        shown = {"id": ids.public(status.id), "state": status.state, "nodes": fields["input"]["nodes"]}
        return Response(to_json(shown), 202, {"location": f"/v1/jobs/{shown['id']}"}, media_type="application/json")

    def spoken(self, spoken: TaskDoor) -> Endpoint:
        """The same in a dialect, for a client that waits; where it leaves, what it asked for ends."""

        async def serve(request: Request) -> Response:
            call, client, body = await self._read(request)
            order, streamed = spoken.order(body)
            caller, correlation = await self._begin(request, order, call, client, stream=streamed)
            waiting = _Waiting(self._door, caller, correlation, call)
            if streamed:
                return _TaskStream(waiting, spoken, self._door.clock)
            done = spoken.done(await waiting.end(request))
            return Response(done, media_type="application/json" if done else None)

        return serve

    async def _read(self, request: Request) -> tuple[CallHeaders, Client, bytes]:
        """Raises Refused (401, 403)."""
        call = call_headers(request.scope)
        client = caller(self._door, request)
        async with self._door.bodies.read(request.receive, call, client.named(call.tenant), ORDER_BYTES) as body:
            check_depth(body)
            return call, client, bytes(body)

    async def _fields(self, request: Request, order: TaskOrder, *, stream: bool) -> dict[str, Any]:
        """The job's, once what it does is told. Raises Refused: the nodes are not known, or none can do it."""
        door = self._door
        if not door.registry.complete:
            raise Refused(no_node(("the list of nodes, which is not read yet",), door.settings.retry_after_seconds))
        meant = door.offered.meant(order.model)
        order = order.model_copy(update={"model": meant[0] if meant else order.model})
        await door.open()
        try:
            where = targets(order, door.registry.table)
        except Refused:  # nobody is left to do it: what stands of it goes nevertheless
            if lost := self._lost_pins(order, order.model):
                await self._declaring.tell(request, order.action.value, "model", f"{order.model}: {', '.join(lost)}"[:_SHOWN])
                await self._put_pins(lost, None)
            raise
        ask = {"action": order.action.value, "name": order.model, "nodes": [target.model_dump() for target in where]}
        named = f"{order.model} on {', '.join(target.node for target in where)}"
        await self._declaring.tell(request, order.action.value, "model", named[:_SHOWN])
        return {
            "prompt": f"{order.action.value} {order.model}",
            "pattern": MODELS.name,
            "input": ask | ({} if order.to is None else {"to": order.to}),
            "deadline_seconds": order.deadline_seconds,
            "stream": stream,
        }

    async def _note_pins(self, order: TaskOrder, given: dict[str, Any], client: Client) -> None:
        """Where it is to stay, or no longer, so that each node's worker knows it whatever is started again: once the job is taken."""
        if order.action not in _PINS:
            return
        pin = Pin(by=client.name, at=self._door.clock.wall()).to_bytes() if order.action is Action.PIN else None
        model, nodes = given["name"], {target["node"] for target in given["nodes"]}
        there = {node.id: _spelled(node, model) or model for node in self._door.registry.table if node.id in nodes}
        await self._put_pins([*(f"{node}/{name}" for node, name in there.items()), *self._lost_pins(order, model)], pin)

    def _lost_pins(self, order: TaskOrder, model: str) -> list[str]:
        """Entries that are to be given up, too, of nodes that have left, or do not have the model now."""
        if order.action is Action.PIN or order.action not in _PINS or order.tags:
            return []
        there = {node.id for node in self._door.registry.table if _spelled(node, model)}
        found = [entry.partition("/") for entry in self._pins]
        meant = (pin for pin in found if canonical(pin[2]) == canonical(model) and pin[0] not in there)
        return sorted("".join(pin) for pin in meant if not order.nodes or pin[0] in order.nodes)

    async def _put_pins(self, entries: list[str], pin: bytes | None) -> None:
        for entry in dict.fromkeys(entries):
            await self._declaring.put(PIN, entry, pin)

    async def _begin(self, request: Request, order: TaskOrder, call: CallHeaders, client: Client, *, stream: bool) -> tuple[Caller, bytes]:
        door = self._door
        door.admit_caller()
        fields = await self._fields(request, order, stream=stream)
        job = Job.model_validate(fields | {"id": door.submitter.new_id(), "tenant": client.tenant_of(call.tenant)})
        priority_class = client.class_of(call.priority_class, PriorityClass.STANDARD)
        await door.judge(job, client, priority_class, order.deadline_seconds, at_once=False)
        record = await door.record_of(job, client)
        await self._note_pins(order, fields["input"], client)
        return door.call(record, priority_class, order.deadline_seconds, call.trace)


def _spelled(node: Node, model: str) -> str | None:
    return spelling(model, [known.name for known in node.models])


class _Waiting:
    """Who waits for one task."""

    def __init__(self, door: Door, caller: Caller, correlation: bytes, call: CallHeaders) -> None:
        self._door, self.caller, self._correlation, self._detach = door, caller, correlation, call.detach

    async def end(self, request: Request) -> str:
        """The answer's text. Raises what it failed with."""
        watching = watch(request.receive, self.caller)
        try:
            await self.caller.answered()
            return self.outcome()
        finally:
            watching.cancel()
            self.leave()

    def outcome(self) -> str:
        """The answer's text. Raises what the task failed with."""
        answer = self.caller.answer
        if answer is None:
            raise self.caller.why_not
        return answer.text

    def leave(self) -> None:
        """He waits no longer: where nothing has ended it, and nobody said otherwise, it ends."""
        caller, gone = self.caller, self.caller.gone
        self._door.leave(caller, self._correlation)
        if gone and not self._detach:
            self._door.submitter.cancel(caller.job, caller.home, "nobody waits for it any longer")


class _TaskStream(Response):
    """Its progress as it comes, then the end, good or bad."""

    def __init__(self, waiting: _Waiting, spoken: TaskDoor, clock: Clock) -> None:
        super().__init__()
        self._waiting, self._spoken, self._clock = waiting, spoken, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller, spoken = self._waiting.caller, self._spoken
        send = watched(send, caller, self._clock)
        watching = watch(receive, caller)
        try:
            await start_stream(send, [*spoken.stream_headers, (b"x-tutti-job", caller.job.encode())])
            while True:
                while caller.progress:
                    await send_part(send, spoken.line(caller.progress.popleft()))
                if caller.ended:
                    break
                await caller.changed()
            await send_part(send, self._last(), more=False)
        finally:
            watching.cancel()
            self._waiting.leave()

    def _last(self) -> bytes:
        try:
            return self._spoken.last(self._waiting.outcome())
        except Exception as error:
            return self._spoken.failed(of_error(error))
