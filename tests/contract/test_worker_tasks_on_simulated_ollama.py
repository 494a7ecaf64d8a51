"""What a worker does to an endpoint's models, over HTTP: each action twice without harm, a pull that goes on where it broke, refusals."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from infra.lab.simulators.ollama.core import SimulatedOllama
from infra.lab.simulators.ollama.parameters import ModelParameters
from services.worker.backends.base import Completion, Delta, ModelCall, ModelCallFailed
from services.worker.backends.ollama import OllamaBackend
from services.worker.settings import WorkerSettings
from shared.contracts.base import StepId
from shared.contracts.chat import Operation
from shared.contracts.failure import FailureKind
from shared.contracts.step import Step
from shared.contracts.tasks import Action, ModelTask, TaskProgress
from tests.support.simulated_node import STEADY, http_node

SIZE = 1_000_000_000
NODE = tuple[OllamaBackend, SimulatedOllama, str]


@pytest.fixture
async def node() -> AsyncIterator[NODE]:
    library = (ModelParameters(name="new:1", size_gb=1.0),)
    quick = STEADY.with_(load_gb_per_second=1_000, cached_load_gb_per_second=1_000, library=library, pull_gb_per_second=4.0)
    async with http_node(quick) as (url, simulated):
        backend = OllamaBackend(WorkerSettings(url=url))
        yield backend, simulated, url
        await backend.close()


def call(action: Action, model: str, **more: Any) -> ModelCall:
    task = ModelTask(action=action, **more)
    step = Step(job="j", id=StepId("0" * 32), home=0, operation=Operation.MANAGE, model=model, task=task)
    return ModelCall(step, model, node="n")


async def done(backend: OllamaBackend, action: Action, model: str, **more: Any) -> list[TaskProgress]:
    *pieces, last = [piece async for piece in backend.call(call(action, model, **more))]
    assert isinstance(last, Completion)
    assert last.answer.text == "done"
    progress = [piece.progress for piece in pieces if isinstance(piece, Delta) and piece.progress]
    assert len(progress) == len(pieces)
    return progress


async def names(backend: OllamaBackend) -> dict[str, tuple[bool, bool]]:
    return {model.name: (model.resident, model.pinned) for model in await backend.models()}


async def test_a_pull_tells_how_far_it_is_and_may_be_said_again(node: NODE) -> None:
    backend, simulated, _ = node
    told = await done(backend, Action.PULL, "new:1")
    assert [each.status for each in (told[0], *told[-3:])] == ["pulling manifest", "verifying sha256 digest", "writing manifest", "success"]
    sizes = [each.completed for each in told if each.total == SIZE]
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (0, SIZE)
    assert "new:1" in await names(backend)
    again = await done(backend, Action.PULL, "new:1")
    assert [each.status for each in again] == ["pulling manifest", "verifying sha256 digest", "writing manifest", "success"]
    assert simulated.truth.pulled_bytes == SIZE


@pytest.mark.parametrize("how", ["the worker leaves", "the server dies"])
async def test_a_pull_that_broke_goes_on_where_it_was(node: NODE, how: str) -> None:
    """What was fetched is not fetched again."""
    backend, simulated, url = node
    pieces, half = backend.call(call(Action.PULL, "new:1")), 0
    async for piece in pieces:
        assert isinstance(piece, Delta)
        half = piece.progress.completed if piece.progress else 0
        if half > SIZE // 3:
            break
    if how == "the server dies":
        async with httpx.AsyncClient(base_url=url) as client:
            await client.post("/control", json={"restart": True})
        with pytest.raises(ModelCallFailed) as caught:
            async for _ in pieces:
                pass
        assert caught.value.kind is FailureKind.BROKEN_STREAM
    await pieces.aclose()  # type: ignore[attr-defined]
    told = await done(backend, Action.PULL, "new:1")
    assert next(each.completed for each in told if each.total) >= half
    assert simulated.truth.pulled_bytes == SIZE


async def test_models_are_copied_and_deleted_twice_without_harm(node: NODE) -> None:
    backend, _, _ = node
    for _ in range(2):
        await done(backend, Action.COPY, "small", to="copy:1")
        assert "copy:1" in await names(backend)
    for _ in range(2):
        await done(backend, Action.DELETE, "copy:1")
        assert "copy:1" not in await names(backend)


async def test_models_come_and_go_from_memory_and_stay_when_pinned(node: NODE) -> None:
    """What embeds, too. A pin is in each later call, and is known to the next boot of the worker."""
    backend, _, url = node
    for model in ("small:latest", "embedder:latest"):
        await done(backend, Action.LOAD, model)
        assert (await names(backend))[model] == (True, False)
    await done(backend, Action.PIN, "small:latest")
    plain = Step(job="j", id=StepId("1" * 32), home=0, operation=Operation.GENERATE, prompt="hi")
    assert [piece async for piece in backend.call(ModelCall(plain, "small:latest"))]
    async with httpx.AsyncClient(base_url=url) as client:
        left = {each["name"]: each["expires_at"] for each in (await client.get("/api/ps")).json()["models"]}
    assert left["small:latest"] > "2100" > left["embedder:latest"]
    later = OllamaBackend(WorkerSettings(url=url))
    assert (await names(later))["small:latest"] == (True, True)
    await later.close()
    await done(backend, Action.UNPIN, "small:latest")
    assert (await names(backend))["small:latest"] == (True, False)
    for _ in range(2):
        await done(backend, Action.UNLOAD, "small:latest")
        assert (await names(backend))["small:latest"] == (False, False)


async def test_what_is_warmed_is_in_memory_and_stays_where_it_is_pinned(node: NODE) -> None:
    """Also with a server that has begun anew; what only embeds, too; what is not there is a failure. A probe loads nothing."""
    backend, _, url = node
    await done(backend, Action.PIN, "small:latest")
    async with httpx.AsyncClient(base_url=url) as client:
        await client.post("/control", json={"restart": True})
        for _ in range(2):
            assert (await names(backend))["small:latest"] == (False, True)
        for model in ("small:latest", "embedder:latest"):
            await backend.warm(model)
        stay = {model["name"]: model["expires_at"] for model in (await client.get("/api/ps")).json()["models"]}
    assert stay["small:latest"] > "2100" > stay["embedder:latest"]
    with pytest.raises(ModelCallFailed):
        await backend.warm("nobody:1")


@pytest.mark.parametrize(
    ("action", "model", "more", "kind"),
    [
        (Action.PULL, "nobody:1", {}, FailureKind.BAD_REQUEST),
        (Action.COPY, "nobody:1", {"to": "x"}, FailureKind.UNKNOWN_MODEL),
        (Action.LOAD, "nobody:1", {}, FailureKind.UNKNOWN_MODEL),
    ],
)
async def test_what_is_not_there_is_said(node: NODE, action: Action, model: str, more: dict[str, Any], kind: FailureKind) -> None:
    """Of a pull for good: a registry that does not have it will not have it at the next try."""
    with pytest.raises(ModelCallFailed) as caught:
        await done(node[0], action, model, **more)
    assert caught.value.kind is kind
