"""Planted bugs of critiques and policies: in the planner's wait for a critic, in the critic's commits, in what leaves."""

from __future__ import annotations

from typing import Any

import pytest

from services.critic.checking import Checking
from services.planner.deciding import driving
from services.planner.history.recovery import Replay
from services.worker import runner
from shared.contracts.job import Job
from shared.patterns import policies, run
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.laws import patience
from tests.support.cluster.laws import policies as law

Patching = pytest.MonkeyPatch
CRITICS = ("critic-1", "critic-2")
KINDS = {"policed": 1.0}


def _gives_up_at_the_first_look(patching: Patching) -> None:
    original = driving._sent

    def sent(round_: Any, job: Any, step: Any, given: Any) -> Any:
        original(round_, job, step, given)
        step.patience_until = min(step.patience_until, step.due_at)
        return given

    patching.setattr(driving, "_sent", sent)


def _successor_arms_nothing(patching: Patching) -> None:
    original = Replay._rearm

    def rearm(self: Any, job: Any, step: Any) -> None:
        original(self, job, step)
        if step.request is not None and step.request.is_critique:
            step.due_at = float("inf")
            self._round.dispatches.pop()

    patching.setattr(Replay, "_rearm", rearm)


def _committed_before_it_is_answered(patching: Patching) -> None:
    def tell(self: Any, asked: Any, message: Any) -> None:
        self._intake.finish(asked.window, asked.offset)
        self._spawn(_later(self, message))

    async def _later(self: Any, message: Any) -> None:
        await self._clock.sleep(1.0)
        self._outbox.put(message)

    patching.setattr(Checking, "_tell", tell)
    original = driving._sent

    def sent(round_: Any, job: Any, step: Any, given: Any) -> Any:
        original(round_, job, step, given)
        if given.step.is_critique:
            step.due_at = float("inf")
        return given

    patching.setattr(driving, "_sent", sent)


def _unguarded(_: Any, stream: Any) -> Any:
    return stream


def _streams_are_not_guarded(patching: Patching) -> None:
    patching.setattr(runner, "GuardedStream", _unguarded)


def _input_as_it_was(patching: Patching) -> None:
    original = policies._passed_input

    async def passed(ctx: Any, job: Job, *given: Any) -> Job:
        await original(ctx, job, *given)
        return job

    patching.setattr(policies, "_passed_input", passed)


def _no_policies(patching: Patching) -> None:
    """Of who takes over: it forgets what was pinned."""

    async def under(ctx: Any, job: Job, _: Any, go: Any) -> Any:
        return await go(job)

    patching.setattr(run, "under_policies", under)


SMALL: dict[str, Any] = {"jobs": 16, "seconds": 8.0}
KILLED = FaultMix(kill=0.4, down_seconds=(0.0, 2.0), send_seconds=0.3, ack_seconds=0.3, only=("planner",), **SMALL)
CRITIC_KILLED = FaultMix(kill=0.8, down_seconds=(0.0, 1.0), only=("critic",), jobs=40, seconds=12.0)
MUTANTS: dict[str, dict[str, Any]] = {
    "a critic is given up at the first look": {
        "patch": _gives_up_at_the_first_look, "breaks": patience.LAW, "mix": CRITIC_KILLED, "kinds": KINDS, "aside": CRITICS,
    },
    "who takes over sends no critique again": {
        "patch": _successor_arms_nothing, "breaks": "converges", "seed": 15, "mix": KILLED, "kinds": KINDS, "aside": CRITICS,
    },
    "a critique is committed past before it is answered, and never sent again": {
        "patch": _committed_before_it_is_answered, "breaks": "converges", "mix": CRITIC_KILLED, "kinds": KINDS, "aside": CRITICS,
    },
    "streams are not guarded": {
        "patch": _streams_are_not_guarded, "breaks": law.LAW, "mix": FaultMix(**SMALL), "kinds": KINDS, "aside": CRITICS,
    },
    "models read the input as it was": {
        "patch": _input_as_it_was, "breaks": law.LAW, "mix": FaultMix(**SMALL), "kinds": KINDS, "aside": CRITICS,
    },
    "policies are not asked": {
        "patch": _no_policies, "breaks": law.LAW, "mix": FaultMix(**SMALL), "kinds": KINDS, "aside": CRITICS,
    },
}  # fmt: skip
