"""The whole worker on the in-memory log: mailbox numbers, restarts, twins, credits."""

from __future__ import annotations

import asyncio

import pytest

from shared.contracts import headers
from shared.contracts.credits import RouterPresence
from shared.contracts.failure import FailureKind
from shared.contracts.outcome import StepClaimed, StepFailed, StepReleased, StepSucceeded
from shared.errors import ConfigurationError
from shared.kafka.port import TopicPartition
from shared.topics import AGENTS
from tests.unit.worker.scripted_backend import Script, ScriptedBackend
from tests.unit.worker.world import NODE, World, play, step


def test_workers_that_start_together_take_different_numbers() -> None:
    """First in the log keeps the number; the others take the next ones."""

    async def scenario(world: World) -> None:
        stop = asyncio.Event()
        services = [world.service(ScriptedBackend(), node=f"node-{n}", process=f"w{n}") for n in range(4)]
        tasks = [asyncio.create_task(service.run(stop)) for service in services]
        await world.until(lambda: all(service.reader.number is not None for service in services))
        assert sorted(service.reader.number or 0 for service in services) == [0, 1, 2, 3]
        stop.set()
        await asyncio.gather(*tasks)

    play(scenario)


def test_a_restart_keeps_the_number_and_runs_nothing_again_that_ended() -> None:
    """After a kill: same mailbox, from the committed position; what ended is not met again, what lay unread is served."""

    async def scenario(world: World) -> None:
        first, second = ScriptedBackend(), ScriptedBackend()
        async with world.worker(first, process="a"):
            world.route(step(1), step(2))
            await world.until(lambda: len(world.outcomes(StepSucceeded)) == 2)
            await world.clock.sleep(0.1)
            world.log.kill("a")
        world.route(step(3))
        async with world.worker(second, process="b") as worker:
            await world.until(lambda: len(world.outcomes(StepSucceeded)) == 3)
            assert worker.service.reader.number == 0
            assert [call.step.job for call in second.calls] == ["j3"]
            assert len({success.claim for success in world.outcomes(StepSucceeded)}) == 3, "a claim id is never used again"

    play(scenario)


def test_a_worker_that_stops_and_starts_at_once_goes_on_where_it_stopped() -> None:
    """Its tombstone freed the number, its position is still known: what a router sent in between is not left to a claim timeout."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend(), node="other", process="o") as other:
            assert other.service.reader.number == 0
            async with world.worker(ScriptedBackend(), process="a") as worker:
                assert worker.service.reader.number == 1
                world.route(step(1), mailbox=1)
                await world.until(lambda: len(world.outcomes(StepSucceeded)) == 1)
                await worker.end()
            await other.end()
        world.route(step(2), mailbox=1)
        async with world.worker(ScriptedBackend(), process="b") as worker:
            assert worker.service.reader.number == 1, "number 0 is free too, but this one was its own"
            await world.until(lambda: len(world.outcomes(StepSucceeded)) == 2, seconds=2.0)

    play(scenario)


def test_a_number_that_was_anothers_meanwhile_is_begun_at_its_end() -> None:
    """The old position says nothing of what the other one has read."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend(), process="a") as worker:
            await worker.end()
        async with world.worker(ScriptedBackend(), node="other", process="o") as other:
            assert other.service.reader.number == 0
            world.route(step(1), node="other")
            await world.until(lambda: len(world.outcomes(StepSucceeded)) == 1)
            await other.end()
        async with world.worker(ScriptedBackend(), process="b") as worker:
            await world.clock.sleep(1.0)
            assert worker.service.reader.number == 0
            assert not world.outcomes(StepReleased), "the other one's records are none of its business"

    play(scenario)


def test_a_full_cluster_waits_for_a_number_and_takes_an_expired_nodes() -> None:
    """More workers than partitions: not ready, and says why; when a node is silent for long its number is taken over."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend(), process="a"):
            late = world.service(ScriptedBackend(), node="node-2", process="b", node_expiry_seconds=120)
            stop = asyncio.Event()
            task = asyncio.create_task(late.run(stop))
            await world.clock.sleep(300)
            assert late.reader.number is None
            assert any("taken" in reason for reason in late.readiness().reasons)
            world.log.kill("a")
            await world.until(lambda: late.reader.number == 0, seconds=200)
            world.route(step(1), node="node-2")
            await world.until(lambda: bool(world.outcomes(StepSucceeded)))
            stop.set()
            await task

    play(scenario, work_partitions=1)


def test_a_sleeper_whose_number_was_taken_takes_another() -> None:
    """A laptop that slept for long wakes up, sees that its mailbox is another's, and goes on under a new number."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend(), process="a") as sleeper:
            world.log.freeze("a")
            other = world.service(ScriptedBackend(), node="node-2", process="b", node_expiry_seconds=100)
            stop = asyncio.Event()
            task = asyncio.create_task(other.run(stop))
            await world.until(lambda: other.reader.number == 0, seconds=400)
            world.log.add_partitions(world.topics.work("chat"), 2)
            world.log.add_partitions(world.topics.work("embed"), 2)
            world.log.add_partitions(world.topics.controls, 2)
            there = {topic.name: world.log.partition_count(topic.name) for topic in world.topics.all()}
            world.topics.seen(there, world.clock.monotonic())
            world.log.thaw("a")
            await world.until(lambda: sleeper.service.reader.number == 1)
            world.route(step(1), mailbox=1)
            await world.until(lambda: bool(world.outcomes(StepSucceeded)))
            stop.set()
            await task

    play(scenario, work_partitions=1)


