"""What changes at a node is in Kafka within one heartbeat (10 s), and what an administrator says of it holds for every boot."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from services.worker.backends.base import BackendProbe, ModelCallFailed
from services.worker.registration import MODELS_BYTES, _fitting, signature
from services.worker.seen import Load
from shared.contracts import headers
from shared.contracts.base import MOST, MOST_COST, RECORD_BYTES
from shared.contracts.chat import Options
from shared.contracts.failure import FailureKind
from shared.contracts.maintenance import KIND, Maintenance
from shared.contracts.node import MOST_ADVICE, MOST_GPUS, Advice, Gpu, Hardware, Node, NodeModel
from shared.contracts.outcome import StepFailed, StepReleased, StepSucceeded
from shared.contracts.usage import Price
from shared.kafka.port import TopicPartition
from shared.processing.registry import registry_key
from tests.unit.worker.scripted_backend import Script, ScriptedBackend
from tests.unit.worker.world import NODE, Running, World, play, step

HEARTBEAT = 10.0


class Endpoint(ScriptedBackend):
    """Whose models come, go and are loaded; and of whose members one may be dead."""

    resident: tuple[str, ...] = ()
    dead: str = ""

    async def models(self) -> tuple[NodeModel, ...]:
        return tuple(model.changed(resident=model.name in self.resident) for model in await super().models())

    async def probe(self) -> BackendProbe:
        if self.dead:
            raise ModelCallFailed(FailureKind.NODE_UNREACHABLE, f"{self.dead} does not answer")
        return await super().probe()


async def told(world: World, condition: Callable[[Node], bool]) -> float:
    """Seconds until the newest record says so."""
    began = world.clock.monotonic()
    await world.until(lambda: condition(world.nodes()[-1]), seconds=HEARTBEAT)
    return world.clock.monotonic() - began


def test_a_model_that_comes_goes_or_is_loaded_is_told() -> None:
    """By whomever: another program's doing is seen, too."""

    async def scenario(world: World) -> None:
        backend = Endpoint()
        async with world.worker(backend):
            for moment in range(12):  # whenever it happens between two looks
                await world.clock.sleep(moment + 0.1)
                backend.known = ("small", f"new-{moment}")
                await told(world, lambda node: [model.name for model in node.models] == list(backend.known))
                backend.resident = backend.known[1:]
                await told(world, lambda node: [model.resident for model in node.models] == [False, True])
                await world.until(lambda: world.credits()[-1].resident == backend.resident, seconds=2.0)

    play(scenario)


def test_a_node_that_joins_leaves_or_dies_is_told() -> None:
    """Joined: its record; left: its tombstone. Who dies falls silent: its credits came each second."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend()) as worker:
            assert world.nodes()[-1].models
            before = len(world.credits())
            await world.clock.sleep(5.0)
            assert len(world.credits()) >= before + 5
            began = world.clock.monotonic()
            await worker.end()
            assert world.clock.monotonic() - began < HEARTBEAT
            [*_, last] = world.log.existing(TopicPartition(world.topics.nodes, 0)).records
            assert (last.key, last.value) == (NODE.encode(), None)

    play(scenario)


def test_a_dead_member_takes_the_model_away_until_it_returns() -> None:
    """What waits is given back, nothing is offered, and the record says which one; back within a second or two of its return."""

    async def scenario(world: World) -> None:
        backend = Endpoint(Script(pause=3.0))
        async with world.worker(backend, slots=1, members=("10.0.0.2:50052", "10.0.0.3:50052"), vram_bytes=48 * 2**30) as worker:
            world.presence("router-1", 1)
            assert (world.nodes()[-1].hardware.members, world.nodes()[-1].hardware.vram_bytes) == (2, 48 * 2**30)
            backend.dead = "10.0.0.3:50052"
            await told(world, lambda node: not node.reachable)
            assert [one.text for one in world.nodes()[-1].advice] == ["10.0.0.3:50052 does not answer"]
            assert not worker.service.readiness().ready
            await world.clock.sleep(1.5)
            assert world.credits()[-1].offers == {}
            backend.dead = "10.0.0.2:50052"
            await told(world, lambda node: "10.0.0.2" in node.advice[0].text)
            backend.dead = ""
            assert await told(world, lambda node: node.reachable) < 3.0
            assert world.nodes()[-1].advice == ()
            world.presence("router-1", 1)
            await world.until(lambda: world.credits()[-1].offers == {"router-1": 1}, seconds=2.0)

    play(scenario)


@asynccontextmanager
async def out_of_service(world: World, backend: ScriptedBackend) -> AsyncIterator[Running]:
    declare(world, Maintenance(by="root", at=1.0, reason="a fan"))
    async with world.worker(backend) as worker:
        yield worker


def declare(world: World, entry: Maintenance | None, node: str = NODE) -> None:
    value = None if entry is None else entry.to_bytes()
    world.write(world.topics.registry, 0, value, headers.envelope("maintenance"), registry_key(KIND, node))


def test_maintenance_ends_what_runs_and_gives_back_the_rest() -> None:
    """As a drain does; another node's is none of ours; an entry that cannot be read changes nothing."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend(Script(pause=1.0)), slots=1):
            world.presence("router-1", 1)
            declare(world, Maintenance(by="root", at=1.0), "another")
            world.write(world.topics.registry, 0, b"odd", headers.envelope("maintenance"), registry_key(KIND, NODE))
            world.route(step(1), step(2))
            await world.clock.sleep(0.5)
            declare(world, Maintenance(by="root", at=1.0))
            await told(world, lambda node: node.maintenance and node.draining)
            await world.until(lambda: len(world.outcomes(StepSucceeded)) == 1)
            assert [one.reason for one in world.outcomes(StepReleased)] == ["the node is out of service"]
            declare(world, None)
            await told(world, lambda node: not (node.maintenance or node.draining))

    play(scenario)


