"""Sinks beside a whole simulated cluster with drawn faults: what real planners write, take over, repeat and reuse is counted exactly.

jobs of all kinds ──► cluster (kills, pauses, take-overs) ──► job-events ──► two sinks, which are killed too ──► totals = recount
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from infra.verify.recount import counted
from services.sink.port import AUDIT, TOTALS, USAGE
from shared.audit import GENESIS, broken
from shared.kafka.memory.memory_partition import MemoryRecord
from shared.kafka.port import Message, TopicPartition
from shared.telemetry import gen_ai, tracing
from shared.telemetry.spans import spans_of
from tests.support.cluster import processes
from tests.support.cluster.faults import drawn
from tests.support.cluster.storm import Storm
from tests.support.cluster.workload import Workload
from tests.support.cluster.world import World
from tests.support.sink_history import recount

pytestmark = pytest.mark.usefixtures("quiet")

SINKS = ("sink-1", "sink-2")


class Written:
    """All that ever lay in `job-events`, also what retention has deleted since."""

    def __init__(self, world: World) -> None:
        self._topic = world.topics.job_events
        self.homes: defaultdict[int, list[Message]] = defaultdict(list)
        world.log.written_listeners.append(self._on_written)

    def _on_written(self, records: Sequence[MemoryRecord]) -> None:
        for record in records:
            if record.topic == self._topic:
                messages = self.homes[record.partition]
                assert record.offset == len(messages)
                messages.append(Message(record.topic, record.value, record.key, record.partition, tuple(record.headers)))


async def _run(seed: int) -> None:
    mix = drawn(Random(seed))
    async with World(seed, mix, SINKS) as world:
        world.store.fails = 0.05
        written, storm = Written(world), Storm(world, Random(seed + 2))
        load = Workload(world, Random(seed + 3), mix.jobs, mix.arrive_seconds or mix.seconds, None)
        world.start_all()
        await asyncio.sleep(1.0)
        storm.begin()
        await load.run()
        await asyncio.sleep(mix.seconds)
        await storm.heal()
        await load.finish()
        assert await world.until(lambda: _all_read(world, written), 300.0)
        assert [ended for ended in world.ended if ended.startswith("sink")] == []
        rows: list[dict[str, Any]] = list(world.store.documents[TOTALS].values())
        assert counted(rows) == recount(list(written.homes.values()))
        for home in written.homes:
            blocks = [row for row in world.store.documents[AUDIT].values() if row["home"].endswith(f".{home}")]
            entries = sorted((entry for block in blocks for entry in block["entries"].values()), key=lambda entry: entry["offset"])
            assert broken(entries, GENESIS) is None
        told = _check_traces(world)
        assert told or seed, "jobs of ingresses have a trace"


def _check_traces(world: World) -> int:
    """What a node was asked for carries the span of its attempt, wherever the sink has that from; of how many calls that was seen."""
    called = {trace and (tracing.trace_id(trace), trace[36:52]) for node in world.nodes.values() for trace in node.traces}
    told = 0
    for row in world.store.documents[USAGE].values():
        if "settled" not in row or "trace" not in row:
            continue
        for span in spans_of(row):
            if span.calls and span.error is None and span.attributes[gen_ai.OPERATION] == gen_ai.CHAT:
                assert (span.trace, span.id) in called, row["job"]
                told += 1
    return told


def _all_read(world: World, written: Written) -> bool:
    """The last job has ended some time ago, and all is committed."""
    offsets = world.log.group("tutti-sink").offsets
    return all(
        (offsets.get(TopicPartition(world.topics.job_events, home)) or 0) >= len(messages) for home, messages in written.homes.items()
    )


@pytest.mark.parametrize("seed", range(8))
def test_totals_are_exact_beside_a_cluster_that_breaks(seed: int) -> None:
    """Whatever dies, the sinks count what a plain recount of history counts."""
    processes.run(_run(seed))
