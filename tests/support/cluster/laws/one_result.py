"""Law 1: every job that Kafka has taken ends in exactly one result, which is its one settle event's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from shared.contracts.event import JobAccepted, JobSettled
from shared.contracts.failure import FailureKind
from tests.support.cluster.history import Written
from tests.support.cluster.laws import schedules, told
from tests.support.cluster.violation import Violation
from tests.support.cluster.world import World

LAW = "one result"


def check(world: World) -> Iterator[Violation]:
    """After convergence."""
    history = world.history
    jobs = history.jobs()
    settled: dict[str, list[Written]] = defaultdict(list)
    accepted: dict[str, list[Written]] = defaultdict(list)
    for written in history.all_valid():
        if isinstance(written.value, JobSettled):
            settled[written.value.job].append(written)
        elif isinstance(written.value, JobAccepted):
            accepted[written.value.job].append(written)
    runs = schedules.runs(world)
    for job in {**jobs, **accepted}:
        if job not in history.results:
            yield Violation(LAW, f"job {job} has no result", job)
    for job, results in history.results.items():
        ends = [written.value.result.to_bytes() for written in settled[job]]
        if len(results) > 1:
            yield Violation(LAW, f"job {job} has {len(results)} different results", job)
        if len(accepted[job]) > 1:
            yield Violation(LAW, f"job {job} was accepted {len(accepted[job])} times", job)
        if not ends:
            yield Violation(LAW, f"job {job} has a result, but no valid settle event", job)
        elif len(ends) > 1:
            yield Violation(LAW, f"job {job} has {len(ends)} settle events", job)
        elif results[0].at < settled[job][0].at:
            yield Violation(LAW, f"job {job}: the result was published before its settle event lay in the log", job)
        elif ends[0] != results[0].value.to_bytes():
            yield Violation(LAW, f"job {job}: the result is not the settle event's", job)
        failure = results[0].value.failure
        if failure is not None and failure.kind is FailureKind.NO_NODE and not any(told.NOBODY_HAS in what for what in failure.missing):
            yield Violation("nothing fails without a cause", f"job {job} found no node, but nodes were there: {failure.message}", job)
        if job not in jobs and job not in runs:
            yield Violation(LAW, f"job {job} has a result, but nobody gave it", job)
    for given in history.given.values():
        place = (given.where.topic, given.where.partition, given.offset)
        if given.job is None and place not in history.buried and not given.cancel:
            yield Violation("nothing fails silently", f"the record {place} is no job and not in dead-letters")
