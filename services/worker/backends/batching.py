"""Embeddings of several steps in one call of the endpoint: steps of one model and one set of options that begin within a moment share it.

A call costs an endpoint far more than a text does. Each step keeps a fate of its own: one that is cancelled leaves the others their call,
and when the shared call is refused, each is asked alone, so that one bad text fails one step.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from services.worker.backends.base import Backend, BackendProbe, Completion, Delta, ModelCall, ModelCallFailed
from shared.clock import Clock
from shared.contracts.chat import Operation, Options
from shared.contracts.failure import FailureKind as K
from shared.contracts.node import NodeModel
from shared.contracts.usage import Usage

_OF_THE_TEXTS = frozenset({K.BAD_REQUEST, K.TOO_LARGE, K.CONTEXT_LENGTH, K.MODEL_ERROR, K.INVALID_OUTPUT})
"""Failures that may be one text's fault."""


@dataclass(slots=True, eq=False)
class _Batch:
    calls: list[ModelCall] = field(default_factory=list)
    texts: int = 0
    left: int = 0
    """Steps that gave up waiting."""
    task: asyncio.Task[list[Completion]] | None = None


class BatchingBackend:
    """Another backend, with shared embedding calls. `delay_seconds` to gather, `most_texts` in one call."""

    def __init__(self, inner: Backend, clock: Clock, *, delay_seconds: float, most_texts: int) -> None:
        self._inner, self._clock = inner, clock
        self._delay, self._most_texts = delay_seconds, most_texts
        self._open: dict[tuple[str, Options], _Batch] = {}

    @property
    def kind(self) -> str:
        return self._inner.kind

    def call(self, call: ModelCall) -> AsyncIterator[Delta | Completion]:
        """As `Backend`. What is no embedding goes straight through."""
        return self._embed(call) if call.step.operation is Operation.EMBED else self._inner.call(call)

    async def probe(self) -> BackendProbe:
        return await self._inner.probe()

    async def models(self) -> tuple[NodeModel, ...]:
        return await self._inner.models()

    async def close(self) -> None:
        await self._inner.close()

    async def _embed(self, call: ModelCall) -> AsyncIterator[Delta | Completion]:
        batch, number = self._join(call)
        assert batch.task is not None
        try:
            shared = await asyncio.shield(batch.task)
        except asyncio.CancelledError:
            batch.left += 1
            if batch.left == len(batch.calls):
                batch.task.cancel()
            raise
        except ModelCallFailed as error:
            if len(batch.calls) == 1 or error.kind not in _OF_THE_TEXTS:
                raise
            yield await _completion(self._inner, call)
            return
        yield shared[number]

    def _join(self, call: ModelCall) -> tuple[_Batch, int]:
        key, texts = (call.model, call.step.options), len(call.step.texts)
        batch = self._open.get(key)
        if batch is None or batch.texts + texts > self._most_texts:
            batch = self._open[key] = _Batch()
            batch.task = asyncio.get_running_loop().create_task(self._run(key, batch))
        batch.calls.append(call)
        batch.texts += texts
        return batch, len(batch.calls) - 1

    async def _run(self, key: tuple[str, Options], batch: _Batch) -> list[Completion]:
        try:
            await self._clock.sleep(self._delay)
        finally:
            if self._open.get(key) is batch:
                del self._open[key]
        first = batch.calls[0]
        if len(batch.calls) == 1:
            return [await _completion(self._inner, first)]
        texts = tuple(text for call in batch.calls for text in call.step.texts)
        step = first.step.model_copy(update={"texts": texts})
        whole = await _completion(self._inner, ModelCall(step, first.model, first.trace, first.node, first.simulated))
        return _shares(batch.calls, whole)


async def _completion(backend: Backend, call: ModelCall) -> Completion:
    async for piece in backend.call(call):
        if isinstance(piece, Completion):
            return piece
    raise ModelCallFailed(K.BROKEN_STREAM, "the endpoint ended without an answer")


def _shares(calls: list[ModelCall], whole: Completion) -> list[Completion]:
    """Each step's vectors; of the tokens a share by its characters, which is an estimate."""
    characters = [sum(map(len, call.step.texts)) for call in calls]
    every = sum(characters) or 1
    shares, at = [], 0
    for call, own in zip(calls, characters, strict=True):
        count = len(call.step.texts)
        answer = whole.answer.model_copy(update={"embeddings": whole.answer.embeddings[at : at + count]})
        usage = Usage(calls=1, prompt_tokens=round(whole.usage.prompt_tokens * own / every), estimated=True)
        shares.append(Completion(answer, usage, whole.timings))
        at += count
    return shares
