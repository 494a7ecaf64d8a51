"""Timers: nothing is given up before its time, whatever happened in between, and nothing that was in the log when it became due is ignored.

A lease runs from its claim or its last renewal, a claim timeout from routing, or from asking where the planner gave the step to a node
itself, the wait for a node from asking, or from when the same attempt was first sent, by an acceptance that was lost: routers count that. A
take-over gives each a full period again.
A user's deadline is absolute; any other runs from acceptance, whatever the clocks of planners, routers and workers say.

Of a job whose acceptance was lost, and that its record brought again, only what came after the take-over counts: its outcomes of before
were read before its record was, so they were of no job. They are waste; the step goes out again under the same id.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from shared.clock import LOOP_EPOCH
from shared.contracts.event import AttemptFailed, JobAccepted, JobSettled, PlannerStarted, StepAsked, StepClaimedBy, StepRetried, facts_of
from shared.contracts.failure import FailureKind
from shared.contracts.outcome import ClaimsRenewed, StepClaimed, StepFailed, StepRouted, StepSucceeded
from shared.contracts.result import Status
from tests.support.cluster import settings
from tests.support.cluster.history import Written
from tests.support.cluster.violation import Violation
from tests.support.cluster.world import World

LAW = "nothing is given up before its time"
FENCE = "a timer fires after every outcome that was there"
DEADLINE = "deadlines hold"
_SLACK = 0.05
_DEADLINE_SECONDS = 9.0
"""Longest time from a deadline to the job's end, besides the time in which planners were away: a take-over, links."""
_HEARD_SECONDS = 1.0
"""From a record of credits to its being heard, which nobody hurries; and from a decision to its event."""
_EARLY = 3.0
"""Between an append and its arrival, and back: a planner counts from the one, the next planner from the other."""


@dataclass(slots=True)
class _Step:
    begun_at: float
    claim: str | None = None
    given_at: float | None = None
    """When this attempt was asked for, if its planner wrote it into a mailbox itself."""


def check(world: World) -> Iterator[Violation]:
    """Over every home's valid events."""
    renewals = _renewals(world)
    for home in sorted(world.history.events):
        yield from _home(world, home, renewals)


def _renewals(world: World) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for written in world.history.outcomes:
        if isinstance(written.value, ClaimsRenewed):
            for claim in written.value.claims:
                found[claim].append(written.at)
    return found


def _home(world: World, home: int, renewals: dict[str, list[float]]) -> Iterator[Violation]:
    steps: dict[str, _Step] = {}
    deadlines: dict[str, float] = {}
    known_since: dict[str, float] = {}
    """job → when the planner that accepted it took the home"""
    durations: dict[str, float] = {}
    taken_at = 0.0
    valid = {(w.where, w.offset) for w in world.history.valid(home)}
    for written in (event._replace(value=fact) for event in world.history.events[home] for fact in facts_of(event.value)):
        event = written.value
        if isinstance(event, PlannerStarted):
            taken_at = written.at
        elif (written.where, written.offset) not in valid:
            continue
        elif isinstance(event, JobAccepted):
            deadlines[event.job] = event.deadline_at - LOOP_EPOCH
            known_since[event.job] = taken_at
            if event.deadline_seconds is not None:
                deadlines[event.job] = durations[event.job] = written.at + event.deadline_seconds
        elif isinstance(event, StepAsked | StepRetried):
            attempt = event.attempt if isinstance(event, StepRetried) else 1
            given_at = written.at if isinstance(event, StepAsked) and event.node is not None else None
            if attempt == 1 and event.step in world.history.looked_up and (eager := world.history.eager_of(event.step)) is not None:
                given_at = eager.written.at  # once there was no answer
            begun_at = min(written.at, world.history.first_sent.get((event.step, attempt), written.at))
            steps[event.step] = _Step(begun_at, given_at=given_at)
        elif isinstance(event, StepClaimedBy | AttemptFailed) and event.step not in steps:
            continue  # which nobody asked for: another law's
        elif isinstance(event, StepClaimedBy):
            steps[event.step].claim = event.claim
        elif isinstance(event, AttemptFailed):
            since = known_since.get(event.job, 0.0)
            outcomes = [w for w in world.history.outcomes_of.get((event.step, event.attempt), []) if w.at >= since]
            if event.failure.kind is FailureKind.UNCHECKED:
                yield from _unchecked(written, steps[event.step], taken_at)
            yield from _failed(written, steps[event.step], taken_at, outcomes, renewals, no_node_seconds=world.mix.no_node_seconds)
            yield from _lost(world, written, steps[event.step], renewals)
        elif isinstance(event, JobSettled) and event.job in deadlines:
            deadline = deadlines[event.job]
            if event.result.status is Status.EXPIRED and written.at < durations.get(event.job, 0.0) - _EARLY:
                yield Violation(LAW, f"job {event.job} expired {deadline - written.at:.1f} s before its time", event.job)
            allowed = _DEADLINE_SECONDS + world.mix.skew_seconds + world.missing("planner", deadline, written.at)
            if written.at - max(deadline, taken_at) > allowed and not (world.mix.away or world.mix.refuse or world.mix.stall):
                yield Violation(DEADLINE, f"job {event.job} ended {written.at - deadline:.1f} s after its deadline", event.job)


