"""Delays: nothing that is delayed is begun early, and what was cancelled before it was begun never runs. Lost ones `tutti verify` finds.

Order is what the planner read: a cancel of a Kafka producer lies before the record that the job was accepted from, in the same partition;
any other is an event of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

from shared.clock import LOOP_EPOCH
from shared.contracts.event import CancelRecorded, JobAccepted, StepAsked, StepFunded, StepRetried
from shared.kafka.port import TopicPartition
from tests.support.cluster.violation import Violation
from tests.support.cluster.world import World

EARLY = "nothing delayed is early"
CANCELLED = "what was cancelled does not run"
_SLACK = 0.01


def check(world: World) -> Iterator[Violation]:
    """Over every valid event, in order."""
    due = {given.job.id: given.job.job.not_before for given in world.history.given.values() if given.job is not None}
    before = _read_before(world)
    cancelled: set[str] = set()
    for written in world.history.all_valid():
        event = written.value
        if isinstance(event, CancelRecorded):
            cancelled.add(event.job)
        elif isinstance(event, JobAccepted):
            place = f"{event.source.rsplit('/', 2)[0].partition('@')[0]}/{event.home}"
            if any(offset < event.source_offset for offset in before.get((event.job, place), ())):
                cancelled.add(event.job)
        elif isinstance(event, StepAsked | StepRetried | StepFunded):
            if event.job in cancelled:
                yield Violation(CANCELLED, f"job {event.job}: {event.type} after its cancel", event.job)
            # A job that was cancelled before it came ends when it is read: that is no beginning.
            early = (due.get(event.job) or 0.0) - LOOP_EPOCH - written.at
            if early > world.mix.skew_seconds + _SLACK:
                yield Violation(EARLY, f"job {event.job} began {early:.2f} s before it was due", event.job)


def _read_before(world: World) -> dict[tuple[str, str], list[int]]:
    """(job, topic/partition) → offsets of its cancels there."""
    found: dict[tuple[str, str], list[int]] = {}
    for given in world.history.given.values():
        if given.cancelled is not None:
            where: TopicPartition = given.where
            found.setdefault((given.cancelled, f"{where.topic}/{where.partition}"), []).append(given.offset)
    return found
