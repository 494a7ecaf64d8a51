"""Models are in memory that nobody waits for: pinned ones, copies that cards ask for, likely ones. Whole workers on the in-memory log, each
of which decides for itself.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from services.worker.backends.base import BackendProbe, ModelCallFailed
from services.worker.warming import RECENT_SECONDS, WarmModels
from shared.agents.table import Declarations
from shared.clock import LoopClock
from shared.contracts import headers, maintenance
from shared.contracts.agents import ModelCard
from shared.contracts.failure import FailureKind
from shared.contracts.maintenance import Maintenance
from shared.contracts.node import HOURS, Node, NodeModel
from shared.contracts.outcome import StepSucceeded
from shared.contracts.tasks import PIN, Action, Pin
from shared.placement.copies import by_model
from shared.processing.registry import registry_key
from tests.unit.worker.scripted_backend import ScriptedBackend
from tests.unit.worker.test_chores import task
from tests.unit.worker.world import NODE, World, play, step

ENTRY = Pin(by="admin", at=1.0).to_bytes()


@dataclass
class Ollama(ScriptedBackend):
    """With one place: what it was asked for, or told to load, last."""

    loaded: list[str] = field(default_factory=list)
    warmed: list[str] = field(default_factory=list)
    pinned: set[str] = field(default_factory=set)
    unloaded: list[str] = field(default_factory=list)
    refuses: Exception | None = None
    load_seconds: dict[str, float] = field(default_factory=dict)

    async def probe(self) -> BackendProbe:
        return BackendProbe(version="0.34.0", manages=True)

    async def models(self) -> tuple[NodeModel, ...]:
        if self.calls:
            last = self.calls[-1]
            self.loaded = [] if last.step.task is not None and last.step.task.action is Action.UNLOAD else [last.model]
            self.calls.clear()
        return tuple(NodeModel(name=name, resident=name in self.loaded, pinned=name in self.pinned) for name in self.known)

    async def warm(self, model: str) -> None:
        self.warmed.append(model)
        if self.refuses is not None:
            raise self.refuses
        await LoopClock().sleep(0.0 if model in self.loaded else self.load_seconds.get(model, 0.0))
        self.loaded = [model]

    async def unload(self, model: str) -> None:
        self.unloaded.append(model)
        self.loaded.remove(model)


def declare(world: World, key: str, value: bytes | None) -> None:
    world.write(world.topics.registry, 0, value, headers.envelope("pin"), key.encode())


def card(world: World, copies: int) -> None:
    """As an administrator declares it."""
    for key, value in Declarations().to_declare("card", "c", ModelCard(model="small", copies=copies), at=1.0, by="admin").items():
        world.write(world.topics.registry, 0, value, headers.envelope("card"), registry_key("card", key))


async def outlives(world: World, backend: Ollama) -> None:
    """A new worker with a server that has nothing in memory, out of service at first."""
    async with world.worker(backend) as worker:
        await world.clock.sleep(30)
        assert backend.warmed == []
        declare(world, f"{maintenance.KIND}/{NODE}", None)
        await world.until(lambda: backend.loaded == ["other"])
        declare(world, f"{maintenance.KIND}/{NODE}", Maintenance(by="admin", at=1.0).to_bytes())
        await world.clock.sleep(100)
        assert backend.warmed == ["other"]
        await worker.end()


def test_a_pin_outlives_worker_and_server() -> None:
    """Both begin anew: what the registry says comes back, once nothing speaks against it; until the entry goes."""

    async def scenario(world: World) -> None:
        declare(world, f"{PIN}/{NODE}/other", ENTRY)
        declare(world, f"{PIN}/elsewhere/small", ENTRY)
        declare(world, f"{maintenance.KIND}/{NODE}", Maintenance(by="admin", at=1.0).to_bytes())
        for _ in range(2):
            await outlives(world, Ollama())

    play(scenario)


def test_a_pin_is_quiet_when_asked_to_be() -> None:
    """`Retry-After` of the load pauses the node; what fails is tried more and more seldom."""

    async def scenario(world: World) -> None:
        declare(world, f"{PIN}/{NODE}/small", ENTRY)
        backend = Ollama(refuses=ModelCallFailed(FailureKind.OVERLOADED, "quiet", retry_after_seconds=200.0))
        async with world.worker(backend) as worker:
            await world.until(lambda: backend.warmed == ["small"])
            assert worker.service.attempts.health.pause_seconds > 190
            await world.clock.sleep(190)
            assert backend.warmed == ["small"]
            backend.refuses = ModelCallFailed(FailureKind.MODEL_ERROR, "no")
            await world.clock.sleep(2_000)
            assert 3 <= len(backend.warmed) <= 6

    play(scenario)


def test_so_many_copies_are_kept_and_no_more() -> None:
    """Two of three nodes load it; one of them dies, and the third does. What is asked for elsewhere stays there."""

    async def scenario(world: World) -> None:
        nodes = {name: Ollama() for name in ("n1", "n2", "n3")}
        card(world, 2)

        def loaded() -> list[str]:
            return [name for name, backend in nodes.items() if backend.loaded == ["small"]]

        async with AsyncExitStack() as stack:
            running = {
                name: await stack.enter_async_context(world.worker(backend, node=name, process=name, most_models=1))
                for name, backend in nodes.items()
            }
            await world.until(lambda: len(loaded()) == 2)
            await world.clock.sleep(120)
            assert loaded() == ["n1", "n2"]
            assert not nodes["n3"].warmed
            running["n1"].task.cancel()
            await world.until(lambda: nodes["n3"].loaded == ["small"], 90)
            assert 1 <= len(nodes["n2"].warmed) <= 6  # told to stay each minute
            card(world, 0)
            await world.clock.sleep(10)
            before = len(nodes["n2"].warmed)
            await world.clock.sleep(300)
            assert len(nodes["n2"].warmed) == before

    play(scenario)


def test_what_others_are_asked_for_is_loaded_by_one() -> None:
    """A node is asked for a model often, and dies: one of the two others has it before anybody asks; nothing in use is put out."""

    async def scenario(world: World) -> None:
        nodes = {name: Ollama() for name in ("n1", "n2", "n3")}
        async with AsyncExitStack() as stack:
            running = {
                name: await stack.enter_async_context(world.worker(backend, node=name, process=name, most_models=1))
                for name, backend in nodes.items()
            }
            for number in range(5):
                world.route(step(number, model="other"), node="n1", mailbox=running["n1"].service.reader.number or 0)
                world.route(step(10 + number), node="n2", mailbox=running["n2"].service.reader.number or 0)
                await world.clock.sleep(20)
            assert len(world.outcomes(StepSucceeded)) == 10
            await world.clock.sleep(70)
            assert {name: backend.loaded for name, backend in nodes.items()} == {"n1": ["other"], "n2": ["small"], "n3": []}
            nodes["n1"].loaded.clear()
            nodes["n1"].reachable = False
            running["n1"].task.cancel()
            await world.until(lambda: nodes["n3"].loaded == ["other"], 90)
            assert nodes["n2"].loaded == ["small"]
            assert set(nodes["n2"].warmed) == {"small"}  # it is told to stay, and nothing else

    play(scenario)


def test_models_that_put_each_other_out_are_loaded_ever_more_seldom() -> None:
    """The server holds one, and says so nowhere."""

    async def scenario(world: World) -> None:
        for model in ("small", "other"):
            declare(world, f"{PIN}/{NODE}/{model}", ENTRY)
        backend = Ollama()
        async with world.worker(backend):
            await world.clock.sleep(1_800)
            assert 6 <= len(backend.warmed) <= 12

    play(scenario)


def test_a_load_that_takes_long_is_nobody_elses() -> None:
    """It is told while it goes on, so no other node thinks that a copy is missing."""

    async def scenario(world: World) -> None:
        nodes = {name: Ollama(load_seconds={"small": 120.0}) for name in ("n1", "n2", "n3")}
        card(world, 1)
        async with AsyncExitStack() as stack:
            for name, backend in nodes.items():
                await stack.enter_async_context(world.worker(backend, node=name, process=name))
            await world.until(lambda: any(backend.warmed for backend in nodes.values()))
            await world.clock.sleep(200)
            assert [name for name, backend in nodes.items() if backend.warmed] == ["n1"]
            nodes["n1"].loaded.clear()
            nodes["n1"].refuses = ModelCallFailed(FailureKind.MODEL_ERROR, "no")
            await world.until(lambda: bool(nodes["n2"].warmed), 90)  # n1 does not do its part
            assert not nodes["n3"].warmed

    play(scenario)


@pytest.mark.parametrize("fault", ["hangs", "raises", "unreadable"])
def test_no_fault_of_one_model_ends_the_keeping_of_others(fault: str) -> None:
    """A load without an end, an error that nobody has thought of, a card of which only the alias could be read."""

    async def scenario(world: World) -> None:
        backend = Ollama()
        if fault == "unreadable":
            value = Declarations().to_declare("card", "c", ModelCard(model="small"), at=1.0, by="admin")["c:latest"]
            world.write(world.topics.registry, 0, value, headers.envelope("card"), registry_key("card", "c:latest"))
        else:
            backend.load_seconds["small"] = 1e9 if fault == "hangs" else 0.0
            backend.refuses = RuntimeError("x") if fault == "raises" else None
            declare(world, f"{PIN}/{NODE}/small", ENTRY)
        async with world.worker(backend, first_token_timeout_seconds=50.0) as worker:
            await world.clock.sleep(20)
            assert bool(backend.warmed) == (fault != "unreadable")
            backend.refuses = None
            declare(world, f"{PIN}/{NODE}/other", ENTRY)
            await world.until(lambda: backend.loaded == ["other"], 90)
            await worker.end()

    play(scenario)


def test_what_an_administrator_puts_out_is_not_brought_back_at_once() -> None:
    """Though it is likely to be asked for."""

    async def scenario(world: World) -> None:
        backend = Ollama()
        async with world.worker(backend):
            world.route(*(step(number) for number in range(5)))
            await world.until(lambda: backend.warmed == ["small"], 90)
            world.route(task(10, Action.UNLOAD, "small"))
            await world.until(lambda: not backend.loaded)
            before = len(backend.warmed)
            await world.clock.sleep(RECENT_SECONDS - 30)
            assert (backend.loaded, len(backend.warmed)) == ([], before)

    play(scenario)


def test_what_comes_when_the_machine_is_wanted_leaves_again() -> None:
    async def scenario(world: World) -> None:
        declare(world, f"{PIN}/{NODE}/small", ENTRY)
        backend = Ollama(load_seconds={"small": 50.0})
        async with world.worker(backend) as worker:
            await world.until(lambda: backend.warmed == ["small"])
            worker.service.attempts.close("the owner is back")
            await world.until(lambda: backend.unloaded == ["small"])

    play(scenario)


def test_what_was_short_before_a_long_call_says_nothing_behind_it() -> None:
    """Else all that were busy meanwhile load at once."""

    async def scenario(world: World) -> None:
        there = {"boot": "b", "mailbox": 0, "backend": "ollama", "manages": "chat", "at": 0.0, "models": (NodeModel(name="m"),)}
        able = by_model([Node.model_validate({"id": name, **there}) for name in ("a", NODE)])
        keeping, asked = world.service(Ollama()).keeping, ("m", True)
        assert [keeping._turns(able, {asked: 1}, now) for now in (100.0, 120.0, 131.0)] == [set(), set(), {asked}]
        assert [keeping._turns(able, {asked: 1}, now) for now in (500.0, 520.0, 531.0)] == [set(), set(), {asked}]

    play(scenario)


def test_a_restart_leaves_the_sum_of_the_demand_as_it_is() -> None:
    """Of ten others one is asked."""
    begins = WarmModels()
    begins.adopt([{"m": (100,) * HOURS}, *({} for _ in range(9))], 0.0)
    assert begins.told(["m"], 0.0) == {"m": (10,) * HOURS}
