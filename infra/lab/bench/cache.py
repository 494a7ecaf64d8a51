"""`python -m infra.lab.bench.cache --asks N`: what a hit costs over REST and Kafka, what asking adds to a miss, and that nobody is served
another tenant's answer.

One cluster, one cache, a Redis that evicts, a node whose answers are simulated, at once. One question at a time, in turns:

    off    nothing is asked of the cache           miss   it is asked, and there is nothing           hit   there is

A hit that is none, since a busy machine's cache did not answer in time, is `unanswered`.

Then ten tenants ask the same questions: what any of them is served that it has not asked before is a false hit.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import click
import uvloop

from infra.lab.bench import machine
from infra.lab.bench.figures import Budget, Figures, Spreads, median_of, most_of, percentile
from infra.lab.bench.local import IN_PROCESS, local_cluster, started_broker
from infra.lab.bench.outcome import Outcome, bench_options
from infra.native import ports
from infra.native.cluster import LocalCluster
from infra.native.errors import NativeError
from infra.native.paths import StackHome
from infra.native.redis import RedisServer
from shared.clock import SystemClock
from shared.kafka.client.aio import AioLog
from shared.kafka.port import TopicPartition

WAYS = ("off", "miss", "hit")
TENANTS, SHARED = 10, 20
BUDGETS: tuple[Budget[Spreads], ...] = (
    Budget("exact hit, p50", "ms", median_of("hit.p50_ms"), at_most=10.0),
    Budget("added to a miss, p50", "ms", median_of("added_ms"), at_most=8.0),
    Budget("records of the cache where nothing is asked, in any run", "records", most_of("records_where_off"), at_most=0.0),
    Budget("false hits across tenants, in any run", "hits", most_of("false_hits"), at_most=0.0),
)
_CLOCK = SystemClock()


class NotServed(Exception):
    """An answer did not come, or not from where it should."""


class Asking:
    """One client."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, url

    async def ask(self, text: str, *, cached: bool, tenant: str = "bench") -> tuple[str, float]:
        """What `x-tutti-cache` says, and milliseconds. Raises NotServed."""
        body = {"model": "in-process", "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 16}
        head = {"x-tutti-tenant": tenant, **({"x-tutti-cache": "exact"} if cached else {})}
        began = _CLOCK.monotonic()
        async with self._session.post(f"{self._url}/v1/chat/completions", json=body, headers=head) as response:
            told = await response.text()
            if response.status != 200:
                raise NotServed(f"{response.status} {told[:200]}")
        return response.headers.get("x-tutti-cache", "off").partition(";")[0], (_CLOCK.monotonic() - began) * 1e3


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


async def measure(cluster: LocalCluster, asks: int, run: int) -> tuple[Figures, dict[str, list[float]]]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        asking = Asking(session, cluster.url)
        before = await _records(cluster)
        for number in range(asks):
            await asking.ask(f"warm {run} {number}", cached=False)
        where_off = await _records(cluster) - before
        await asking.ask(f"known {run}", cached=True)
        await _CLOCK.sleep(0.2)
        measured: dict[str, list[float]] = {way: [] for way in WAYS}
        unanswered = 0
        for number in range(asks):
            for way in WAYS:
                text = f"known {run}" if way == "hit" else f"{way} {run} {number}"
                said, took = await asking.ask(text, cached=way != "off")
                if said == way:
                    measured[way].append(took)
                elif way == "hit":
                    unanswered += 1
                else:
                    raise NotServed(f"{way}: the answer is a {said}")
        if not measured["hit"]:
            raise NotServed("nothing was served")
        false_hits = 0
        for number in range(TENANTS):
            questions = [f"shared {run} {n}" for n in range(SHARED)]
            told = await asyncio.gather(*(asking.ask(text, cached=True, tenant=f"tenant-{number}") for text in questions))
            false_hits += sum(kind == "hit" for kind, _ in told)
    return {**_figures(measured, where_off, false_hits), "unanswered": unanswered}, measured


def _figures(measured: dict[str, list[float]], where_off: int, false_hits: int) -> Figures:
    def at(way: str, share: float, values: Sequence[float]) -> tuple[str, float]:
        return f"{way}.p{share * 100:.0f}_ms", round(percentile(values, share), 2)

    found: Figures = dict(at(way, share, values) for way, values in measured.items() for share in (0.5, 0.99))
    added = percentile(measured["miss"], 0.5) - percentile(measured["off"], 0.5)
    return {**found, "added_ms": round(added, 2), "records_where_off": where_off, "false_hits": false_hits}


@click.command(context_settings={"show_default": True})
@click.option("--asks", default=200, type=click.IntRange(10, 100_000), help="Of each way, in each repeat.")
@bench_options("Of all asks, on one cluster.")
def main(*, asks: int, repeats: int, servers: str | None, json_file: Path | None) -> None:
    """Measure the exact cache."""
    facts, runs = machine.facts(), list[tuple[Figures, dict[str, list[float]]]]()
    try:
        with tempfile.TemporaryDirectory(prefix="tutti-cache-") as made, started_broker(servers) as kafka:
            store = RedisServer(StackHome(Path(made)), ports.free_ports(1)[0], dies_with_parent=True, name="redis-cache", evicts=True)
            store.start()
            options = {"nodes": [IN_PROCESS], "copies": {"cache": 1}, "environment": {"TUTTI_CACHE__STORE": store.url}}
            with local_cluster("cache", kafka, **options) as cluster:
                for repeat in range(repeats):
                    runs.append(uvloop.run(measure(cluster, asks, repeat)))
                    click.echo("  " + ", ".join(f"{name} {value:g}" for name, value in runs[-1][0].items()), err=True)
            store.stop()
    except (NotServed, NativeError) as error:
        raise click.ClickException(str(error)) from error
    settings = {"asks": asks, "repeats": repeats}
    found = [figures for figures, _ in runs]
    Outcome("cache", "the node's answers are simulated", facts, settings, found, BUDGETS, {"asks_ms": [raw for _, raw in runs]}).end(
        json_file
    )


if __name__ == "__main__":
    main()
