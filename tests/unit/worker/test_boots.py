"""A node's worker starts again: what its earlier boot held is void, and only when that one is gone."""

from __future__ import annotations

from services.worker.boots import Silence
from shared.contracts.base import ClaimId
from shared.contracts.node import Node
from shared.contracts.outcome import StepClaimed, StepSucceeded, WorkerStarted, claim_id, incarnation_of
from shared.kafka.port import TopicPartition
from tests.unit.worker.scripted_backend import Script, ScriptedBackend
from tests.unit.worker.world import NODE, World, play, step

SILENT_SECONDS = 10.0
ENDLESS = Script(pieces=("a",), pause=3600.0)


def first_record(world: World, boot: str) -> int:
    """Where the boot named itself first."""
    records = world.log.existing(TopicPartition(world.topics.nodes, 0)).records
    return next(r.offset for r in records if r.value is not None and Node.model_validate_json(r.value).boot == boot)


def boots(world: World) -> list[str]:
    return list(dict.fromkeys(node.boot for node in world.nodes()))


def test_the_first_boot_of_a_node_goes_on_at_once() -> None:
    """It tells every home of itself, and claims in its name."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend()):
            world.route(step(1))
            await world.until(lambda: bool(world.outcomes(StepSucceeded)), seconds=1.0)
            started, [boot] = world.outcomes(WorkerStarted), boots(world)
            assert [(s.node, s.incarnation) for s in started] == [(NODE, first_record(world, boot))] * 2
            assert [incarnation_of(success.claim) for success in world.outcomes(StepSucceeded)] == [started[0].incarnation]

    play(scenario)


def test_killed_and_started_by_nobody_who_knows_it_waits_for_silence() -> None:
    """Until then it offers nothing and reads nothing; a third boot that comes meanwhile waits as well, whatever is known of the second."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend(ENDLESS), process="a"):
            world.presence("r1")
            world.route(step(1))
            await world.until(lambda: bool(world.outcomes(StepClaimed)))
            await world.clock.sleep(0.3)  # committed past
            world.log.kill("a")
        killed_at, told = world.clock.monotonic(), len(world.outcomes(WorkerStarted))
        world.route(step(2))
        async with world.worker(ScriptedBackend(), process="b") as second:
            assert second.service.readiness().reasons == ("an earlier boot of this node may still run",)
            await world.clock.sleep(5.0)
            world.log.kill("b")
        async with world.worker(ScriptedBackend(), process="c", dead_boot=boots(world)[1]):
            before = len(world.credits())
            await world.until(lambda: len(world.outcomes(WorkerStarted)) > told)
            assert world.clock.monotonic() - killed_at >= 5.0 + SILENT_SECONDS
            assert {(sum(c.offers.values()), tuple(c.read)) for c in world.credits()[before:-1]} == {(0, ())}
            await world.until(lambda: [s.job for s in world.outcomes(StepSucceeded)] == ["j2"])
            third = [node.waits for node in world.nodes() if node.boot == boots(world)[2]]
            assert (third[0], third[-1]) == (True, False)

    play(scenario)


def test_whoever_saw_the_earlier_boot_end_says_so() -> None:
    """Then nothing is waited for."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend(ENDLESS), process="a"):
            world.route(step(1))
            await world.until(lambda: bool(world.outcomes(StepClaimed)))
            world.log.kill("a")
        async with world.worker(ScriptedBackend(), process="b", dead_boot=boots(world)[0]):
            await world.until(lambda: len(world.outcomes(WorkerStarted)) == 4, seconds=0.5)
            first, second = (first_record(world, boot) for boot in boots(world))
            assert [s.incarnation for s in world.outcomes(WorkerStarted)[:2]] == [first, second]

    play(scenario)


def test_an_earlier_boot_that_drains_is_left_its_calls() -> None:
    """Its stream runs to its end; it reads and commits no more; the later one takes what it left as soon as it is silent."""

    async def scenario(world: World) -> None:
        backend = ScriptedBackend(Script(pieces=("a", "b"), pause=4.0))
        async with world.worker(backend, process="a", grace_seconds=30.0) as older:
            world.route(step(1))
            await world.until(lambda: bool(world.outcomes(StepClaimed)))
            await world.clock.sleep(0.3)  # committed past
            async with world.worker(ScriptedBackend(), process="b"):
                await world.until(lambda: older.service.reader.superseded)
                committed = dict(world.log.group(f"tutti-worker-{NODE}").offsets)
                world.route(step(2))
                await world.until(lambda: len(world.outcomes(StepSucceeded)) == 1)
                assert len(world.outcomes(WorkerStarted)) == 2, "the first boot's"
                assert world.log.group(f"tutti-worker-{NODE}").offsets == committed
                await world.until(lambda: len(world.outcomes(StepSucceeded)) == 2)
                assert len(world.outcomes(WorkerStarted)) == 4
                assert sorted(s.job for s in world.outcomes(StepSucceeded)) == ["j1", "j2"]
            assert older.task.done()

    play(scenario)


def test_one_that_waited_says_of_nobody_that_it_left() -> None:
    """Told to end while it waits it writes no tombstone: the earlier boot may still run, and the next one has to wait for it."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend(ENDLESS), process="a", grace_seconds=100.0) as older:
            world.route(step(1))
            await world.until(lambda: bool(world.outcomes(StepClaimed)))
            async with world.worker(ScriptedBackend(), process="b") as second:
                await world.until(lambda: older.service.reader.superseded)
                await second.end()
            async with world.worker(ScriptedBackend(), process="c") as third:
                await world.clock.sleep(30.0)
                assert third.service.readiness().reasons == ("an earlier boot of this node may still run",)
                assert len(world.outcomes(WorkerStarted)) == 2, "the first boot's"

    play(scenario)


def test_silence_is_counted_while_one_hears() -> None:
    """Of credits and renewals alike; what is not heard because nothing is heard is no silence."""
    silence = Silence()
    assert silence.seconds(100.0) == 0.0
    for second in range(8):
        silence.on_own(100.0 + second)
    assert silence.seconds(107.0) == 7.0
    silence.on_other(107.0)
    silence.on_own(108.0)
    assert silence.seconds(108.0) == 1.0
    assert silence.seconds(120.0) == 0.0, "deaf"
    silence.on_own(130.0)
    assert silence.seconds(132.0) == 2.0, "it begins again"


def test_a_claim_says_whose_it_is() -> None:
    """Also of a node with dots in its name; one of a worker of before is lower than any."""
    assert incarnation_of(claim_id("a.i7.b", 12, 3)) == 12
    assert incarnation_of(claim_id("n", 0, 1)) == 0
    assert {incarnation_of(ClaimId(old)) for old in ("n.0123456789ab.4", "n.012345678901.4", "x", "")} == {-1}
