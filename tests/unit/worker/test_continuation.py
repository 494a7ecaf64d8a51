"""A broken answer is continued: the model is given its beginning, the caller gets the rest, the outcome is the whole."""

from __future__ import annotations

from typing import Any

import pytest

from services.worker.backends.base import ModelCall
from services.worker.backends.in_process import InProcessBackend, answer_text
from services.worker.backends.ollama import OllamaBackend, request
from services.worker.backends.openai import OpenAIBackend
from services.worker.backends.openai import request as openai_request
from services.worker.continuation import messages_of, tokens_left
from services.worker.settings import WorkerSettings
from shared.clock import LoopClock
from shared.contracts.chat import ChatMessage, FinishReason, Operation, Options
from shared.contracts.failure import FailureKind
from shared.contracts.job import ReplyTo
from shared.contracts.outcome import StepFailed, StepSucceeded
from tests.unit.worker.calling import ask, failure_of
from tests.unit.worker.fake_endpoint import Reply, fake_endpoint
from tests.unit.worker.scripted_backend import Script, ScriptedBackend
from tests.unit.worker.world import World, play, step

SETTINGS = WorkerSettings(url="http://nobody:1")


def wire(**changes: Any) -> list[dict[str, Any]]:
    """The messages that Ollama is sent."""
    return list(request(ModelCall(step(1, **changes), "small"), SETTINGS)["messages"])


def test_the_beginning_of_the_answer_is_the_last_message() -> None:
    """Of a conversation, of a prompt with its system message, and after the caller's own beginning."""
    user, system = ChatMessage(role="user", content="tell"), ChatMessage(role="system", content="be brief")
    begun = {"role": "assistant", "content": "Once up"}
    assert wire(messages=(user,), prefix="Once up") == [{"role": "user", "content": "tell"}, begun]
    prompted = wire(messages=(system,), prompt="tell", operation=Operation.GENERATE, prefix="Once up")
    assert [m["role"] for m in prompted] == ["system", "user", "assistant"]
    own = ChatMessage(role="assistant", content="Well: ")
    assert wire(messages=(user, own), prefix="Once up")[1:] == [{"role": "assistant", "content": "Well: Once up"}]


def test_without_a_beginning_nothing_changes() -> None:
    """The common case."""
    user = ChatMessage(role="user", content="tell")
    assert messages_of(step(1, messages=(user,))) == (user,)
    assert request(ModelCall(step(1, prompt="tell", messages=(), operation=Operation.GENERATE), "m"), SETTINGS)["prompt"] == "tell"


def test_what_was_written_counts_against_the_token_limit() -> None:
    """As the nodes counted it; without a count by what it has at least, so that the whole is never shorter. Never nothing."""
    begun = {"prefix": "uncommonly long words, notwithstanding"}
    assert tokens_left(step(1, **begun, prefix_tokens=9), 24) == 15
    assert tokens_left(step(1, **begun), 24) == 20
    assert tokens_left(step(1, **begun, prefix_tokens=24), 24) == 1
    assert tokens_left(step(1), 24) == 24
    body = request(ModelCall(step(1, **begun, prefix_tokens=9, options=Options(max_tokens=50)), "m"), SETTINGS)
    assert body["options"]["num_predict"] == 41


def test_an_openai_endpoint_is_told_in_its_own_way() -> None:
    """vLLM wants a flag; llama.cpp needs only the message; completions are plain text."""
    call = ModelCall(step(1, prefix="Once up"), "m")
    flagged = openai_request(call, SETTINGS.model_copy(update={"continues": "flag"}))
    assert (flagged["continue_final_message"], flagged["add_generation_prompt"]) == (True, False)
    plain = openai_request(call, SETTINGS.model_copy(update={"continues": "trailing"}))
    assert "continue_final_message" not in plain
    assert plain["messages"][-1] == flagged["messages"][-1] == {"role": "assistant", "content": "Once up"}
    prompted = step(1, messages=(), prompt="tell: ", operation=Operation.GENERATE, prefix="Once up")
    assert openai_request(ModelCall(prompted, "m"), SETTINGS)["prompt"] == "tell: Once up"


async def test_an_endpoint_that_cannot_continue_says_so_before_it_is_called() -> None:
    """A kind of failure that is tried on another node."""
    backend = OpenAIBackend(WorkerSettings(backend="openai", url="http://nobody.invalid:1"), LoopClock())
    assert (await failure_of(backend, prefix="Once up")).kind is FailureKind.BROKEN_STREAM


