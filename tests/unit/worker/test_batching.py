"""Embedding steps share calls: each gets its own vectors, usage and fate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from infra.lab import virtual_loop
from services.worker.backends.base import Completion, Delta, ModelCall, ModelCallFailed
from services.worker.backends.batching import LEAST_CHARACTERS, MOST_CHARACTERS, BatchBound, BatchingBackend
from shared.clock import LoopClock
from shared.contracts.chat import Answer, Operation
from shared.contracts.failure import FailureKind
from shared.contracts.outcome import StepFailed, StepSucceeded
from shared.contracts.usage import Usage
from tests.unit.worker.scripted_backend import ScriptedBackend
from tests.unit.worker.world import World, play, step

MODEL = "tiny-embed"


class Embedder(ScriptedBackend):
    """A text's vector is its length. `bad` is refused; a call takes a second."""

    def __init__(self) -> None:
        super().__init__(known=(MODEL, "other-embed"))
        self.sizes: list[int] = []
        self.cancelled = 0

    async def call(self, call: ModelCall) -> AsyncIterator[Delta | Completion]:
        texts = call.step.texts
        self.sizes.append(len(texts))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await LoopClock().sleep(1.0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        if "bad" in texts:
            raise ModelCallFailed(FailureKind.BAD_REQUEST, "a bad text")
        yield Completion(
            Answer(embeddings=tuple((float(len(text)),) for text in texts)), Usage(calls=1, prompt_tokens=sum(map(len, texts)))
        )


def embed(number: int, *texts: str, **changes: Any) -> Any:
    return step(number, operation=Operation.EMBED, capability="embed", model=MODEL, messages=(), texts=texts, **changes)


async def ask(backend: BatchingBackend, given: Any, model: str = MODEL) -> Completion:
    [completion] = [piece async for piece in backend.call(ModelCall(given, model))]
    assert isinstance(completion, Completion)
    return completion


def batching(inner: Embedder, most_texts: int = 100) -> BatchingBackend:
    return BatchingBackend(inner, LoopClock(), delay_seconds=0.003, most_texts=most_texts)


def test_steps_of_one_model_share_a_call_and_keep_what_is_theirs() -> None:
    """Vectors in order, tokens by characters; another model, or too many texts, makes another call."""

    async def scenario() -> None:
        inner = Embedder()
        backend = batching(inner, most_texts=5)
        asked = [ask(backend, embed(1, "a", "bb")), ask(backend, embed(2, "ccc")), ask(backend, embed(3, "d"), "other-embed")]
        first, second, other, full = await asyncio.gather(*asked, ask(backend, embed(4, "e", "f", "g")))
        assert [first.answer.embeddings, second.answer.embeddings] == [((1.0,), (2.0,)), ((3.0,),)]
        assert (first.usage.prompt_tokens, second.usage.prompt_tokens, first.usage.calls) == (3, 3, 1)
        assert (other.answer.embeddings, len(full.answer.embeddings)) == (((1.0,),), 3)
        assert sorted(inner.sizes) == [1, 3, 3]

    virtual_loop.run(scenario())


def test_one_bad_text_fails_one_step() -> None:
    """The shared call is refused, so each is asked alone."""

    async def scenario() -> None:
        inner = Embedder()
        backend = batching(inner)
        good, bad = await asyncio.gather(ask(backend, embed(1, "a")), ask(backend, embed(2, "bad")), return_exceptions=True)
        assert isinstance(good, Completion)
        assert isinstance(bad, ModelCallFailed)
        assert inner.sizes == [2, 1, 1]

    virtual_loop.run(scenario())


def test_those_asked_alone_take_slots_too() -> None:
    """However many shared the call that was refused."""

    async def scenario() -> None:
        inner = Embedder()
        backend = BatchingBackend(inner, LoopClock(), delay_seconds=0.003, most_texts=100, slots=2)
        asked = [ask(backend, embed(number, "bad" if number == 5 else "a")) for number in range(20)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert [isinstance(one, Completion) for one in found].count(False) == 1
        assert (len(inner.sizes), inner.most_running) == (21, 2)

    virtual_loop.run(scenario())


def test_a_cancelled_step_leaves_the_others_their_call_and_the_last_one_ends_it() -> None:
    """Law 9, and nobody else's loss."""

    async def scenario() -> None:
        inner = Embedder()
        backend = batching(inner)
        tasks = [asyncio.create_task(ask(backend, embed(n, "a"))) for n in (1, 2)]
        await LoopClock().sleep(0.5)
        tasks[0].cancel()
        assert len((await tasks[1]).answer.embeddings) == 1
        assert inner.cancelled == 0
        tasks = [asyncio.create_task(ask(backend, embed(n, "a"))) for n in (3, 4)]
        await LoopClock().sleep(0.5)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await LoopClock().sleep(0.0)
        assert inner.cancelled == 1

    virtual_loop.run(scenario())


def test_who_comes_as_the_last_one_gives_up_begins_another_call() -> None:
    """In the same turn of the loop: nobody has cancelled him."""

    async def scenario() -> None:
        backend = batching(Embedder())
        left = asyncio.create_task(ask(backend, embed(1, "a")))
        await LoopClock().sleep(0.001)
        left.cancel()
        came = asyncio.create_task(ask(backend, embed(2, "bb")))
        assert (await came).answer.embeddings == ((2.0,),)

    virtual_loop.run(scenario())


def test_what_waits_for_the_one_slot_rides_along() -> None:
    """A node with one slot: while a call runs others gather, and go together in the next one."""

    async def scenario(world: World) -> None:
        inner = Embedder()
        async with world.worker(inner, slots=1) as running:
            world.route(*(embed(n, f"text {n}") for n in range(20)), embed(20, "bad"))
            await world.until(lambda: len(world.outcomes(StepSucceeded)) == 20 and len(world.outcomes(StepFailed)) == 1)
            assert running.service.attempts.slots.busy == 0
            assert max(inner.sizes) > 10

    play(scenario)


class Reader(Embedder):
    """A call takes a tenth of a second, and a millisecond for each character."""

    async def call(self, call: ModelCall) -> AsyncIterator[Delta | Completion]:
        self.calls.append(call)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await LoopClock().sleep(0.1 + sum(map(len, call.step.texts)) / 1e4)
        self.running -= 1
        yield Completion(Answer(embeddings=tuple((1.0,) for _ in call.step.texts)), Usage(calls=1))


def test_the_size_of_a_call_is_found_by_how_long_it_takes() -> None:
    """Calls grow to what may be read in that time, are halved beyond, one at a time of one slot: five times as many as alone."""

    async def embedded(longest: float) -> tuple[Reader, float]:
        inner = Reader()
        backend = BatchingBackend(inner, LoopClock(), delay_seconds=0.003, most_texts=256, longest_seconds=longest)
        began = LoopClock().monotonic()
        for wave in range(30):
            await asyncio.gather(*(ask(backend, embed(64 * wave + number, "x" * 100)) for number in range(64)))
        return inner, (LoopClock().monotonic() - began) / (30 * 64)

    async def scenario() -> None:
        inner, seconds = await embedded(0.5)
        late = [sum(map(len, call.step.texts)) for call in inner.calls[len(inner.calls) // 2 :]]
        assert 2_000 <= sum(late) / len(late) <= 4_500  # half a second would be 4,000
        assert inner.most_running == 1
        grown, more = await embedded(5.0)
        assert max(sum(map(len, call.step.texts)) for call in grown.calls) == 6_400
        assert more < seconds < 0.11 / 5

    virtual_loop.run(scenario())


@given(st.lists(st.tuples(st.integers(1, 1 << 22), st.floats(0, 10)), max_size=50))
def test_the_bound_of_a_call_is_bounded(drawn: list[tuple[int, float]]) -> None:
    bound = BatchBound(1.0)
    for characters, seconds in drawn:
        before = bound.characters
        bound.took(characters, seconds)
        assert LEAST_CHARACTERS <= bound.characters <= MOST_CHARACTERS
        assert seconds <= 1.0 or bound.characters <= before
