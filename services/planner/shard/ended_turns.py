"""EndedTurns: what a job of a conversation has said goes into blobs once its end is acknowledged; then the owner is told.

    settle event acknowledged ──► turn (and a new memory) in blobs ──► TurnEnded ──► acknowledged: the job may be out

A successor finds the job not out, and does the same again: the texts, and so their digests, follow from its history. Of what is gone (an
input that lies nowhere any more) the turn ends without it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from services.planner.draft import EndTurn, Tell
from services.planner.sending.messages import of_effect
from services.planner.shard.wiring import Wiring
from shared.contracts.base import DAY_SECONDS
from shared.contracts.blob import BlobRef
from shared.contracts.chat import ChatMessage
from shared.contracts.conversation import EndedTurn, Memory, Portion, TurnEnded
from shared.contracts.job import HeldJob, Input
from shared.contracts.result import Status
from shared.conversations import memory_size, merged, size_of, turn_of
from shared.errors import InvalidInput
from shared.processing.blobs import BlobGone
from shared.telemetry import logs
from shared.topics import BLOB_DAYS

log = logs.get(__name__)

_RENEWED_SECONDS = BLOB_DAYS // 4 * DAY_SECONDS
"""A memory that is older is written again with the turn."""


class EndedTurns:
    """Of one book. `told`: called with the job once the owner is told."""

    def __init__(self, wiring: Wiring, told: Callable[[str], None]) -> None:
        self._wiring, self._told = wiring, told

    def tell(self, turn: EndTurn) -> None:
        """Now, or once the texts are written."""
        if turn.begun is None or turn.settled.result.status is not Status.SUCCEEDED or turn.settled.result.answer is None:
            self._send(turn, None)
        else:
            self._wiring.spawn(self._write_and_send(turn))

    async def _write_and_send(self, turn: EndTurn) -> None:
        ended = None
        try:
            ended = await self._write(turn)
        except (InvalidInput, BlobGone, ValueError) as error:
            log.warning("turn_not_kept", job=turn.settled.job, error=type(error).__name__)
        except Exception as error:
            log.failure("turn_not_kept", error, job=turn.settled.job)
        self._send(turn, ended)

    async def _write(self, turn: EndTurn) -> EndedTurn:
        """Raises TooLarge, BlobGone; ValueError of an input that is none."""
        assert turn.begun is not None, "it has begun"
        tenant, context, blobs = turn.request.tenant, turn.begun.context, self._wiring.blobs
        result = await blobs.whole(turn.settled.result)
        assert result.answer is not None, "it succeeded"
        before = context.newest if context is not None else None
        body = turn_of(turn.settled.job, turn.settled.at, await self._said(turn), result.answer, before)
        newest = await blobs.store_in_time(tenant, body.to_bytes())
        memory, size = await self._memory(tenant, context.memory if context else None, turn.found)
        return EndedTurn(
            newest=newest,
            size=size_of(body),
            keeps=context.turns if turn.dropped and context is not None else None,
            memory=memory,
            memory_size=size,
            based_on=context.memory.digest if context is not None and context.memory is not None else None,
        )

    async def _said(self, turn: EndTurn) -> tuple[ChatMessage, ...]:
        request = turn.request
        if not isinstance(request, HeldJob) or request.input_ref is None:
            return request.turns
        body = await self._wiring.blobs.fetch_in_time(request.tenant, request.input_ref.blob)
        return Input.model_validate_json(body).messages

    async def _memory(self, tenant: str, known: BlobRef | None, found: Memory | None) -> tuple[BlobRef | None, Portion]:
        """Written anew: with what was found, or because it grows old."""
        fresh = known is None or self._wiring.clock.wall() - known.written_at < _RENEWED_SECONDS
        if found is None and fresh:
            return None, Portion()
        try:
            before = None if known is None else Memory.model_validate_json(await self._wiring.blobs.fetch_in_time(tenant, known))
        except BlobGone:
            before = None
        memory = before if found is None else merged(before, found)
        if memory is None:
            return None, Portion()
        return await self._wiring.blobs.store_in_time(tenant, memory.to_bytes()), memory_size(memory)

    def _send(self, turn: EndTurn, ended: EndedTurn | None) -> None:
        conversation = turn.request.conversation
        assert conversation is not None, "it has one"
        serial = None if turn.begun is None else turn.begun.turn
        told = TurnEnded(tenant=turn.request.tenant, conversation=conversation, job=turn.settled.job, turn=serial, ended=ended)
        self._wiring.outbox.post(of_effect(Tell(None, told), self._wiring.topics), partial(self._told, turn.settled.job))
