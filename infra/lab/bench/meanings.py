"""`python -m infra.lab.bench.meanings`: semantic hits through Kafka, with the real all-minilm on Ollama as a node beside.

One question of each pair is asked, then the other one; a hit is the first one's entry. Pairs: near misses by family and paraphrases, made
for this repository (`infra/lab/questions`); those of `holdout` are what nothing was tuned on. All chats go to a simulated node, which
answers at once. Times are a client's, over REST, one request at a time, each question never asked before.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from statistics import median

import aiohttp
import click
import uvloop

from infra.lab.bench import machine
from infra.lab.bench.figures import Budget, Figures, Spreads, median_of, most_of
from infra.lab.bench.local import local_cluster, started_broker
from infra.lab.bench.outcome import Outcome, bench_options
from infra.lab.questions import Pair, pairs
from infra.native import ollama_server, ports
from infra.native.cluster import LocalCluster
from infra.native.errors import MissingTool, NativeError
from infra.native.node import await_answer
from infra.native.paths import StackHome
from infra.native.processes import Daemon
from infra.native.redis import RedisServer
from infra.native.settings import NativeSettings
from shared.clock import SystemClock

BUDGETS: tuple[Budget[Spreads], ...] = (
    Budget("semantic hit through Kafka, p50", "ms", median_of("hit_p50_ms"), at_most=40.0),
    Budget("near misses answered from the cache, any run", "%", most_of("false_hits_percent"), at_most=1.0),
    Budget("the same, of pairs that nothing was tuned on", "%", most_of("false_hits_unseen_percent"), at_most=1.0),
)
EMBEDDER = "all-minilm"
_CLOCK = SystemClock()
_WISH = "exact_then_semantic; ttl=3600"
_FILLED_SECONDS = 1.0
"""In which fills are learnt."""


class Asking:
    """A client of the ingress. Each pair has a system text of its own: so its two questions meet each other and nobody else."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, url

    async def ask(self, question: str, system: str, wish: str = _WISH) -> tuple[str, float]:
        """(`hit; kind=semantic...`, `miss` or nothing; milliseconds)"""
        body = {
            "model": "small",
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": 200,
        }
        begun = _CLOCK.monotonic()
        headers = {"x-tutti-cache": wish} if wish else {}
        async with self._session.post(f"{self._url}/v1/chat/completions", json=body, headers=headers) as response:
            await response.read()
            if response.status != 200:
                raise click.ClickException(f"the ingress answered {response.status}")
            return response.headers.get("x-tutti-cache", ""), 1000 * (_CLOCK.monotonic() - begun)


async def measured(asking: Asking, chosen: Sequence[Pair], name: str) -> tuple[Counter[str], Counter[str], list[float], list[float]]:
    """Hits and pairs by family (`""` of paraphrases); milliseconds of semantic hits, and of misses."""
    hits, count, hit_ms, miss_ms = Counter[str](), Counter[str](), list[float](), list[float]()
    for number, pair in enumerate(chosen):
        _, taken = await asking.ask(pair.stored, f"{name} {number}")
        miss_ms.append(taken)
    await _CLOCK.sleep(_FILLED_SECONDS)
    for number, pair in enumerate(chosen):
        said, taken = await asking.ask(pair.asked, f"{name} {number}")
        count[pair.family] += 1
        if "kind=semantic" in said:
            hits[pair.family] += 1
            hit_ms.append(taken)
        else:
            miss_ms.append(taken)
    return hits, count, hit_ms, miss_ms


async def measure(url: str, most: int) -> Figures:
    """One run. `most`: near misses of each family."""
    figures: dict[str, float] = {}
    hit_ms, miss_ms, off_ms = list[float](), list[float](), list[float]()
    async with aiohttp.ClientSession() as session:
        asking = Asking(session, url)
        for number in range(20):
            await asking.ask(f"What is warm number {number}?", "warm")
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
            off_ms.append((await asking.ask(pair.asked, f"off {number}", ""))[1])
    figures["hit_p50_ms"] = round(median(hit_ms), 1)
    figures["hit_p95_ms"] = round(sorted(hit_ms)[int(0.95 * len(hit_ms))], 1)
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
def components(directory: Path) -> Iterator[tuple[str, str]]:
    """Addresses of a Redis and of an Ollama that has the embedder. Raises NativeError."""
    cache = NativeSettings().cache_directory
    program = ollama_server.installed(cache)
    if not program.exists():
        raise MissingTool(f"no Ollama with {EMBEDDER}: `make ollama` installs it")
    home, (redis_port, port) = StackHome(directory), ports.free_ports(2)
    server = RedisServer(home, redis_port, dies_with_parent=True)
    daemon = Daemon("ollama", [str(program), "serve"], home.pid_file("ollama"), home.log("ollama"), dies_with_parent=True)
    daemon.environment = ollama_server.environment(port, str(program), cache, slots=2)
    server.start()
    daemon.start()
    try:
        await_answer(daemon, f"http://127.0.0.1:{port}/api/version")
        yield server.url, f"http://127.0.0.1:{port}"
    finally:
        daemon.stop(10.0)
        server.stop()


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
    with local_cluster("meanings", servers, nodes=nodes, simulator=simulator, copies={"cache": 1}, environment=environment) as cluster:
        yield cluster


@click.command(context_settings={"show_default": True})
@click.option("--pairs", "most", type=click.IntRange(1, 1_000), default=40, help="Near misses of each family.")
@bench_options("Of everything.")
def main(*, most: int, repeats: int, servers: str | None, json_file: Path | None) -> None:
    """Semantic hits of real questions, and of those that only look alike."""
    facts, runs = machine.facts(), list[Figures]()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="tutti-meanings-") as made,
            started_broker(servers) as kafka,
            components(Path(made)) as (redis, ollama),
        ):
            for _ in range(repeats):
                with semantic_cluster(kafka, redis, ollama) as cluster:
                    runs.append(uvloop.run(measure(cluster.url, most)))
                click.echo("  " + ", ".join(f"{name} {value:g}" for name, value in runs[-1].items()), err=True)
    except NativeError as error:
        raise click.ClickException(error.message) from error
    about = "chats are a simulated node's, embeddings a real Ollama's; the pairs are made for this"
    Outcome("meanings", about, facts, {"pairs": most, "repeats": repeats}, runs, BUDGETS).end(json_file)


if __name__ == "__main__":
    main()
