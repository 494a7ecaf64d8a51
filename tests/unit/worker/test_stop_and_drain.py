"""The whole worker on the in-memory log: stops, losing claims, drain, SIGTERM."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from services.worker.backends.base import Completion, Delta, ModelCall
from shared.contracts import headers
from shared.contracts.control import Drain
from shared.contracts.failure import FailureKind
from shared.contracts.outcome import StepClaimed, StepFailed, StepReleased, StepSucceeded
from shared.kafka.memory.memory_process import Absence
from shared.kafka.port import TopicPartition
from tests.unit.worker.scripted_backend import Script, ScriptedBackend
from tests.unit.worker.world import NODE, World, play, step

LONG = Script(pieces=tuple("abcdefghij" * 10), pause=1.0)


def test_a_stop_closes_the_stream_within_100_ms() -> None:
    """Law 9: from the record in `controls` to the closed call, also with no free slot; usage is told as a cancelled failure."""

    async def scenario(world: World) -> None:
        backend = ScriptedBackend(LONG)
        async with world.worker(backend, slots=1):
            world.route(step(1), step(2))
            await world.clock.sleep(5.5)
            sent_at = world.clock.monotonic()
            world.stop_step(step(1))
            await world.until(lambda: bool(world.outcomes(StepFailed)), seconds=0.2)
            [closed_at] = backend.closed_at
            assert closed_at - sent_at <= 0.1
            [failed] = world.outcomes(StepFailed)
            assert failed.failure.kind is FailureKind.CANCELLED
            assert failed.usage.completion_tokens == 5
            assert backend.calls[-1].step.job == "j2", "the slot went to the next step"

    play(scenario)


def test_a_stop_that_gets_lost_in_a_library_is_said_again() -> None:
    """0070: the slot is not gone until the model ends."""

    class Deaf(ScriptedBackend):
        async def call(self, call: ModelCall) -> AsyncIterator[Delta | Completion]:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            async for piece in super().call(call):
                yield piece

    async def scenario(world: World) -> None:
        async with world.worker(Deaf(LONG), slots=1):
            world.route(step(1))
            await world.clock.sleep(1.0)
            world.stop_step(step(1))
            await world.until(lambda: bool(world.outcomes(StepFailed)), seconds=6.0)
            [failed] = world.outcomes(StepFailed)
            assert failed.failure.kind is FailureKind.CANCELLED

    play(scenario)


def test_a_stop_reaches_what_waits_and_what_is_not_read_yet() -> None:
    """No call is made for a step that was stopped before it began, wherever it was."""

    async def scenario(world: World) -> None:
        backend = ScriptedBackend(LONG)
        async with world.worker(backend, slots=1):
            world.route(step(1), step(2))
            await world.clock.sleep(0.5)
            world.stop_step(step(2))
            world.stop_step(step(3))
            await world.clock.sleep(0.5)
            world.route(step(3))
            await world.until(lambda: len(world.outcomes(StepFailed)) == 2, seconds=0.2)
            assert {f.job for f in world.outcomes(StepFailed)} == {"j2", "j3"}
            assert [call.step.job for call in backend.calls] == ["j1"]
            assert all(f.usage.calls == 0 for f in world.outcomes(StepFailed))

    play(scenario)


def test_a_stop_covers_lower_attempts_only() -> None:
    """Stopping attempt 1 leaves attempt 2 of the same step alone."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend(LONG)):
            world.route(step(1), step(1, attempt=2))
            await world.clock.sleep(0.5)
            world.stop_step(step(1))
            await world.clock.sleep(0.5)
            assert [f.attempt for f in world.outcomes(StepFailed)] == [1]

    play(scenario)


