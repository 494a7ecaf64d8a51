"""Promise: the worker's Ollama backend works with a real Ollama: answers, vectors, schemas, limits, refusals, cancellation.

How: the Ollama that `make ollama` installs, with its tiny random model (free text runs to the limit, schemas give valid JSON) and
all-minilm; the backend alone, no Kafka.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from services.worker.backends.base import Completion, ModelCall, ModelCallFailed
from services.worker.backends.ollama import OllamaBackend
from services.worker.settings import WorkerSettings
from shared.clock import SystemClock
from shared.contracts.base import StepId
from shared.contracts.chat import ChatMessage, FinishReason, Operation, Options
from shared.contracts.failure import FailureKind
from shared.contracts.step import Step
from shared.contracts.tasks import Action, ModelTask
from shared.tasks import ended

pytestmark = [pytest.mark.ollama, pytest.mark.alone]


@pytest.fixture
async def backend(ollama_url: str) -> AsyncIterator[OllamaBackend]:
    made = OllamaBackend(WorkerSettings(url=ollama_url))
    yield made
    await made.close()


def chat(**changes: object) -> Step:
    base: dict[str, object] = {"job": "j", "id": StepId("0" * 32), "home": 0, "messages": (ChatMessage(role="user", content="hi"),)}
    return Step.model_validate(base | changes)


async def complete(backend: OllamaBackend, step: Step, model: str) -> Completion:
    *_, last = [piece async for piece in backend.call(ModelCall(step, model))]
    assert isinstance(last, Completion)
    return last


async def test_chat_stops_at_its_limit_with_counts_and_timings(backend: OllamaBackend) -> None:
    """Temperature 0 and a seed: the same answer twice, of exactly the tokens asked for."""
    step = chat(options=Options(temperature=0, seed=1, max_tokens=12))
    first, again = await complete(backend, step, "tiny"), await complete(backend, step, "tiny")
    assert first.answer.text == again.answer.text != ""
    assert (first.answer.finish_reason, first.usage.completion_tokens) == (FinishReason.LENGTH, 12)
    assert first.usage.prompt_tokens > 0
    assert first.timings.decode_ms > 0


async def test_a_schema_gives_json_of_its_shape(backend: OllamaBackend) -> None:
    """`format` reaches the sampler."""
    schema = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"], "additionalProperties": False}
    done = await complete(backend, chat(format=schema, options=Options(max_tokens=64)), "tiny")
    assert isinstance(json.loads(done.answer.text)["yes"], bool)


async def test_how_likely_an_answer_was(backend: OllamaBackend) -> None:
    """One number, only where it is asked for: at temperature 0 the likeliest tokens, and less than certain."""
    step = chat(options=Options(temperature=0, seed=1, max_tokens=12), logprobs=True)
    first, again = await complete(backend, step, "tiny"), await complete(backend, step, "tiny")
    assert first.answer.mean_logprob is not None
    assert -20 < first.answer.mean_logprob < 0
    assert again.answer.mean_logprob == pytest.approx(first.answer.mean_logprob, abs=0.01)
    assert (await complete(backend, chat(options=Options(max_tokens=3)), "tiny")).answer.mean_logprob is None


@pytest.mark.parametrize("names", [("weather",), ("weather", "time")])
async def test_a_required_call_is_made(backend: OllamaBackend, names: tuple[str, ...]) -> None:
    """Ollama has no word for it; the schema of the answer leaves the weakest model no other way."""
    parameters = {"type": "object", "properties": {"place": {"type": "string", "enum": ["Oslo", "Rome"]}}, "required": ["place"]}
    tools = tuple({"type": "function", "function": {"name": name, "parameters": parameters}} for name in names)
    done = await complete(backend, chat(tools=tools, tool_choice="required", options=Options(max_tokens=128)), "tiny")
    [call] = done.answer.tool_calls
    assert call["function"]["name"] in names
    assert json.loads(call["function"]["arguments"])["place"] in ("Oslo", "Rome")
    assert (done.answer.text, done.answer.finish_reason) == ("", FinishReason.TOOL_CALLS)


async def test_embeddings(backend: OllamaBackend) -> None:
    """One vector of the model's width for each text."""
    done = await complete(backend, chat(operation=Operation.EMBED, texts=("a cat", "a dog"), messages=()), "all-minilm")
    assert [len(vector) for vector in done.answer.embeddings] == [384, 384]


async def test_models_say_what_they_can_do(backend: OllamaBackend) -> None:
    """Operations from `show`, and no simulated version."""
    operations = {model.name.removesuffix(":latest"): model.operations for model in await backend.models()}
    assert operations["all-minilm"] == ("embed",)
    assert "chat" in operations["tiny"]
    assert not (await backend.probe()).simulated


