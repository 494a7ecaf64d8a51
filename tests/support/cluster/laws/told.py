"""Waiting for a node: a job that nobody can run is told what is missing, at once and at its end; no other ends for want of one."""

from __future__ import annotations

from collections.abc import Iterator

from shared.contracts.event import AttemptFailed, JobAccepted, JobSettled, StepWaits
from shared.contracts.failure import FailureKind
from shared.contracts.job import Job
from tests.support.cluster.violation import Violation
from tests.support.cluster.world import World

LAW = "it is told what is missing"
NOBODY_HAS = "nobody-has-this"


def check(world: World) -> Iterator[Violation]:
    """Over every valid event: no failure for want of a node without the reason, no such failure of a model that there is."""
    for home in world.history.events:
        told: set[str] = set()
        hopeless: set[str] = set()
        for event in (written.value for written in world.history.valid(home)):
            if isinstance(event, JobAccepted) and event.request.deadline_at is None and _lacks(event.request):
                hopeless.add(event.job)
            elif isinstance(event, StepWaits) and any(NOBODY_HAS in phrase for phrase in event.missing):
                told.add(event.job)
            elif isinstance(event, AttemptFailed) and event.failure.kind is FailureKind.NO_NODE:
                if not any(NOBODY_HAS in phrase for phrase in event.failure.missing):
                    yield Violation(LAW, f"{event.job} failed for want of {event.failure.missing or 'nothing that is said'}", event.job)
            elif isinstance(event, JobSettled) and _says_nothing(event):
                yield Violation(LAW, f"{event.job} ended for want of a node, and does not say of what", event.job)
            elif isinstance(event, JobSettled) and _for_want_of_a_node(event) and event.job not in told:
                yield Violation(LAW, f"{event.job} waited in silence", event.job)
            elif isinstance(event, JobSettled) and event.job in hopeless and not _for_want_of_a_node(event):
                yield Violation(
                    LAW, f"{event.job}, which no node can run, ended as {event.result.status}: {event.result.failure}", event.job
                )


def _lacks(job: Job) -> bool:
    return any(NOBODY_HAS in (wanted or "") for wanted in (job.model, job.needs.node, *job.needs.tags))


def _says_nothing(event: JobSettled) -> bool:
    failure = event.result.failure
    return failure is not None and failure.kind is FailureKind.NO_NODE and not any(NOBODY_HAS in phrase for phrase in failure.missing)


def _for_want_of_a_node(event: JobSettled) -> bool:
    """Or because a class's own deadline was over first; then it says all the same what was missing."""
    failure = event.result.failure
    if failure is None or failure.kind is FailureKind.NO_NODE:
        return failure is not None
    return failure.kind is FailureKind.DEADLINE and any(NOBODY_HAS in phrase for phrase in failure.missing)