def test_a_losing_claim_is_stopped_and_no_other() -> None:
    """A stop that names a claim ends that claim; one of another worker's claims, or for another node, changes nothing."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend(LONG)):
            world.route(step(1))
            await world.clock.sleep(0.5)
            world.stop_step(step(1), claim="elsewhere.1.1")
            world.stop_step(step(1), node="node-2")
            await world.clock.sleep(1)
            assert world.outcomes(StepFailed) == []
            world.stop_step(step(1), claim=world.outcomes(StepClaimed)[0].claim)
            await world.until(lambda: bool(world.outcomes(StepFailed)), seconds=0.1)

    play(scenario)


def test_a_draining_node_offers_nothing_and_gives_back_what_waits() -> None:
    """An administrator's drain: running calls end, waiting and new ones are released, the Node record says so; and it can be undone."""

    async def scenario(world: World) -> None:
        backend = ScriptedBackend(Script(pause=1))
        async with world.worker(backend, slots=1) as worker:
            world.presence("router-1", 1)
            world.route(step(1), step(2))
            await world.clock.sleep(0.5)
            world.write(world.topics.controls, 0, Drain(node=NODE).to_bytes(), headers.envelope("drain"))
            await world.clock.sleep(0.5)
            world.route(step(3))
            await world.until(lambda: len(world.outcomes(StepReleased)) == 2 and len(world.outcomes(StepSucceeded)) == 1)
            assert {r.job for r in world.outcomes(StepReleased)} == {"j2", "j3"}
            assert world.credits()[-1].offers == {}
            assert world.nodes()[-1].draining
            assert not worker.service.readiness().ready
            world.write(world.topics.controls, 0, Drain(node=NODE, draining=False).to_bytes(), headers.envelope("drain"))
            world.presence("router-1", 1)
            await world.until(lambda: world.credits()[-1].offers == {"router-1": 1}, seconds=2)

    play(scenario)


def test_sigterm_finishes_what_can_end_and_releases_the_rest() -> None:
    """Within the grace period: short calls end, long ones are closed and released uncounted, the mailbox number is freed."""

    async def scenario(world: World) -> None:
        backend = ScriptedBackend(Script(pause=1), by_job={"j2": Script(hangs=True)})
        async with world.worker(backend, slots=2, grace_seconds=10) as worker:
            world.route(step(1), step(2), step(3))
            await world.clock.sleep(0.5)
            began = world.clock.monotonic()
            await worker.end()
            assert world.clock.monotonic() - began <= 9
            assert [s.job for s in world.outcomes(StepSucceeded)] == ["j1"]
            assert {r.job for r in world.outcomes(StepReleased)} == {"j2", "j3"}
            assert backend.running == 0
            tail = world.log.existing(_nodes(world)).records[-1]
            assert (tail.key, tail.value) == (NODE.encode(), None)

    play(scenario)


def test_an_idle_worker_leaves_at_once() -> None:
    """SIGTERM without work ends in well under a second of grace."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend()) as worker:
            began = world.clock.monotonic()
            await worker.end()
            assert world.clock.monotonic() - began < 1.5

    play(scenario)


@pytest.mark.parametrize("absence", ["waits", "fails"])
def test_kafka_away_keeps_generating_and_loses_no_outcome(absence: Absence) -> None:
    """Calls go on while Kafka is away; their outcomes are sent when it is back; meanwhile the worker is not ready."""

    async def scenario(world: World) -> None:
        backend = ScriptedBackend(Script(pause=2))
        async with world.worker(backend) as worker:
            world.route(step(1), step(2))
            await world.until(lambda: len(world.outcomes(StepClaimed)) == 2)
            world.log.go_away(absence)
            await world.clock.sleep(30)
            assert backend.running == 0
            assert world.outcomes(StepSucceeded) == []
            assert "no answer from Kafka lately" in worker.service.readiness().reasons
            world.log.come_back()
            await world.until(lambda: len(world.outcomes(StepSucceeded)) == 2)
            world.route(step(3))
            await world.until(lambda: len(world.outcomes(StepSucceeded)) == 3 and worker.service.readiness().ready)

    play(scenario)


def test_an_unreachable_endpoint_offers_nothing_and_recovers_by_itself() -> None:
    """What ran fails as node_unreachable, what waits is released, no place is offered until a probe is answered again."""

    async def scenario(world: World) -> None:
        backend = ScriptedBackend(Script(pause=1))
        async with world.worker(backend, slots=1) as worker:
            world.presence("router-1", 5)
            world.route(step(1), step(2), step(3))
            await world.clock.sleep(0.5)
            backend.reachable = False
            await world.until(lambda: bool(world.outcomes(StepFailed)) and not worker.service.registration.reachable)
            assert world.outcomes(StepFailed)[0].failure.kind is FailureKind.NODE_UNREACHABLE
            assert [r.job for r in world.outcomes(StepReleased)] == ["j3"]
            await world.clock.sleep(1.5)
            assert not world.nodes()[-1].reachable
            world.presence("router-1", 5)
            await world.clock.sleep(1.1)
            assert world.credits()[-1].offers == {}
            backend.reachable = True
            await world.clock.sleep(2)
            world.presence("router-1", 5)
            await world.until(lambda: bool(world.credits()[-1].offers) and world.nodes()[-1].reachable, seconds=3)

    play(scenario)


def _nodes(world: World) -> TopicPartition:
    return TopicPartition(world.topics.nodes, 0)
