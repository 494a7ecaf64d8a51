"""Hedges: a second attempt beside a slow one is begun once a step, where it may be, elsewhere, and nobody is stopped for it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from services.planner.deciding.hedging import SLOW
from shared.contracts.base import PriorityClass
from shared.contracts.control import StopClaims, StopStep
from shared.contracts.event import (
    AttemptFailed,
    CancelRecorded,
    JobAccepted,
    JobSettled,
    JobStopped,
    PlannerStarted,
    StepAnswered,
    StepClaimedBy,
    StepRetried,
)
from shared.contracts.outcome import CancelRequested, StepSucceeded
from tests.support.cluster.history import Written
from tests.support.cluster.violation import Violation
from tests.support.cluster.world import World

LAW = "hedges cost nobody anything"


def hedged(world: World) -> list[Written]:
    """Attempts that were given up beside another one."""
    return [w for w in world.history.all_valid() if isinstance(w.value, AttemptFailed) and w.value.failure.message == SLOW]


def won(world: World) -> int:
    """Steps that the second attempt has answered."""
    steps = {(w.value.job, w.value.step): w.value.attempt for w in hedged(world)}
    answers = (w.value for w in world.history.all_valid() if isinstance(w.value, StepAnswered))
    return sum(answer.attempt > steps[answer.job, answer.step] for answer in answers if (answer.job, answer.step) in steps)


def check(world: World) -> Iterator[Violation]:
    """Over every valid event, in order."""
    accepted: dict[str, JobAccepted] = {}
    claims: dict[tuple[str, int], StepClaimedBy] = {}
    seen: defaultdict[str, list[Written]] = defaultdict(list)
    for written in world.history.all_valid():
        event = written.value
        if isinstance(event, JobAccepted):
            accepted[event.job] = event
        elif isinstance(event, StepClaimedBy):
            claims[event.step, event.attempt] = event
        elif isinstance(event, AttemptFailed) and event.failure.message == SLOW:
            seen[event.step].append(written)
            job = accepted.get(event.job)
            if job is not None and (job.priority_class is not PriorityClass.INTERACTIVE or job.request.stream):
                yield Violation(LAW, f"step {event.step} of class {job.priority_class}, stream: {job.request.stream}, is hedged", event.job)
            if event.counted:
                yield Violation(LAW, f"attempt {event.attempt} of step {event.step} counts as a failure", event.job)
        elif isinstance(event, StepRetried) and (before := seen.get(event.step)):
            beside = before[-1].value
            if beside.attempt == event.attempt - 1 and claims[event.step, beside.attempt].node not in event.avoid:
                yield Violation(LAW, f"step {event.step} is hedged where it runs", event.job)
    for step, given_up in seen.items():
        if len(given_up) > 1 and not _taken_over(world, given_up[0], given_up[-1].at):
            yield Violation(LAW, f"step {step} is hedged {len(given_up)} times", given_up[0].value.job)
        if (claim := claims.get((step, given_up[0].value.attempt))) is not None:
            yield from _stopped_early(world, given_up[0], claim)


def _stopped_early(world: World, given_up: Written, claim: StepClaimedBy) -> Iterator[Violation]:
    """The claim beside which another attempt was begun: not before that has ended in whatever way, or another planner has the home."""
    for control in world.history.controls:
        said = control.value
        meant = (isinstance(said, StopClaims) and claim.claim in said.claims) or (isinstance(said, StopStep) and said.claim == claim.claim)
        early = meant and control.at > given_up.at and not _wanted_no_longer(world, given_up, control.at)
        if early and not _taken_over(world, given_up, control.at):
            yield Violation(LAW, f"the claim {claim.claim} was stopped for the attempt beside it", claim.job)


def _taken_over(world: World, given_up: Written, until: float) -> bool:
    events = world.history.events[given_up.where.partition]
    return any(isinstance(w.value, PlannerStarted) and given_up.at <= w.at <= until for w in events)


def _wanted_no_longer(world: World, given_up: Written, at: float) -> bool:
    """Its step has an answer, another attempt of it has failed since, or its job ends."""
    for written in world.history.of_job(given_up.value.job):
        value = written.value
        if written.at > at or (written.where, written.offset) == (given_up.where, given_up.offset):
            continue
        if isinstance(value, StepSucceeded | AttemptFailed) and value.step == given_up.value.step and written.at >= given_up.at:
            return True
        if isinstance(value, CancelRecorded | JobStopped | JobSettled | CancelRequested):
            return True
    return False