def test_maintenance_holds_for_every_boot() -> None:
    """A worker that starts again offers nothing, from its first record on, until the entry is gone."""

    async def scenario(world: World) -> None:
        for _ in range(2):
            async with out_of_service(world, ScriptedBackend()) as worker:
                world.presence("router-1", 1)
                await world.clock.sleep(2.0)
                assert all(node.maintenance for node in world.nodes())
                assert not any(record.offers for record in world.credits())
                await worker.end()
        async with out_of_service(world, ScriptedBackend()):
            declare(world, None)
            world.presence("router-1", 1)
            await world.until(lambda: world.credits()[-1].offers != {}, seconds=HEARTBEAT)

    play(scenario)


def test_what_models_and_the_machine_cost_is_told() -> None:
    """As the settings have it; a model without a price has none."""

    async def scenario(world: World) -> None:
        prices = {"small": Price(prompt_per_million=1.0, completion_per_million=2.0)}
        async with world.worker(ScriptedBackend(), prices=prices, cost_per_hour=0.5, vram_bytes=2**34, bandwidth=300.0):
            node = world.nodes()[-1]
            assert [(m.prompt_per_million, m.completion_per_million) for m in node.models] == [(1.0, 2.0), (None, None)]
            assert (node.cost_per_hour, node.hardware.vram_bytes, node.hardware.bandwidth) == (0.5, 2**34, 300.0)

    play(scenario)


def test_calls_that_want_more_than_there_is_become_advice() -> None:
    """From the runner's counters to the record, with the next look at the endpoint."""

    async def scenario(world: World) -> None:
        backend = ScriptedBackend(Script(failure=FailureKind.CONTEXT_LENGTH))
        backend.window = 100
        async with world.worker(backend):
            for number in range(3):
                world.route(step(number + 1, options=Options(max_tokens=500)))
            await world.until(lambda: len(world.outcomes(StepFailed)) == 3)
            await told(world, lambda node: bool(node.advice))
            [one] = world.nodes()[-1].advice
            assert (one.code, "3 calls wanted up to" in one.text) == ("window", True)

    play(scenario)


WIDE = "\N{LINEAR B SYLLABLE B008 A}"
"""Four bytes."""


def test_the_largest_record_fits() -> None:
    """As many models, graphics processors and words as a record may have, each as long as it may be."""
    huge = {"prompt_per_million": MOST_COST, "completion_per_million": MOST_COST, "loaded_bytes": MOST, "vram_bytes": MOST}
    models = _fitting([NodeModel(name=f"{n:03}" + WIDE * 190, digest=WIDE * 100, size_bytes=MOST, **huge) for n in range(256)])
    assert sum(len(model.to_bytes()) for model in models) <= MODELS_BYTES
    measured = {"prefill_tokens_per_second": 1e9 / 3, "decode_tokens_per_second": 1e9 / 3, "load_seconds": 1e9 / 3}
    record = Node(
        id="n",
        boot="b",
        mailbox=0,
        backend="ollama",
        models=tuple(model.changed(**measured) for model in models),
        hardware=Hardware(gpus=(Gpu(name=WIDE * 96, driver=WIDE * 96, vram_bytes=MOST),) * MOST_GPUS, accelerator=WIDE * 200),
        advice=(Advice(code="x", level="warn", text=WIDE * 320),) * MOST_ADVICE,
        at=1.0,
    )
    assert len(record.to_bytes()) <= RECORD_BYTES


def test_other_numbers_in_advice_are_no_news() -> None:
    """A record each time one more load is counted would be a record for each load."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend()) as worker:
            registration = worker.service.registration
            records = []
            for count in (12, 13):
                registration.seen._loads.extend([Load(world.clock.monotonic(), "small", 1.0)] * count)
                records.append(registration.record(0, draining=False))
            assert records[0].advice[0].text != records[1].advice[0].text
            assert signature(records[0]) == signature(records[1])
            assert signature(records[0]) != signature(records[0].changed(advice=()))

    play(scenario)
