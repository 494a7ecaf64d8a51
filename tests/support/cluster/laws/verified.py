"""Laws 1 to 3 as `tutti verify` judges them on real clusters, here on all that was ever written to the simulated one; and what it cannot
see: who gave a job, and what lay in the log first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from infra.verify.checker import Scope
from infra.verify.reading import verify
from infra.verify.report import RecordPlace
from shared.contracts.event import JobSettled
from shared.kafka.port import Log
from shared.sealing.cipher import ClusterKeys
from shared.sealing.key_ring import KeyRing
from shared.sealing.sealed_log import SealedLog
from tests.support.cluster.laws import schedules
from tests.support.cluster.violation import Violation
from tests.support.cluster.world import World

GIVEN = "results are of what was given, and in history first"


async def check(world: World) -> list[Violation]:
    """After convergence: everything must have ended. A violation's law is its kind's name (`infra/verify/laws.py`)."""
    log: Log = world.log.process("verify")
    if world.sealed is not None:
        ring = KeyRing(log, world.clock, world.topics, ClusterKeys(str(world.sealed)), client_id="verify")
        log = SealedLog(log, world.clock, world.topics, ring)
    unread = (w for events in world.history.events.values() for w in events if w.value is None)
    odd = {RecordPlace(*place) for place in world.history.odd} | {RecordPlace(*w.where, w.offset) for w in unread}
    with _undeleted(world):
        report = await verify(log, Scope(world.topics, world.log.id, settled=True, foreign=odd), world.clock)
    found = [
        Violation(kind.value, f"{example.place}, job {example.job}: {example.detail}", example.job)
        for kind, finding in report.findings.items()
        for example in finding.examples
    ]
    return [*found, *_given(world)]


@contextmanager
def _undeleted(world: World) -> Iterator[None]:
    """Meanwhile the log holds all that it ever held. What was done twice long ago was done twice."""
    assert world.retention is not None
    world.retention.cancel()
    found = [(world.log.existing(where), gone) for where, gone in world.expired.items()]
    begins = [partition.begin for partition, _ in found]
    for partition, gone in found:
        partition.records[:0], partition.begin = gone, 0
    yield
    for (partition, _), begin in zip(found, begins, strict=True):
        partition.delete_before(begin)


def _given(world: World) -> Iterator[Violation]:
    history = world.history
    known, settled = {*history.jobs(), *schedules.runs(world)}, dict[str, float]()
    for written in history.all_valid():
        if isinstance(written.value, JobSettled):
            settled.setdefault(written.value.job, written.at)
    for job, results in history.results.items():
        if results[0].at < settled.get(job, 0.0):
            yield Violation(GIVEN, f"job {job}: the result was published before its settle event lay in the log", job)
        if job not in known:
            yield Violation(GIVEN, f"job {job} has a result, but nobody gave it", job)
