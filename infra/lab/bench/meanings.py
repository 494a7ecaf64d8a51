"""Semantic hits through Kafka, with the real all-minilm on Ollama as a node beside.

One question of each pair is asked, then the other one; a hit is the first one's entry. Pairs: near misses by family and paraphrases, made
for this repository (`infra/lab/questions`); those of `holdout` are what nothing was tuned on. All chats go to a simulated node, which
answers at once. Times are a client's, over REST, one request at a time, each question never asked before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from random import Random
from statistics import median

import aiohttp
import click

from infra.lab.bench.asking import Asking
from infra.lab.bench.figures import Budget, Figures, median_of, most_of, percentile
from infra.lab.bench.runner import Bench, Lab, cluster_on
from infra.lab.questions import Pair, pairs
from infra.native import node, ports
from infra.native.cluster import LocalCluster
from infra.native.processes import started
from infra.native.redis import RedisServer
from infra.native.settings import NativeSettings
from shared.clock import SystemClock

EMBEDDER = "all-minilm"
_CLOCK = SystemClock()
_WISH = "exact_then_semantic; ttl=3600"
_FILLED_SECONDS = 1.0
"""In which fills are learnt."""


async def measured(asking: Asking, chosen: Sequence[Pair], name: str) -> tuple[Counter[str], Counter[str], list[float], list[float]]:
    """Hits and pairs by family (`""` of paraphrases); milliseconds of semantic hits, and of misses. Each pair has a system text of its own:
    so its two questions meet each other and nobody else.
    """
    hits, count, hit_ms, miss_ms = Counter[str](), Counter[str](), list[float](), list[float]()
    for number, pair in enumerate(chosen):
        _, taken = await asking.ask(pair.stored, system=f"{name} {number}", wish=_WISH)
        miss_ms.append(taken)
    await _CLOCK.sleep(_FILLED_SECONDS)
    for number, pair in enumerate(chosen):
        said, taken = await asking.ask(pair.asked, system=f"{name} {number}", wish=_WISH)
        count[pair.family] += 1
        if "kind=semantic" in said:
            hits[pair.family] += 1
            hit_ms.append(taken)
        else:
            miss_ms.append(taken)
    return hits, count, hit_ms, miss_ms


async def _run(url: str, most: int) -> Figures:
    """One run. `most`: near misses of each family."""
    figures: dict[str, float] = {}
    hit_ms, miss_ms, off_ms = list[float](), list[float](), list[float]()
    async with aiohttp.ClientSession() as session:
        asking = Asking(session, url, "small")
        for number in range(20):
            await asking.ask(f"What is warm number {number}?", system="warm", wish=_WISH)
        for name, said in (("tuning", ""), ("holdout", "_unseen")):
            hits, count, more_hits, more_misses = await measured(asking, sampled(pairs(name), most), name)
            near, false = sum(count.values()) - count[""], sum(hits.values()) - hits[""]
            figures[f"false_hits{said}_percent"] = round(100 * false / near, 2)
            figures[f"near_misses{said}"] = near
            figures[f"paraphrases_hit{said}_percent"] = round(100 * hits[""] / count[""], 1)
            figures[f"paraphrases{said}"] = count[""]
            hit_ms += more_hits
            miss_ms += more_misses
        for number, pair in enumerate(pairs("tuning")[:100]):
            off_ms.append((await asking.ask(pair.asked, system=f"off {number}"))[1])
    figures["hit_p50_ms"] = round(median(hit_ms), 1)
    figures["hit_p95_ms"] = round(percentile(hit_ms, 0.95), 1)
    figures["miss_p50_ms"], figures["not_asked_p50_ms"] = round(median(miss_ms), 1), round(median(off_ms), 1)
    return figures


def sampled(whole: Sequence[Pair], most: int) -> list[Pair]:
    """At most so many of each family, drawn by seed 0; of paraphrases all."""
    by_family: dict[str, list[Pair]] = {}
    for pair in whole:
        by_family.setdefault(pair.family, []).append(pair)
    return [
        pair for family, group in by_family.items() for pair in (group if not family else Random(0).sample(group, min(most, len(group))))
    ]


@contextmanager
def semantic_cluster(servers: str, redis: str, ollama: str, more: Mapping[str, str] | None = None) -> Iterator[LocalCluster]:
    """A simulated node for chats, the Ollama for embeddings, one cache that asks it. `more`: of the environment."""
    environment = {
        "TUTTI_CACHE__STORE": redis,
        "TUTTI_CACHE__EMBEDDER": "cluster",
        "TUTTI_CACHE__EMBEDDER_MODEL": EMBEDDER,
        "TUTTI_CACHE__SHADOW_SHARE": "0",
        **(more or {}),
    }
    nodes: tuple[dict[str, str], ...] = ({}, {"TUTTI_WORKER__BACKEND": "ollama", "TUTTI_WORKER__URL": ollama})
    simulator = ("--profile", "instant", "--models", "small:1")
    with cluster_on(servers, "meanings", nodes=nodes, simulator=simulator, copies={"cache": 1}, environment=environment) as cluster:
        yield cluster


@contextmanager
def _stores(lab: Lab) -> Iterator[tuple[str, str]]:
    """Addresses of a Redis and of an Ollama that has the embedder. Raises NativeError kinds."""
    redis = RedisServer(lab.home, ports.free_ports(1)[0], dies_with_parent=True)
    ollama = node.ollama(lab.home, NativeSettings().cache_directory, slots=2)
    with started(redis), started(ollama):
        yield redis.url, ollama.url


def measure(lab: Lab, repeat: int, *, most: int) -> Figures:
    """Semantic hits of real questions, and of those that only look alike (needs `make ollama`)."""
    with semantic_cluster(lab.servers, *lab.kept(_stores, lab)) as cluster:
        return lab.run(_run(cluster.url, most))


BENCH = Bench(
    measure,
    "chats are a simulated node's, embeddings a real Ollama's; the pairs are made for this",
    (
        Budget("semantic hit through Kafka, p50", "ms", median_of("hit_p50_ms"), at_most=40.0),
        Budget("near misses answered from the cache, any run", "%", most_of("false_hits_percent"), at_most=1.0),
        Budget("the same, of pairs that nothing was tuned on", "%", most_of("false_hits_unseen_percent"), at_most=1.0),
    ),
    (click.Option(["--pairs", "most"], type=click.IntRange(1, 1_000), default=40, help="Near misses of each family."),),
    quick={"most": 2},
)
