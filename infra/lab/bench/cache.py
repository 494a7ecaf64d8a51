"""What a hit costs over REST and Kafka, what asking adds to a miss, and that nobody is served another tenant's answer.

One cluster, one cache, a Redis that evicts, a node whose answers are simulated, at once. One question at a time, in turns:

    off    nothing is asked of the cache           miss   it is asked, and there is nothing           hit   there is

A hit that is none, since a busy machine's cache did not answer in time, is `unanswered`.

Then ten tenants ask the same questions: what any of them is served that it has not asked before is a false hit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
import click

from infra.lab.bench.asking import Asking
from infra.lab.bench.figures import Budget, Figures, median_of, most_of, percentile
from infra.lab.bench.runner import IN_PROCESS, Bench, Lab, Unmeasured, option
from infra.native import ports
from infra.native.cluster import LocalCluster
from infra.native.processes import started
from infra.native.redis import RedisServer
from shared.clock import SystemClock
from shared.kafka.client.aio import AioLog
from shared.kafka.port import TopicPartition

WAYS = ("off", "miss", "hit")
TENANTS, SHARED = 10, 20
_CLOCK = SystemClock()


async def _records(cluster: LocalCluster) -> int:
    """On the cache's topics."""
    log, topics = AioLog(cluster.servers, _CLOCK), cluster.topics
    consumer = await log.consumer(client_id="bench-cache")
    try:
        partitions = [TopicPartition(name, n) for name in (topics.lookups, topics.fills) for n in range(topics.partitions("other"))]
        return sum((await consumer.end_offsets(partitions)).values())
    finally:
        await consumer.close()
        await log.close()


async def _run(cluster: LocalCluster, asks: int, run: int) -> tuple[dict[str, float], dict[str, list[float]]]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        asking = Asking(session, cluster.url, "in-process")
        before = await _records(cluster)
        for number in range(asks):
            await asking.ask(f"warm {run} {number}")
        found: dict[str, float] = {"records_where_off": await _records(cluster) - before, "unanswered": 0.0, "false_hits": 0.0}
        await asking.ask(f"known {run}", wish="exact")
        await _CLOCK.sleep(0.2)
        measured: dict[str, list[float]] = {way: [] for way in WAYS}
        for number in range(asks):
            for way in WAYS:
                text = f"known {run}" if way == "hit" else f"{way} {run} {number}"
                said, took = await asking.ask(text, wish="" if way == "off" else "exact")
                if (said := said.partition(";")[0] or "off") == way:
                    measured[way].append(took)
                elif way == "hit":
                    found["unanswered"] += 1
                else:
                    raise Unmeasured(f"{way}: the answer is a {said}")
        if not measured["hit"]:
            raise Unmeasured("nothing was served")
        for number in range(TENANTS):
            questions = [f"shared {run} {n}" for n in range(SHARED)]
            told = await asyncio.gather(*(asking.ask(text, wish="exact", tenant=f"tenant-{number}") for text in questions))
            found["false_hits"] += sum(said.startswith("hit") for said, _ in told)
    return found, measured


@contextmanager
def _cluster(lab: Lab) -> Iterator[LocalCluster]:
    redis = RedisServer(lab.home, ports.free_ports(1)[0], dies_with_parent=True, name="redis-cache", evicts=True)
    with (
        started(redis),
        lab.cluster("cache", nodes=[IN_PROCESS], copies={"cache": 1}, environment={"TUTTI_CACHE__STORE": redis.url}) as cluster,
    ):
        yield cluster


def measure(lab: Lab, repeat: int, *, asks: int) -> Figures:
    """Measure the exact cache."""
    found, measured = lab.run(_run(lab.kept(_cluster, lab), asks, repeat))
    lab.detail("asks_ms", measured)
    for way, values in measured.items():
        found |= {f"{way}.p{100 * share:.0f}_ms": round(percentile(values, share), 2) for share in (0.5, 0.99)}
    return {**found, "added_ms": round(found["miss.p50_ms"] - found["off.p50_ms"], 2)}


BENCH = Bench(
    measure,
    "the node's answers are simulated",
    (
        Budget("exact hit, p50", "ms", median_of("hit.p50_ms"), at_most=10.0),
        Budget("added to a miss, p50", "ms", median_of("added_ms"), at_most=8.0),
        Budget("records of the cache where nothing is asked", "records", most_of("records_where_off"), at_most=0.0),
        Budget("false hits across tenants, in any run", "hits", most_of("false_hits"), at_most=0.0),
    ),
    (option("asks", 200, "Of each way, in each run.", type=click.IntRange(10, 100_000)),),
    quick={"asks": 10},
)
