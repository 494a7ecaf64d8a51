"""Batches: each is over in the end; each line of it that was sent is accepted once and has at most one row, which says how its job
ended; the counts are those of the rows; and where nobody cancelled it, nor its time was over, each line has one.
"""

from __future__ import annotations

from collections.abc import Iterator

from shared.batches import unlinked
from shared.contracts.batch import BatchChanged, BatchSubmitted, LineRow
from shared.contracts.blob import BlobRef
from shared.contracts.event import JobAccepted
from shared.contracts.result import Status
from shared.derived import line_id
from shared.kafka.port import TopicPartition
from tests.support.cluster.violation import Violation
from tests.support.cluster.world import World

LAW = "batches"
Key = tuple[str, str]


def asked(world: World) -> set[Key]:
    """By those that were told of."""
    return {(told.tenant, told.batch) for told in (written.value for written in world.history.outcomes) if isinstance(told, BatchSubmitted)}


def newest(world: World) -> dict[Key, BatchChanged]:
    found = (written.value for written in world.history.all_valid() if isinstance(written.value, BatchChanged))
    return {(event.tenant, event.batch): event for event in found}


def unfinished(world: World) -> bool:
    """Whether any batch goes on."""
    wanted = asked(world)
    if not wanted:
        return False
    known = newest(world)
    return any(key not in known or known[key].over_at is None for key in wanted)


def check(world: World) -> Iterator[Violation]:
    """After convergence."""
    known, accepted = newest(world), dict[str, int]()
    for written in world.history.all_valid():
        if isinstance(written.value, JobAccepted):
            accepted[written.value.job] = accepted.get(written.value.job, 0) + 1
    for key in asked(world):
        batch = known.get(key)
        if batch is None or batch.over_at is None:
            yield Violation(LAW, f"batch {key} is not over: {batch and batch.status}")
        else:
            yield from _of_one(world, batch, accepted)


def _of_one(world: World, batch: BatchChanged, accepted: dict[str, int]) -> Iterator[Violation]:
    rows = list(_rows(world, batch))
    numbers = [row.line for row in rows]
    if len(numbers) != len(set(numbers)):
        yield Violation(LAW, f"{batch.batch}: a line has several rows: {sorted(numbers)}")
    good = sum(row.result.status is Status.SUCCEEDED for row in rows)
    if (good, len(rows) - good) != (batch.completed, batch.failed):
        yield Violation(LAW, f"{batch.batch}: it counts {batch.completed} and {batch.failed}, its rows {good} and {len(rows) - good}")
    rest = {*batch.open, *range(batch.next, batch.lines)}
    if sorted({*numbers} | rest) != list(range(batch.lines)) or rest & {*numbers}:
        yield Violation(LAW, f"{batch.batch}: rows {sorted(numbers)}, not run {sorted(rest)}, of {batch.lines}")
    if rest and batch.ending is None:
        yield Violation(LAW, f"{batch.batch}: completed without {sorted(rest)}")
    for row in rows:
        name = line_id(batch.tenant, batch.batch, row.line, world.topics.settings.home_partitions)
        settled = world.history.settled.get(name)
        if settled is None or settled.value.result != row.result:
            yield Violation(LAW, f"{batch.batch}: the row of line {row.line} is not the end of its job", name)
        if accepted.get(name, 0) != 1:
            yield Violation(LAW, f"{batch.batch}: line {row.line} was accepted {accepted.get(name, 0)} times", name)


def _rows(world: World, batch: BatchChanged) -> Iterator[LineRow]:
    lies = batch.newest
    while lies is not None:
        lies, rows = unlinked(_body(world, lies))
        yield from map(LineRow.model_validate_json, rows)


def _body(world: World, lies: BlobRef) -> bytes:
    records = world.log.existing(TopicPartition(world.topics.blobs, lies.partition)).records
    return b"".join(getattr(record, "value", b"") for record in records if lies.first <= record.offset <= lies.last and lies.chunks == 1)
