"""Embeddings of several steps in one call of the endpoint: steps of one model and one set of options that begin within a moment share it.

A call costs an endpoint far more than a text does. Each step keeps a fate of its own: one that is cancelled leaves the others their call,
and when the shared call is refused, each is asked alone, so that one bad text fails one step.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from services.worker.backends.base import Around, Backend, Completion, Delta, ModelCall, ModelCallFailed
from shared.clock import Clock
from shared.contracts.chat import Operation, Options
from shared.contracts.failure import FailureKind as K
from shared.contracts.usage import Usage

_OF_THE_TEXTS = frozenset({K.BAD_REQUEST, K.TOO_LARGE, K.CONTEXT_LENGTH, K.MODEL_ERROR, K.INVALID_OUTPUT})
"""Failures that may be one text's fault."""


LEAST_CHARACTERS, MOST_CHARACTERS = 4_096, 1 << 20
"""Of all texts in one call: the bound begins at the least, and grows by as much."""


@dataclass(slots=True)
class BatchBound:
    """Characters in one call: more after each full one that took no longer than it may, half as many after one that did. Pure."""

    longest_seconds: float
    characters: int = LEAST_CHARACTERS

    def took(self, characters: int, seconds: float) -> None:
        """A call of so many. One step alone may have more than the bound, and says nothing of it."""
        if seconds > self.longest_seconds:
            self.characters = max(LEAST_CHARACTERS, min(self.characters, characters) // 2)
        elif characters * 2 > self.characters:
            self.characters = min(MOST_CHARACTERS, self.characters + LEAST_CHARACTERS)


@dataclass(slots=True, eq=False)
class _Batch:
    calls: list[ModelCall] = field(default_factory=list)
    texts: int = 0
    characters: int = 0
    left: int = 0
    """Steps that gave up waiting."""
    task: asyncio.Task[list[Completion]] | None = None


MOST_MODELS = 256


class BatchingBackend(Around):
    """Another backend, with shared embedding calls. `delay_seconds` to gather; in one call `most_texts`, and what is found to take no more
    than `longest_seconds`; `slots` calls at once, however many steps share a slot.
    """

    def __init__(
        self, inner: Backend, clock: Clock, *, delay_seconds: float, most_texts: int, longest_seconds: float = 1.0, slots: int = 1
    ) -> None:
        super().__init__(inner)
        self._clock, self._slots = clock, asyncio.Semaphore(slots)
        self._bounds: dict[str, BatchBound] = {}
        self._longest_seconds = longest_seconds
        self._delay, self._most_texts = delay_seconds, most_texts
        self._open: dict[tuple[str, Options], _Batch] = {}

    def call(self, call: ModelCall) -> AsyncIterator[Delta | Completion]:
        """As `Backend`. What is no embedding goes straight through."""
        return self._embed(call) if call.step.operation is Operation.EMBED else self._inner.call(call)

    async def _embed(self, call: ModelCall) -> AsyncIterator[Delta | Completion]:
        key = (call.model, call.step.options)
        batch, number = self._join(key, call)
        assert batch.task is not None
        try:
            shared = await asyncio.shield(batch.task)
        except asyncio.CancelledError:
            batch.left += 1
            if batch.left == len(batch.calls):
                self._close(key, batch)
                batch.task.cancel()
            raise
        except ModelCallFailed as error:
            if len(batch.calls) == 1 or error.kind not in _OF_THE_TEXTS:
                raise
            async with self._slots:
                alone = await _completion(self._inner, call)
            yield alone
            return
        yield shared[number]

    def _join(self, key: tuple[str, Options], call: ModelCall) -> tuple[_Batch, int]:
        texts, characters = len(call.step.texts), sum(map(len, call.step.texts))
        batch = self._open.get(key)
        most = self._bound(call.model).characters
        if batch is None or batch.texts + texts > self._most_texts or batch.characters + characters > most:
            batch = self._open[key] = _Batch()
            batch.task = asyncio.get_running_loop().create_task(self._run(key, batch))
        batch.calls.append(call)
        batch.texts += texts
        batch.characters += characters
        return batch, len(batch.calls) - 1

    def _bound(self, model: str) -> BatchBound:
        if model not in self._bounds and len(self._bounds) >= MOST_MODELS:
            self._bounds.clear()
        return self._bounds.setdefault(model, BatchBound(self._longest_seconds))

    async def _run(self, key: tuple[str, Options], batch: _Batch) -> list[Completion]:
        try:
            await self._clock.sleep(self._delay)
        finally:
            self._close(key, batch)
        async with self._slots:
            return await self._shared(batch)

    def _close(self, key: tuple[str, Options], batch: _Batch) -> None:
        """Nobody joins it any more."""
        if self._open.get(key) is batch:
            del self._open[key]

    async def _shared(self, batch: _Batch) -> list[Completion]:
        first = batch.calls[0]
        if len(batch.calls) == 1:
            return [await _completion(self._inner, first)]
        texts = tuple(text for call in batch.calls for text in call.step.texts)
        step = first.step.model_copy(update={"texts": texts})
        began = self._clock.monotonic()
        whole = await _completion(self._inner, ModelCall(step, first.model, first.trace, first.node, first.simulated))
        self._bound(first.model).took(batch.characters, self._clock.monotonic() - began - whole.timings.load_ms / 1e3)
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