def test_of_two_workers_with_one_node_id_the_older_ends() -> None:
    """A node is served once: the later boot wins, the earlier one drains and ends as wrongly configured."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend(), process="a") as older, world.worker(ScriptedBackend(), process="b") as newer:
            await asyncio.wait({older.task}, timeout=30)
            with pytest.raises(ConfigurationError):
                await older.task
            await world.clock.sleep(2)
            world.route(step(1))
            await world.until(lambda: bool(world.outcomes(StepSucceeded)))
            assert not newer.task.done()
            assert world.nodes()[-1].boot == newer.service.registration.boot

    play(scenario)


def test_an_earlier_boot_that_is_not_quite_dead_does_not_end_the_later_one() -> None:
    """A frozen worker that wakes up registers once more before it notices: it ends, its successor goes on and says who is there."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend(), process="a") as older:
            await world.clock.sleep(30)
            world.log.freeze("a")
            async with world.worker(ScriptedBackend(), process="b") as newer:
                await world.clock.sleep(100)
                world.log.thaw("a")
                await asyncio.wait({older.task}, timeout=30)
                assert older.task.done()
                await world.clock.sleep(5)
                assert not newer.task.done()
                assert world.nodes()[-1].boot == newer.service.registration.boot

    play(scenario)


def test_credits_offer_the_free_places_to_a_router_that_comes() -> None:
    """At once for a new router; fewer places while calls run; the position read; at least one record a second."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend(Script(hangs=True)), slots=3):
            asked_at = world.clock.monotonic()
            world.presence("router-1", 4)
            await world.until(lambda: world.credits()[-1].offers == {"router-1": 3})
            assert world.clock.monotonic() - asked_at <= 0.05
            world.route(step(1), step(2))
            await world.until(lambda: world.credits()[-1].running == 2, seconds=0.05)
            last = world.credits()[-1]
            assert (last.offers, last.read["chat"], last.mailbox) == ({"router-1": 1}, 2, 0)
            before = len(world.credits())
            await world.clock.sleep(10.2)
            assert 10 <= len(world.credits()) - before <= 12
            assert world.credits()[-1].offers == {}, "a router that is silent for five seconds is gone"

    play(scenario)


def test_a_router_of_before_that_writes_to_credits_only_is_heard() -> None:
    """A second later; one that writes to both topics is heard by the one that is read at once."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend(Script(hangs=True)), slots=3):
            old = RouterPresence(router="router-0", backlog=1).to_bytes()
            world.write(world.topics.credits, 0, old, headers.envelope("router"), b"router-0")
            await world.until(lambda: world.credits()[-1].offers == {"router-0": 3}, seconds=1.5)
            left = RouterPresence(router="router-1", backlog=1)
            world.presence("router-1", 1)
            await world.until(lambda: set(world.credits()[-1].offers) == {"router-0", "router-1"}, seconds=0.1)
            world.write(world.topics.presence, 0, left.changed(leaving=True).to_bytes(), headers.envelope("router"), b"router-1")
            world.write(world.topics.credits, 0, left.to_bytes(), headers.envelope("router"), b"router-1")
            await world.clock.sleep(3.0)
            assert set(world.credits()[-1].offers) == {"router-0"}, "what lies in credits is older"

    play(scenario)


def test_credits_tell_of_what_is_claimed_and_of_nothing_else() -> None:
    """Soon after the acknowledgement, also of long steps; not while it is away, not what could not be read, not what was read before."""

    async def scenario(world: World) -> None:
        world.route(step(1))
        async with world.worker(ScriptedBackend(Script(hangs=True)), slots=3):
            world.presence("router-1")
            await world.clock.sleep(0.5)
            assert world.credits()[-1].told == {}, "read by nobody: the mailbox was begun at its end"
            outcomes = TopicPartition(world.topics.outcomes, step(2).home)
            world.log.faults.away[outcomes] = 0.6
            world.route(step(2))
            await world.clock.sleep(0.3)
            assert (world.credits()[-1].read["chat"], world.credits()[-1].told) == (2, {})
            world.log.faults.heal()
            await world.until(lambda: world.credits()[-1].told == {"chat": (1, 2)}, seconds=2.5)
            world.write(world.topics.work("chat"), 0, b"{", headers.envelope("step"))
            world.route(step(4))
            await world.until(lambda: len(world.outcomes(StepClaimed)) == 2)
            await world.until(lambda: world.credits()[-1].told == {"chat": (3, 4)}, seconds=0.3)

    play(scenario)


