"""Tasks on models in a worker: beside its slots, one of a lane at a time, told in its Node record, given back and stopped as all are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.worker import chores
from services.worker.backends.base import BackendProbe, Completion, Delta, ModelCall
from services.worker.chores import MOST_TASKS, coarse
from shared.clock import LoopClock
from shared.contracts.chat import Answer, Operation
from shared.contracts.failure import FailureKind
from shared.contracts.job import Needs, ReplyTo
from shared.contracts.outcome import StepClaimed, StepFailed, StepReleased, StepSucceeded
from shared.contracts.step import Step
from shared.contracts.tasks import Action, ModelTask, TaskProgress
from tests.unit.worker.scripted_backend import Script, ScriptedBackend
from tests.unit.worker.world import NODE, World, play, step

PULL_SECONDS = 100


class Puller(ScriptedBackend):
    """A pull takes so many seconds and tells each of them; everything else on models is done at once. `mute`: says nothing."""

    manages, mute = True, False

    async def probe(self) -> BackendProbe:
        return BackendProbe(version="1", manages=self.manages)

    async def _play(self, call: ModelCall) -> AsyncIterator[Delta | Completion]:
        task = call.step.task
        if task is None:
            async for piece in super()._play(call):
                yield piece
            return
        for second in range(PULL_SECONDS if task.action is Action.PULL else 0):
            await LoopClock().sleep(100_000 if self.mute else 1)
            told = TaskProgress(status="pulling x", digest="x", total=PULL_SECONDS * 1_000, completed=second * 1_000, node=call.node)
            yield Delta(tokens=0, progress=told)
        yield Completion(Answer(text="done", model=call.model, node=call.node))


def task(number: int, action: Action = Action.PULL, model: str = "new:1", **changes: Any) -> Step:
    own = {"operation": Operation.MANAGE, "model": model, "messages": (), "needs": Needs(node=NODE), "task": ModelTask(action=action)}
    return step(number, **(own | changes))


def test_a_pull_is_in_no_answers_way() -> None:
    """All slots stay free for calls, all places are offered, and other tasks on memory go on; a second pull waits for the first."""

    async def scenario(world: World) -> None:
        async with world.worker(Puller(), slots=2) as at:
            world.presence("r")
            world.route(task(1), task(2), task(3, Action.LOAD, "small"))
            await world.until(lambda: bool(world.outcomes(StepSucceeded, "j3")))
            assert len(world.outcomes(StepClaimed)) + len(world.outcomes(StepSucceeded)) >= 3
            assert (at.service.attempts.slots.free, at.service.attempts.places()) == (2, 2)
            world.route(step(4), step(5))
            await world.until(lambda: len(world.outcomes(StepSucceeded)) == 3, 30)
            await world.clock.sleep(2)
            assert not world.outcomes(StepSucceeded, "j1")
            [first, second] = at.service.attempts.chores.now()
            assert (first.model, first.progress is None, second.progress) == ("new:1", False, None)
            await world.until(lambda: bool(world.outcomes(StepSucceeded, "j2")), 3 * PULL_SECONDS)
            [done] = world.outcomes(StepSucceeded, "j1")
            assert (done.answer.text, done.usage.calls, done.usage.cost) == ("done", 0, 0)

    play(scenario)


def test_a_pull_takes_no_models_place() -> None:
    """Two fit: beside a pull and a call of one another one begins; and a pull's end is no slot's."""

    async def scenario(world: World) -> None:
        backend = Puller(Script(pause=10.0))
        async with world.worker(backend, slots=2, most_models=2) as at:
            world.route(task(1), step(2))
            await world.until(lambda: backend.running == 2)
            world.route(step(3, model="other"))
            await world.until(lambda: backend.running == 3, 5.0)
            await world.clock.sleep(1.0)
            [pull] = [one for one in at.service.attempts.leases if not one.calls]
            pull.started_at = world.clock.monotonic()
            assert (at.service.attempts.free_seconds() or 0.0) >= 0.25

    play(scenario)


def test_progress_is_told_to_who_waits_and_in_the_nodes_record() -> None:
    """In the record by hundredths, at most one a second; afterwards nothing of it stands there."""

    async def scenario(world: World) -> None:
        async with world.worker(Puller()):
            world.route(task(1, stream=True, reply=ReplyTo(topic=world.topics.replies, partition=0, correlation=b"c", multiplex=True)))
            await world.until(lambda: bool(world.outcomes(StepSucceeded)), 2 * PULL_SECONDS)
            told = [progress for chunk in world.chunks() for progress in chunk.progress]
            assert [each.completed for each in told] == [second * 1_000 for second in range(PULL_SECONDS)]
            assert not any(chunk.text for chunk in world.chunks())
            await world.until(lambda: not world.nodes()[-1].tasks)
            records = [node.tasks[0].progress for node in world.nodes() if node.tasks]
            assert PULL_SECONDS // 3 < len(records) <= PULL_SECONDS + 2
            assert world.nodes()[-1].manages == "chat"

    play(scenario)


@pytest.mark.parametrize("waiting", [False, True], ids=["it runs", "it waits"])
def test_a_pull_is_stopped_and_given_back_as_any_attempt(waiting: bool) -> None:
    """A stop ends it; a drain gives it back, uncounted, so that it goes on after a restart."""

    async def scenario(world: World) -> None:
        async with world.worker(Puller(), grace_seconds=2.0) as at:
            world.route(task(1), task(2))
            await world.until(lambda: len(at.service.attempts.chores) == 2)
            world.stop_step(task(2 if waiting else 1))
            await world.until(lambda: bool(world.outcomes(StepFailed)))
            assert world.outcomes(StepFailed)[0].failure.kind is FailureKind.CANCELLED
            assert world.outcomes(StepFailed)[0].usage.calls == 0
            await at.end()
            [released] = world.outcomes(StepReleased)
            assert released.job == ("j1" if waiting else "j2")

    play(scenario)


def test_a_pull_of_which_nothing_is_heard_fails_and_one_that_goes_on_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chores, "SILENT_SECONDS", 60.0)

    async def scenario(world: World) -> None:
        backend = Puller()
        backend.mute = True
        async with world.worker(backend, total_timeout_seconds=10.0, between_tokens_timeout_seconds=1.0, first_token_timeout_seconds=5.0):
            world.route(task(1))
            await world.until(lambda: bool(world.outcomes(StepFailed)), 2 * chores.SILENT_SECONDS)
            assert world.outcomes(StepFailed)[0].failure.kind is FailureKind.MODEL_TIMEOUT
            backend.mute = False
            world.route(task(2))
            await world.until(lambda: bool(world.outcomes(StepSucceeded)), 2 * PULL_SECONDS)

    play(scenario)


def test_an_endpoint_that_manages_nothing_refuses_typed() -> None:
    async def scenario(world: World) -> None:
        backend = Puller()
        backend.manages = False
        async with world.worker(backend):
            world.route(task(1))
            await world.until(lambda: bool(world.outcomes(StepFailed)))
            assert world.outcomes(StepFailed)[0].failure.kind is FailureKind.UNSUPPORTED
            assert world.nodes()[-1].manages is None

    play(scenario)


def test_no_more_tasks_are_taken_than_are_held() -> None:
    async def scenario(world: World) -> None:
        async with world.worker(Puller(), grace_seconds=1.0) as at:
            world.route(*(task(number) for number in range(1, MOST_TASKS + 3)))
            await world.until(lambda: len(world.outcomes(StepReleased)) == 2)
            await at.end()

    play(scenario)


@pytest.mark.parametrize(("completed", "shown"), [(0, 0), (9_999, 9_900), (10_000, 10_000), (123, 100)])
def test_bytes_are_told_by_hundredths(completed: int, shown: int) -> None:
    assert coarse(TaskProgress(status="s", total=10_000, completed=completed)).completed == shown