def _failed(
    written: Written, step: _Step, taken_at: float, outcomes: list[Written], renewals: dict[str, list[float]], *, no_node_seconds: float
) -> Iterator[Violation]:
    event = written.value
    match event.failure.kind:
        case FailureKind.LEASE_EXPIRED if step.claim is not None:
            yield from _lease(written, step.claim, taken_at, outcomes, renewals)
        case FailureKind.UNCLAIMED if event.failure.message.startswith("no worker"):
            yield from _unclaimed(written, step, outcomes)
        case FailureKind.NO_NODE if written.at - step.begun_at < no_node_seconds - 1.0:
            waited = written.at - step.begun_at
            yield Violation(LAW, f"step {event.step} waited {waited:.1f} s for a node, not {no_node_seconds:g}", event.job)
        case _:
            pass


def _unchecked(written: Written, step: _Step, taken_at: float) -> Iterator[Violation]:
    """Nor is a critic given up before its time, which a successor begins anew."""
    waited = written.at - max(step.begun_at, taken_at)
    if waited < settings.CRITIQUE_SECONDS - _EARLY:
        yield Violation(LAW, f"step {written.value.step} waited {waited:.1f} s for a critic", written.value.job)


def _lost(world: World, written: Written, step: _Step, renewals: dict[str, list[float]]) -> Iterator[Violation]:
    """A node that was heard, by credits or by renewals, is not lost; between what is written and what is heard there are links."""
    event = written.value
    if event.failure.kind is not FailureKind.NODE_LOST or event.failure.node is None or "again" in event.failure.message:
        return
    told = [at for at in (*renewals.get(step.claim or "", ()), *world.history.credits[event.failure.node]) if at <= written.at]
    silent = written.at - max(told, default=0.0)
    if silent < world.mix.node_lost_seconds - _HEARD_SECONDS - world.mix.delivery_seconds:
        yield Violation(LAW, f"{event.failure.node} was lost after {silent:.1f} s of silence", event.job)


def _lease(written: Written, claim: str, taken_at: float, outcomes: list[Written], renewals: dict[str, list[float]]) -> Iterator[Violation]:
    event = written.value
    lease = settings.LEASE_SECONDS
    name = f"the lease of {claim} (step {event.step} attempt {event.attempt})"
    claims = [w.at for w in outcomes if isinstance(w.value, StepClaimed) and w.value.claim == claim]
    if not claims:
        return
    base = claims[0] if taken_at < claims[0] else max(claims[0], taken_at)
    for renewed_at in renewals[claim]:
        if base < renewed_at <= base + lease:
            base = renewed_at
    if written.at < base + lease - _SLACK:
        yield Violation(LAW, f"{name} ended {written.at - base:.2f} s after it was given, not {lease:g}", event.job)
    kinds = StepSucceeded | StepFailed
    there = [w for w in outcomes if isinstance(w.value, kinds) and w.value.claim == claim and w.at <= base + lease - _SLACK]
    if there:
        yield Violation(FENCE, f"{name} ended although its outcome lay at {there[0].where.topic}/{there[0].offset}", event.job)


def _unclaimed(written: Written, step: _Step, outcomes: list[Written]) -> Iterator[Violation]:
    event = written.value
    name = f"step {event.step} attempt {event.attempt}"
    routed = [w.at for w in outcomes if isinstance(w.value, StepRouted) and w.at <= written.at]
    if step.given_at is not None:
        routed.insert(0, step.given_at)
    if not routed:
        yield Violation(LAW, f"{name} counts as unclaimed, but was never routed", event.job)
    elif written.at < routed[0] + settings.CLAIM_SECONDS - _SLACK:
        yield Violation(LAW, f"{name} had {written.at - routed[0]:.2f} s to be claimed, not {settings.CLAIM_SECONDS:g}", event.job)
    elif any(isinstance(w.value, StepClaimed) and w.at <= routed[0] + settings.CLAIM_SECONDS - _SLACK for w in outcomes):
        yield Violation(FENCE, f"{name} counts as unclaimed although its claim was there", event.job)