async def test_an_unknown_model_is_refused_as_such(backend: OllamaBackend) -> None:
    """A model that is not there is told apart from every other failure."""
    with pytest.raises(ModelCallFailed) as unknown:
        await complete(backend, chat(), "absent")
    assert unknown.value.kind is FailureKind.UNKNOWN_MODEL


async def test_a_cancelled_call_frees_its_slot(backend: OllamaBackend) -> None:
    """Two slots, four long calls cancelled: a short call afterwards does not wait for them."""
    endless = chat(options=Options(max_tokens=1_000_000))
    tasks = [asyncio.create_task(complete(backend, endless, "tiny")) for _ in range(4)]
    await asyncio.wait(tasks, timeout=0.5)
    await ended(*tasks)
    async with asyncio.timeout(20):
        await complete(backend, chat(options=Options(max_tokens=2)), "tiny")


async def test_an_answer_that_is_begun_is_continued(backend: OllamaBackend) -> None:
    """Beginning and rest are the answer that the model gives in one go, also where the model's template closes the last message.

    Greedy, so that the next word is the one most likely; a penalty sees less, so later words may differ. Chat and a prompt alike: a
    prompt is continued as a conversation.
    """
    greedy = Options(temperature=0, seed=1, max_tokens=30, repeat_penalty=1.2)
    question = "Write one sentence about the sea."
    for step in (
        chat(messages=(ChatMessage(role="user", content=question),), options=greedy),
        chat(operation=Operation.GENERATE, prompt=question, messages=(), options=greedy),
    ):
        whole = (await complete(backend, step, "gemma3:270m")).answer.text
        words = whole.split(" ")
        begun = " ".join(words[: len(words) // 2])
        rest = (await complete(backend, step.model_copy(update={"prefix": begun}), "gemma3:270m")).answer.text
        print(repr(begun), repr(rest))
        assert rest
        assert (begun + rest).startswith(whole[: len(begun) + 6])


def task(action: Action, model: str, **more: str) -> Step:
    return chat(operation=Operation.MANAGE, messages=(), model=model, task=ModelTask(action=action, **more))


async def there(backend: OllamaBackend) -> dict[str, tuple[bool, bool]]:
    """Resident, and pinned."""
    return {model.name: (model.resident, model.pinned) for model in await backend.models()}


async def test_models_are_copied_loaded_pinned_and_deleted(backend: OllamaBackend, ollama_url: str) -> None:
    """Each twice without harm; a pin is known to the next boot. A pull needs a registry, which no test has: it is refused typed."""
    copy = "tiny-copy:latest"
    for _ in range(2):
        await complete(backend, task(Action.COPY, "tiny", to=copy), "tiny")
    assert (await there(backend))[copy] == (False, False)
    for action, shown in ((Action.LOAD, (True, False)), (Action.PIN, (True, True))):
        await complete(backend, task(action, copy), copy)
        assert (await there(backend))[copy] == shown
    await complete(backend, chat(options=Options(max_tokens=2)), copy)
    later = OllamaBackend(WorkerSettings(url=ollama_url))
    assert (await there(later))[copy] == (True, True)
    await later.close()
    await complete(backend, task(Action.UNPIN, copy), copy)
    await complete(backend, task(Action.LOAD, "all-minilm"), "all-minilm")
    assert (await there(backend))["all-minilm:latest"][0]
    for _ in range(2):
        await complete(backend, task(Action.UNLOAD, copy), copy)
    for _ in range(100):  # it unloads behind its answer
        if not (await there(backend))[copy][0]:
            break
        await SystemClock().sleep(0.1)
    assert not (await there(backend))[copy][0]
    for _ in range(2):
        await complete(backend, task(Action.DELETE, copy), copy)
    assert copy not in await there(backend)
    with pytest.raises(ModelCallFailed) as caught:
        await complete(backend, task(Action.PULL, "nobody-has/this:1"), "nobody-has/this:1")
    assert caught.value.kind in (FailureKind.BAD_REQUEST, FailureKind.MODEL_ERROR)


async def test_models_are_unloaded_so_that_the_memory_is_the_owners(backend: OllamaBackend) -> None:
    """A chat model and an embedder, by the same call; both stay on disk."""
    await complete(backend, chat(options=Options(max_tokens=3)), "tiny")
    await complete(backend, chat(operation=Operation.EMBED, texts=("a cat",), messages=()), "all-minilm")
    loaded = [model.name for model in await backend.models() if model.resident]  # and what other tests have left there
    assert {"tiny:latest", "all-minilm:latest"} <= set(loaded)
    for model in loaded:
        await backend.unload(model)
    for _ in range(50):
        found = await backend.models()
        if not any(model.resident for model in found):
            break
        await SystemClock().sleep(0.1)
    assert not [model.name for model in found if model.resident]
    assert {model.name for model in found} >= set(loaded)
