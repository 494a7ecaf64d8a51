"""Contexts: what of a conversation a step's model reads, fetched from blobs. Lately read ones are kept, by tenant and digest.

Each turn names the one before it, so one that is read for the first time costs a fetch a turn; the next one costs one fetch. What is gone
(retention) is left out with all before it: an older conversation is no reason to fail.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TypeVar

from shared.contracts.base import Contract
from shared.contracts.blob import BlobRef
from shared.contracts.conversation import ContextRef, Memory, Turn
from shared.contracts.step import Step
from shared.conversations import merged, with_context
from shared.processing.blobs import BlobGone
from shared.telemetry import logs

log = logs.get(__name__)

KEPT_BYTES = 8 * 1024 * 1024
"""Of bodies; parsed they take a few times as much."""

Body = TypeVar("Body", bound=Contract)


class Contexts:
    """Of one worker."""

    def __init__(self, fetch: Callable[[str, BlobRef], Awaitable[bytes]], most_bytes: int = KEPT_BYTES) -> None:
        """`fetch(tenant, ref)` raises BlobGone, LogError."""
        self._fetch, self._most = fetch, most_bytes
        self._kept: OrderedDict[tuple[str, str], tuple[Contract, int]] = OrderedDict()
        self._size = 0

    async def whole(self, step: Step) -> Step:
        """The step with its context before its messages. Raises LogError."""
        asked = step.context
        if asked is None:
            return step
        memory = await self._memory(step.tenant, asked)
        return with_context(step, memory, await self._turns(step.tenant, asked))

    async def _memory(self, tenant: str, asked: ContextRef) -> Memory | None:
        known = None if asked.memory is None else await self._read(tenant, asked.memory, Memory)
        return known if asked.found is None else merged(known, asked.found)

    async def _turns(self, tenant: str, asked: ContextRef) -> list[Turn]:
        """Oldest first."""
        found: list[Turn] = []
        lies = asked.newest
        for number in range(asked.skip + asked.turns if asked.turns else 0):
            turn = None if lies is None else await self._read(tenant, lies, Turn)
            if turn is None:
                break
            if number >= asked.skip:
                found.append(turn)
            lies = turn.before
        return found[::-1]

    async def _read(self, tenant: str, lies: BlobRef, kind: type[Body]) -> Body | None:
        key = tenant, lies.digest
        if key in self._kept:
            self._kept.move_to_end(key)
            kept = self._kept[key][0]
            return kept if isinstance(kept, kind) else None
        try:
            body = kind.model_validate_json(await self._fetch(tenant, lies))
        except (BlobGone, ValueError):
            log.warning("context_gone", digest=lies.digest)
            return None
        self._keep(key, body, lies.size)
        return body

    def _keep(self, key: tuple[str, str], body: Contract, size: int) -> None:
        if size > self._most or key in self._kept:  # two steps may have read it at once
            return
        self._kept[key] = body, size
        self._size += size
        while self._size > self._most:
            self._size -= self._kept.popitem(last=False)[1][1]