def test_fast_steps_get_places_beyond_the_slots_and_slow_ones_do_not() -> None:
    """Little's law: what ends during one credit round trip may already wait here."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend(Script(pause=0.0005)), slots=2) as worker:
            for wave in range(40):
                world.route(*(step(wave * 8 + n) for n in range(1, 9)))
                await world.clock.sleep(0.01)
            assert worker.service.attempts.places() > 10
            await world.clock.sleep(20)
            assert worker.service.attempts.places() == 2

    play(scenario)


def test_the_node_record_tells_models_and_comes_every_minute() -> None:
    """What routers filter by: capabilities that the models allow, models, slots, reachability; repeated, so that silence means gone."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend(known=("small", "tiny-embed"))):
            await world.until(lambda: bool(world.nodes()[-1].models))
            node = world.nodes()[-1]
            assert (node.id, node.mailbox, node.slots, node.reachable, node.draining) == (NODE, 0, 2, True, False)
            assert node.capabilities == ("chat", "embed", *AGENTS), "any chat model serves any agent"
            assert [model.name for model in node.models] == ["small", "tiny-embed"]
            before = len(world.nodes())
            await world.clock.sleep(190)
            assert 3 <= len(world.nodes()) - before <= 4

    play(scenario)


def test_a_mailbox_of_nothing_but_poison_is_left_alone() -> None:
    """After 200 dead letters the worker stops reading it, offers no place, and says why; a restart begins where it stopped."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend(), process="a") as worker:
            for _ in range(300):
                world.write(world.topics.work("chat"), 0, b"{}")
            await world.until(lambda: not worker.service.readiness().ready)
            await world.clock.sleep(5)
            assert len(world.dead_letters()) == 200
            assert any("200 of the last 200 records of work.chat/0" in reason for reason in worker.service.readiness().reasons)
            assert sum(world.credits()[-1].offers.values()) == 0
            world.log.kill("a")
        world.write(world.topics.work("chat"), 0, b"{}")
        async with world.worker(ScriptedBackend(), process="b"):
            await world.until(lambda: len(world.dead_letters()) == 301, seconds=300)

    play(scenario)


def test_a_stop_for_every_node_keeps_a_step_from_beginning() -> None:
    """The step was cancelled while it waited for a router; the model is not asked, and the planner is told."""

    async def scenario(world: World) -> None:
        backend = ScriptedBackend()
        async with world.worker(backend):
            world.stop_step(step(1), node=None)
            await world.clock.sleep(1.0)
            world.route(step(1), step(2))
            await world.until(lambda: bool(world.outcomes(StepSucceeded)))
            assert [call.step.job for call in backend.calls] == ["j2"]
            assert [failed.failure.kind for failed in world.outcomes(StepFailed)] == [FailureKind.CANCELLED]

    play(scenario)


def test_a_worker_of_some_agents_serves_nothing_else() -> None:
    """It says so in `nodes`, reads their steps in the mailbox that its chat model has, and gives back at once what is none of theirs."""

    async def scenario(world: World) -> None:
        backend = ScriptedBackend()
        async with world.worker(backend, agents=("code", "research")) as worker:
            await world.until(lambda: bool(world.nodes()[-1].models))
            assert world.nodes()[-1].capabilities == ("research", "code")
            assert worker.service.reader.positions() == {"chat": 0}
            world.route(step(1, capability="research"), step(2), step(3, capability="critic"), step(4, capability="code"))
            await world.until(lambda: len(world.outcomes(StepSucceeded)) == 2)
            assert {call.step.job for call in backend.calls} == {"j1", "j4"}
            assert {(gone.job, gone.reason) for gone in world.outcomes(StepReleased)} == {
                (job, "this node does not serve the step's agent") for job in ("j2", "j3")
            }
            await world.until(lambda: worker.service.reader.told() == {"chat": (0, 4)})

    play(scenario)


def test_an_agent_that_the_cluster_lacks_is_a_wrong_setting() -> None:
    """A misspelt one would serve nothing, silently: it and what there is are named."""
    with pytest.raises(ConfigurationError, match=r"TUTTI_WORKER__AGENTS: resaerch: this cluster has chat, embed, research, "):
        World().service(ScriptedBackend(), agents=("code", "resaerch"))
