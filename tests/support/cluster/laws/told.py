"""Waiting for a node: a job that nobody can run is told what is missing, at once and at its end; no other ends for want of one."""

from __future__ import annotations

from collections.abc import Iterator

from shared.contracts.event import AttemptFailed, JobSettled, StepWaits
from shared.contracts.failure import FailureKind
from tests.support.cluster.violation import Violation
from tests.support.cluster.world import World

LAW = "it is told what is missing"
NOBODY_HAS = "nobody-has-this"


def check(world: World) -> Iterator[Violation]:
    """Over every valid event: no failure for want of a node without the reason, no such failure of a model that there is."""
    for home in world.history.events:
        told: set[str] = set()
        for event in (written.value for written in world.history.valid(home)):
            if isinstance(event, StepWaits) and any(NOBODY_HAS in phrase for phrase in event.missing):
                told.add(event.job)
            elif isinstance(event, AttemptFailed) and event.failure.kind is FailureKind.NO_NODE:
                if not any(NOBODY_HAS in phrase for phrase in event.failure.missing):
                    yield Violation(LAW, f"{event.job} failed for want of {event.failure.missing or 'nothing that is said'}", event.job)
            elif isinstance(event, JobSettled) and _for_want_of_a_node(event) and event.job not in told:
                yield Violation(LAW, f"{event.job} waited in silence", event.job)


def _for_want_of_a_node(event: JobSettled) -> bool:
    return event.result.failure is not None and event.result.failure.kind is FailureKind.NO_NODE
