"""A later boot of a node voids what an earlier one has claimed: exactly that, only when the earlier one is gone, and at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from shared.contracts.event import AttemptFailed, JobSettled, StepAnswered, StepClaimedBy
from shared.contracts.failure import FailureKind
from shared.contracts.outcome import WorkerStarted, incarnation_of
from tests.support.cluster.history import Written
from tests.support.cluster.violation import Violation
from tests.support.cluster.world import World

LAW = "only what a boot that is gone has claimed is void"
TIME = "what a boot that is gone has claimed is void at once"
VOID_SECONDS = 2.0
"""From WorkerStarted to the event, links included."""


class _Claim(NamedTuple):
    event: StepClaimedBy
    since: float
    until: float
    ended_by: object


def check(world: World) -> Iterator[Violation]:
    """Of an earlier boot that nobody could hear nobody knows that it runs: where sends fail for long, it may be."""
    if not (world.mix.away or world.mix.refuse or world.mix.stall):
        for voided in world.voided_early:
            yield Violation(LAW, f"the earlier boot still ran {voided}")
    started = _started(world)
    for home in sorted(world.history.events):
        for claim in _claims(world, home):
            failed = claim.ended_by
            if (
                not isinstance(failed, AttemptFailed)
                or failed.failure.kind is not FailureKind.NODE_LOST
                or "again" not in failed.failure.message
            ):
                continue
            told = [w for w in started[home, claim.event.node] if w.at <= claim.until]
            if all(w.value.incarnation <= incarnation_of(claim.event.claim) for w in told):
                yield Violation(LAW, f"no later boot has told home {home} of itself, and {claim.event.claim} is void", failed.job)


def check_times(world: World) -> Iterator[Violation]:
    """For runs in which planners and the brokers do as they should."""
    started = _started(world)
    for home in sorted(world.history.events):
        for claim in _claims(world, home):
            for told in started[home, claim.event.node]:
                later = told.at >= claim.since and told.value.incarnation > incarnation_of(claim.event.claim)
                if later and claim.until - told.at > VOID_SECONDS:
                    yield Violation(TIME, f"{claim.event.claim} stood for {claim.until - told.at:.1f} s more", claim.event.job)


def _started(world: World) -> dict[tuple[int, str], list[Written]]:
    found: dict[tuple[int, str], list[Written]] = defaultdict(list)
    for written in world.history.outcomes:
        if isinstance(written.value, WorkerStarted):
            found[written.where.partition, written.value.node].append(written)
    return found


def _claims(world: World, home: int) -> Iterator[_Claim]:
    """Every claim that stood, by history."""
    standing: dict[str, Written] = {}
    for written in world.history.valid(home):
        event = written.value
        if isinstance(event, StepClaimedBy):
            standing[event.step] = written
        elif isinstance(event, AttemptFailed | StepAnswered) and event.step in standing:
            claimed = standing.pop(event.step)
            yield _Claim(claimed.value, claimed.at, written.at, event)
        elif isinstance(event, JobSettled):
            for step in [step for step, claimed in standing.items() if claimed.value.job == event.job]:
                claimed = standing.pop(step)
                yield _Claim(claimed.value, claimed.at, written.at, event)
