"""A step on which the worker's own work fails ends as `internal` for its job; nothing of it is kept, and the steps around it succeed."""

from __future__ import annotations

from inspect import iscoroutinefunction
from typing import Any

import pytest

from services.worker import handlers
from services.worker.attempt import OutcomeWriter
from services.worker.inbox import Inbox
from services.worker.lease_log import LeaseLog
from services.worker.runner import Runner
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.failure import FailureKind
from shared.contracts.outcome import StepFailed, StepSucceeded
from tests.unit.worker.scripted_backend import Script, ScriptedBackend
from tests.unit.worker.world import World, play, step

ODD = "j2"


def is_odd(*args: Any) -> bool:
    """Whether one of the arguments is the odd step, or an attempt of it."""
    return any(getattr(getattr(arg, "step", arg), "job", None) == ODD for arg in args)


def breaking(patch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    """Let `owner.name` raise for the odd step."""
    real = getattr(owner, name)

    def work(*args: Any, **options: Any) -> Any:
        if is_odd(*args) and not any(isinstance(arg, StepFailed) for arg in args):
            raise OverflowError("int too large to convert to float")
        return real(*args, **options)

    async def later(*args: Any) -> Any:
        return await work(*args)

    patch.setattr(owner, name, later if iscoroutinefunction(real) else work)


def letters(world: World) -> list[DeadLetter]:
    return [DeadLetter.model_validate_json(value) for value in world.values(world.topics.dead_letters)]


@pytest.mark.parametrize(
    ("owner", "name", "refused"),
    [
        (LeaseLog, "claim", True),
        (Inbox, "push", True),
        (Runner, "run", False),
        (OutcomeWriter, "message", True),
        (handlers, "overdue", False),
    ],
    ids=["before the claim", "after the claim", "the run", "writing", "the sweep"],
)
def test_a_step_that_fails_in_the_worker_is_told(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, refused: bool) -> None:
    """Its record is a dead letter where taking it failed; its place comes free, and it is renewed no more."""
    breaking(monkeypatch, owner, name)

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend(Script(pause=3.0)), slots=3) as running:
            world.route(step(1), step(2), step(3))
            await world.until(lambda: len(world.outcomes(StepSucceeded)) == 2)
            [failed] = world.outcomes(StepFailed)
            assert (failed.job, failed.failure.kind) == (ODD, FailureKind.INTERNAL)
            assert [letter.code for letter in letters(world)] == (["internal"] if refused else [])
            desk = running.service.attempts
            assert (len(desk.leases), len(desk.inbox), desk.slots.free) == (0, 0, 3)
            assert not running.task.done()
            assert not desk.closings

    play(scenario)


def test_a_step_of_a_home_that_does_not_exist_is_refused() -> None:
    """Its outcome could go nowhere."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend()):
            world.route(step(1), step(2, home=999), step(3))
            await world.until(lambda: len(world.outcomes(StepSucceeded)) == 2)
            [letter] = letters(world)
            assert "home is not a partition" in letter.reason

    play(scenario)
