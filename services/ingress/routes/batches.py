"""`/v1/batches`: make one of an uploaded file, look at it, cancel it. All that is known of a batch is its owner's newest event."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from services.ingress.admission.idempotency import job_id_of
from services.ingress.dialects.openai import batches
from services.ingress.dialects.port import Dialect
from services.ingress.handlers import Door
from services.ingress.http.exchange import call_headers
from services.ingress.http.uploads import PIECE_BYTES
from services.ingress.problems import Problem, Refused
from services.ingress.replies.register import WaitKind
from services.ingress.routes.asking import Routes, as_json, body_of, client_of
from services.ingress.routes.batch_input import BatchInput
from services.ingress.routes.files import not_found, page
from services.ingress.routes.telling import seen, told
from shared.access import OPEN
from shared.contracts.batch import BatchCancelled, BatchChanged, BatchSubmitted, OfBatch

_BODY_BYTES = 64 * 1024
_READ_SECONDS = 600.0
_HELD_BYTES = 4 * PIECE_BYTES
_USUAL, _MOST = 20, 100


class _BatchRoutes:
    """`dialects`: by the endpoints that lines may name."""

    def __init__(self, door: Door, dialects: Mapping[str, Dialect]) -> None:
        self._door, self._known, self._dialects = door, door.events.batches, dialects

    async def create(self, request: Request) -> Response:
        """Answered when its lines are read and its owner knows of it: then it is durable, and nothing of it is held here."""
        door, (client, tenant), call = self._door, client_of(self._door, request), call_headers(request.scope)
        asked = await body_of(door, request, batches.BatchRequest, _BODY_BYTES, tenant=tenant)
        seconds, dialect = asked.window_seconds(), self._dialects.get(asked.endpoint)
        if dialect is None:
            known = ", ".join(self._dialects)
            raise Refused(Problem(400, "unsupported_endpoint", f"lines of a batch may be for {known}", "endpoint"))
        identifier = door.submitter.new_id() if call.idempotency_key is None else job_id_of(tenant, call.idempotency_key)
        name = f"batch_{identifier[2:]}"
        if call.idempotency_key is not None and (before := self._known.get(tenant, name)) is not None:
            return as_json(batches.batch_object(before))
        terms = asked.terms(door.clock.wall())
        file = await seen(door, tenant, lambda: door.files.get(tenant, asked.input_file_id))
        if file is None:
            raise not_found("file", asked.input_file_id)
        await door.meter.charge(client, 0)
        lines = BatchInput(door, client, (tenant, name), dialect, seconds)
        with door.waiting(WaitKind.END, tenant, _READ_SECONDS) as reader:
            try:
                await door.open()
                await door.bodies.hold(reader, _HELD_BYTES)
                await lines.read(file)
            finally:
                door.bodies.let_go(reader)
        submitted = BatchSubmitted(
            tenant=tenant,
            batch=name,
            terms=terms,
            window_seconds=seconds,
            index=lines.index,
            lines=0 if lines.errors else lines.lines,
            refused=None if lines.errors else lines.refused,
            refusals=0 if lines.errors else lines.refusals,
            key=None if client is OPEN else client.name,
            errors=tuple(lines.errors),
        )
        await self._tell(submitted)
        now = self._known.get(tenant, name)
        if now is not None:
            return as_json(batches.batch_object(now))
        return as_json(batches.batch_object(_guessed(submitted), "validating"))

    async def _tell(self, said: OfBatch) -> None:
        """Until its owner knows, or for a while: Kafka has it then."""

        def done() -> bool:
            known = self._known.get(said.tenant, said.batch)
            return known is not None and (not isinstance(said, BatchCancelled) or known.ending is not None or known.over_at is not None)

        await told(self._door, said, f"#batch/{said.tenant}/{said.batch}", done)

    async def list(self, request: Request) -> Response:
        """The newest first."""
        _, tenant = client_of(self._door, request)
        found = sorted((known for known in self._known if known.tenant == tenant), key=lambda known: -known.terms.created_at)
        return Response(page(request, [batches.batch_object(known) for known in found], _USUAL, _MOST), media_type="application/json")

    async def get(self, request: Request) -> Response:
        return as_json(batches.batch_object(await self._found(request)))

    async def cancel(self, request: Request) -> Response:
        """409 where it is over; lines that run are stopped, what is done is kept."""
        known = await self._found(request)
        if known.over_at is not None and known.ending != "cancelled":
            raise Refused(Problem(409, "batch_over", f"the batch is {known.status}", "id"))
        if known.ending is None:
            await self._tell(BatchCancelled(tenant=known.tenant, batch=known.batch))
        return as_json(batches.batch_object(self._known.get(known.tenant, known.batch) or known))

    async def _found(self, request: Request) -> BatchChanged:
        """Raises Refused (404)."""
        (client, tenant), name = client_of(self._door, request), str(request.path_params["batch"])
        known = await seen(self._door, tenant, lambda: self._known.get(tenant, name))
        if known is None or not client.may_see(tenant):
            raise not_found("batch", name)
        return known


def routes(door: Door, dialects: Mapping[str, Dialect]) -> Routes:
    """By path and method."""
    own = _BatchRoutes(door, dialects)
    return {
        "/v1/batches": {"GET": own.list, "POST": own.create},
        "/v1/batches/{batch}": {"GET": own.get},
        "/v1/batches/{batch}/cancel": {"POST": own.cancel},
    }


def _guessed(said: BatchSubmitted) -> BatchChanged:
    """As its owner will know it."""
    fields = {name: getattr(said, name) for name in ("tenant", "batch", "terms", "window_seconds", "lines", "refusals", "errors")}
    return BatchChanged(epoch=-1, at=said.terms.created_at, **fields)
