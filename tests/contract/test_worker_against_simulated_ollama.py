"""The worker's Ollama backend and the simulator agree on Ollama's wire: over HTTP, each operation and each failure."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from infra.lab.simulators.ollama.core import SimulatedOllama
from infra.lab.simulators.ollama.parameters import FailureMode, Failures, Trigger
from services.worker.backends.base import Completion, ModelCall, ModelCallFailed
from services.worker.backends.ollama import OllamaBackend
from services.worker.settings import WorkerSettings
from shared.contracts.base import StepId
from shared.contracts.chat import ChatMessage, FinishReason, Operation, Options
from shared.contracts.failure import FailureKind
from shared.contracts.step import Step
from tests.support.simulated_node import STEADY, http_node, until

QUICK = STEADY.with_(load_gb_per_second=1_000, cached_load_gb_per_second=1_000, decode_gb_per_second=10_000)
NODE = tuple[OllamaBackend, SimulatedOllama]


@pytest.fixture
async def node() -> AsyncIterator[NODE]:
    async with http_node(QUICK) as (url, simulated):
        backend = OllamaBackend(WorkerSettings(url=url))
        yield backend, simulated
        await backend.close()


def chat(text: str = "hi", **changes: object) -> Step:
    base: dict[str, object] = {"job": "j", "id": StepId("0" * 32), "home": 0, "messages": (ChatMessage(role="user", content=text),)}
    return Step.model_validate(base | changes)


async def complete(backend: OllamaBackend, step: Step, model: str = "small") -> Completion:
    *_, last = [piece async for piece in backend.call(ModelCall(step, model))]
    assert isinstance(last, Completion)
    return last


async def test_chat_generate_and_embed(node: NODE) -> None:
    """Every operation answers with text or vectors, counts and timings."""
    backend, _ = node
    answer = await complete(backend, chat())
    assert answer.answer.text
    assert answer.usage.completion_tokens == 10
    assert answer.timings.load_ms > 0
    again = await complete(backend, chat(operation=Operation.GENERATE, prompt="hi", messages=()))
    assert again.answer.text
    vectors = await complete(backend, chat(operation=Operation.EMBED, texts=("a", "b"), messages=()), "embedder")
    assert [len(vector) for vector in vectors.answer.embeddings] == [64, 64]


async def test_how_likely_an_answer_was_is_told_where_it_is_asked_for(node: NODE) -> None:
    """Of the same question the same."""
    backend, _ = node
    first, again = await complete(backend, chat(logprobs=True)), await complete(backend, chat(logprobs=True))
    assert first.answer.mean_logprob is not None
    assert -2 < first.answer.mean_logprob < 0
    assert again.answer.mean_logprob == first.answer.mean_logprob
    assert (await complete(backend, chat())).answer.mean_logprob is None


async def test_limits_and_schemas_are_obeyed(node: NODE) -> None:
    """A token limit ends with `length`; a schema gives JSON of that schema."""
    backend, _ = node
    cut = await complete(backend, chat(options=Options(max_tokens=3)))
    assert (cut.answer.finish_reason, cut.usage.completion_tokens) == (FinishReason.LENGTH, 3)
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    shaped = await complete(backend, chat(format=schema))
    assert isinstance(json.loads(shaped.answer.text)["n"], int)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        (FailureMode.ERROR_500, FailureKind.MODEL_ERROR),
        (FailureMode.BUSY_503, FailureKind.OVERLOADED),
        (FailureMode.MID_STREAM_ERROR, FailureKind.MODEL_ERROR),
        (FailureMode.DISCONNECT, FailureKind.BROKEN_STREAM),
        (FailureMode.TRUNCATED, FailureKind.BROKEN_STREAM),
        (FailureMode.CRASH, FailureKind.MODEL_ERROR),
    ],
)
async def test_each_failure_mode_has_its_kind(node: NODE, mode: FailureMode, kind: FailureKind) -> None:
    """What Ollama does wrong arrives as the failure that the planner's policy knows; the next call is fine."""
    backend, simulated = node
    simulated.change(Failures(triggers=(Trigger(mode=mode, times=1),)))
    with pytest.raises(ModelCallFailed) as failed:
        await complete(backend, chat())
    assert failed.value.kind is kind
    assert (await complete(backend, chat())).answer.text


async def test_an_unknown_model_is_404(node: NODE) -> None:
    """No other model is taken silently."""
    backend, _ = node
    with pytest.raises(ModelCallFailed) as failed:
        await complete(backend, chat(), "absent")
    assert failed.value.kind is FailureKind.UNKNOWN_MODEL


async def test_an_overlong_prompt_is_refused_and_an_answer_ends_with_the_window(node: NODE) -> None:
    """The worker lets no endpoint cut a prompt, nor forget its beginning while it writes."""
    backend, _ = node
    with pytest.raises(ModelCallFailed) as failed:
        await complete(backend, chat(messages=(ChatMessage(role="user", content="word " * 5_000),)))
    assert failed.value.kind is FailureKind.CONTEXT_LENGTH
    nearly = chat(messages=(ChatMessage(role="user", content="x" * 4 * 4_090),), options=Options(max_tokens=64))
    full = await complete(backend, nearly)
    assert full.answer.finish_reason is FinishReason.LENGTH
    assert full.usage.prompt_tokens + full.usage.completion_tokens == 4_096


async def test_models_are_listed_without_a_load_and_marked_simulated(node: NODE) -> None:
    """Probes never load a model; a loaded one is resident afterwards; the version says that this is no real Ollama."""
    backend, _ = node
    models = {model.name.removesuffix(":latest"): model for model in await backend.models()}
    assert not any(model.resident for model in models.values())
    assert models["small"].operations == ("chat", "generate")
    assert models["embedder"].operations == ("embed",)
    assert models["small"].context_length == 32_768
    await complete(backend, chat())
    assert [model.name.removesuffix(":latest") for model in await backend.models() if model.resident] == ["small"]
    assert (await backend.probe()).simulated


async def test_a_model_is_unloaded_and_stays_on_disk(node: NODE) -> None:
    """Chat model and embedder alike; one that is not there is told."""
    backend, _ = node
    await complete(backend, chat())
    await complete(backend, chat(operation=Operation.EMBED, texts=("a",), messages=()), "embedder")
    before = {model.name for model in await backend.models() if model.resident}
    for model in before:
        await backend.unload(model)
    after = await backend.models()
    assert len(before) == 2
    assert not [model.name for model in after if model.resident]
    assert before <= {model.name for model in after}
    with pytest.raises(ModelCallFailed):
        await backend.unload("nobody's")


async def test_a_cancelled_call_frees_the_node() -> None:
    """Law 9 down to the endpoint: after the cancel nothing is in flight there."""
    async with http_node(QUICK.with_(decode_gb_per_second=10)) as (url, simulated):
        backend = OllamaBackend(WorkerSettings(url=url))
        task = asyncio.create_task(complete(backend, chat()))
        await until(lambda: simulated.truth.in_flight == 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: simulated.truth.in_flight == 0)
        await backend.close()
