"""What is no longer wanted is stopped: at the end nothing runs; and where nothing else goes wrong, a losing claim ends within a second."""

from __future__ import annotations

from collections.abc import Iterator

from services.worker.app import WorkerService
from services.worker.breakers import BreakerState
from shared.contracts.outcome import CancelRequested, StepClaimed, StepFailed, StepReleased, StepSucceeded
from tests.support.cluster.history import Written
from tests.support.cluster.violation import Violation
from tests.support.cluster.world import World

LAW = "what nobody wants is stopped"
ALONE = "who asks to be left alone is"
CLAIM_SECONDS = 1.0
CANCEL_SECONDS = 0.5
"""From the cancel's record to the closed stream, links included; ARCHITECTURE, laws wants 0.1 s from the stop's record."""


def check(world: World) -> Iterator[Violation]:
    """After every job has ended."""
    for name, worker in world.services(WorkerService).items():
        for attempt in worker.attempts.leases:
            yield Violation(LAW, f"{name} still runs step {attempt.step.id} attempt {attempt.step.attempt}", attempt.step.job)
    for name, node in world.nodes.items():
        yield from (Violation(ALONE, f"the model server of {name}: {what}") for what in node.too_soon)
        worker = world.services(WorkerService).get(name)  # a probe of its own may hang there
        probed = (
            [] if worker is None else [b for b in worker.attempts.health.breakers.not_closed.values() if b.state is BreakerState.PROBING]
        )
        if node.running > len(probed):
            yield Violation(LAW, f"the model server of {name} still works on {node.running} calls")


def check_times(world: World) -> Iterator[Violation]:
    """For runs without other faults than doubled steps and cancels."""
    for outcomes in world.history.outcomes_of.values():
        claims = [w for w in outcomes if isinstance(w.value, StepClaimed)]
        for losing in claims[1:]:
            if losing.value.claim != claims[0].value.claim:
                yield from _ends_within(losing, outcomes, losing.at, CLAIM_SECONDS, "lost to an earlier claim")
    cancels = {w.value.job: w.at for w in reversed(world.history.outcomes) if isinstance(w.value, CancelRequested)}
    cancels |= {given.cancelled: given.at for given in world.history.given.values() if given.cancelled is not None}
    for outcomes in world.history.outcomes_of.values():
        for claimed in outcomes:
            cancelled_at = cancels.get(claimed.value.job)
            if isinstance(claimed.value, StepClaimed) and cancelled_at is not None:
                yield from _ends_within(claimed, outcomes, max(cancelled_at, claimed.at), CANCEL_SECONDS, "was cancelled")


def _ends_within(claimed: Written, outcomes: list[Written], since: float, seconds: float, why: str) -> Iterator[Violation]:
    kinds = StepSucceeded | StepFailed | StepReleased
    ends = [w.at for w in outcomes if isinstance(w.value, kinds) and w.value.claim == claimed.value.claim]
    if not ends or min(ends) > since + seconds:
        taken = f"{min(ends) - since:.2f} s" if ends else "not at all"
        yield Violation(LAW, f"the claim {claimed.value.claim} {why}: stopped after {taken}", claimed.value.job)