async def test_the_endpoint_inside_the_worker_goes_on_where_it_stopped() -> None:
    """Deterministic, so beginning and rest join to the same answer on any node."""
    whole = answer_text(step(1))
    deltas, completion = await ask(InProcessBackend(("small",)), prefix=whole[:9], stream=True)
    assert whole[:9] + completion.answer.text == whole
    assert "".join(delta.text for delta in deltas) == completion.answer.text


def streaming(world: World, number: int, **changes: Any) -> Any:
    reply = ReplyTo(topic=world.topics.replies, partition=0, correlation=b"c", multiplex=True)
    return step(number, stream=True, reply=reply, attempt=2, **changes)


def test_chunks_go_on_at_the_offset_and_the_outcome_is_the_whole_text() -> None:
    """The reader sees where the attempt goes on; the planner gets beginning and rest."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend(Script(pieces=("on", " a", " time")))):
            world.route(streaming(world, 1, prefix="Once up"))
            await world.until(lambda: bool(world.outcomes(StepSucceeded)) and bool(world.chunks()))
            [done] = world.outcomes(StepSucceeded)
            assert done.answer.text == "Once upon a time"
            assert "".join(chunk.text for chunk in world.chunks()) == "on a time"
            assert world.chunks()[0].offset == 7
            assert {chunk.continues_from for chunk in world.chunks()} == {7}

    play(scenario)


def test_an_answer_that_has_all_its_tokens_is_complete() -> None:
    """The worker that wrote the last one died before it said so: nothing is asked of the model, which would write one more."""

    async def scenario(world: World) -> None:
        backend = ScriptedBackend()
        async with world.worker(backend):
            world.route(streaming(world, 1, prefix="Once up", prefix_tokens=2, options=Options(max_tokens=2)))
            await world.until(lambda: bool(world.outcomes(StepSucceeded)))
            [done] = world.outcomes(StepSucceeded)
            assert (done.answer.text, done.answer.finish_reason, done.usage.calls) == ("Once up", FinishReason.LENGTH, 0)
            assert backend.calls == []

    play(scenario)


@pytest.mark.parametrize("format_", ["json", {"type": "object"}])
def test_a_fixed_format_is_not_continued(format_: Any) -> None:
    """A grammar would begin anew in the middle: a typed failure that no other node can mend."""

    async def scenario(world: World) -> None:
        backend = ScriptedBackend()
        async with world.worker(backend):
            world.route(streaming(world, 1, prefix='{"a', format=format_))
            await world.until(lambda: bool(world.outcomes(StepFailed)))
            [failed] = world.outcomes(StepFailed)
            assert failed.failure.kind is FailureKind.UNSUPPORTED
            assert backend.calls == []

    play(scenario)


RENDERED = b'{"message":{"role":"","content":""},"done":false,"_debug_info":{"rendered_template":"Q: tell A: "}}'
DONE = b'{"response":"on a time","done":false}\n{"done":true,"done_reason":"stop","eval_count":3}\n'


async def test_ollama_is_given_its_own_rendering_and_the_beginning() -> None:
    """Whatever the template does with a last message of the assistant: the model reads the question and its own words so far."""
    async with fake_endpoint() as fake:
        fake.ndjson("/api/chat", RENDERED)
        fake.replies["/api/generate"] = Reply((DONE,))
        backend = OllamaBackend(WorkerSettings(url=fake.url))
        _, completion = await ask(backend, prefix="Once up")
        await backend.close()
    (_, asked, _), (path, body, _) = fake.asked
    assert (asked["_debug_render_only"], asked["stream"], [m["role"] for m in asked["messages"]]) == (True, False, ["user"])
    assert (path, body["raw"], body["prompt"], body["stream"]) == ("/api/generate", True, "Q: tell A: Once up", True)
    assert completion.answer.text == "on a time"


async def test_an_ollama_that_does_not_tell_gets_the_beginning_as_the_last_message() -> None:
    """So do tools and images, which a plain text cannot carry."""
    async with fake_endpoint() as fake:
        fake.ndjson("/api/chat", b'{"message":{"role":"assistant","content":"on"},"done":true,"done_reason":"stop"}')
        backend = OllamaBackend(WorkerSettings(url=fake.url))
        await ask(backend, prefix="Once up")
        assert [path for path, _, _ in fake.asked] == ["/api/chat", "/api/chat"]
        await ask(backend, prefix="Once up", tools=({"type": "function"},))
        await backend.close()
    assert len(fake.asked) == 3
    for _, body, _ in fake.asked[1:]:
        assert body["messages"][-1] == {"role": "assistant", "content": "Once up"}
