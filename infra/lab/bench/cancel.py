"""How long after a cancel does the node see its connection close?

Five services as processes on a real Kafka and a simulated node inside this process, which notes the moment at which a connection of its
ends. A streamed answer is cancelled in its middle, N times in each of three ways, one at a time:

    disconnect   the client of /v1/chat/completions closes its connection
    delete       DELETE /v1/jobs/{id}
    record       a cancel record with the job's key on jobs.<class>, from a plain Kafka producer

Measured from the moment at which the cancel leaves (the close, the first byte of the request, the send) to the end of the node's
connection; all runs on one cluster. The budget is that of law 9.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

import aiohttp
import click
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from infra.lab.bench.figures import MS, Budget, Figures, median_of, percentile
from infra.lab.bench.runner import Bench, Lab, Unmeasured, option
from infra.lab.simulators.ollama.core import SimulatedOllama
from infra.lab.simulators.ollama.parameters import PROFILES, parse_model
from infra.lab.simulators.ollama.server import application
from infra.lab.simulators.ollama.truth import Truth
from infra.native import ports
from infra.native.cluster import LocalCluster
from shared.clock import SystemClock
from shared.contracts import headers
from shared.kafka.client.aio import AioLog
from shared.kafka.port import Message, Producer

WAYS = ("disconnect", "delete", "record")
MODEL = "endless"
WAIT_SECONDS = 20.0
_CLOCK = SystemClock()
_PARAMETERS = PROFILES["instant"].with_(
    models=[parse_model(f"{MODEL}:1").model_copy(update={"decode_tokens_per_second": 50.0})],
    answer_tokens=[5_000, 5_000],
    num_parallel=8,
)
"""A word every 20 ms, for longer than anybody waits."""
_QUESTION = {"model": MODEL, "messages": [{"role": "user", "content": "never mind"}], "max_tokens": 5_000, "stream": True}


@dataclass(slots=True)
class WatchedNode:
    """A simulated node, and when connections of it ended in the middle of an answer."""

    truth: Truth
    ended: asyncio.Queue[float] = field(default_factory=asyncio.Queue)

    def protocol(self) -> type[asyncio.Protocol]:
        """Uvicorn's own, which tells of the end of a connection in the middle of an answer."""
        ended = self.ended

        class Noting(H11Protocol):
            def connection_lost(self, exc: Exception | None) -> None:
                if self.cycle is not None and not self.cycle.response_complete:
                    ended.put_nowait(_CLOCK.monotonic())
                super().connection_lost(exc)

        return Noting


@asynccontextmanager
async def watched_node(port: int) -> AsyncIterator[WatchedNode]:
    """A simulated node on this port."""
    node = SimulatedOllama(_PARAMETERS, _CLOCK, Random(1))
    watched = WatchedNode(node.truth)
    config = uvicorn.Config(
        application(node),
        host="127.0.0.1",
        port=port,
        http=watched.protocol(),
        log_level="critical",
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]  # the bench's own stay
    serving = asyncio.create_task(server.serve())
    try:
        yield watched
    finally:
        server.should_exit = True
        await node.close()
        with suppress(asyncio.CancelledError):
            await serving


@dataclass(slots=True)
class Stage:
    """What a cancel needs."""

    cluster: LocalCluster
    node: WatchedNode
    session: aiohttp.ClientSession
    producer: Producer

    async def one(self, way: str) -> float:
        """Milliseconds from one cancel to the end of the node's connection. Raises Unmeasured."""
        act: Callable[[Any], Awaitable[float]] = {"disconnect": self._disconnect, "delete": self._delete, "record": self._record}[way]
        async with self.session.post(f"{self.cluster.url}/v1/chat/completions", json=_QUESTION) as response:
            await self._words(response)
            while not self.node.ended.empty():
                self.node.ended.get_nowait()
            sent_at = await act(response)
            try:
                async with asyncio.timeout(WAIT_SECONDS):
                    ended_at = await self.node.ended.get()
            except TimeoutError:
                raise Unmeasured(f"{way}: the node's connection did not close in {WAIT_SECONDS:.0f} s") from None
        return (ended_at - sent_at) * MS

    async def _words(self, response: aiohttp.ClientResponse) -> None:
        """Wait until the node writes, and what it wrote has come through."""
        seen = 0
        async for line in response.content:
            seen += b'"content":' in line
            if seen >= 4:
                return
        raise Unmeasured(f"the stream ended with status {response.status} before it began")

    async def _disconnect(self, response: aiohttp.ClientResponse) -> float:
        sent_at = _CLOCK.monotonic()
        response.close()
        return sent_at

    async def _delete(self, response: aiohttp.ClientResponse) -> float:
        sent_at = _CLOCK.monotonic()
        async with self.session.delete(f"{self.cluster.url}/v1/jobs/{response.headers['x-tutti-job']}") as answer:
            assert answer.status == 202, answer.status
        return sent_at

    async def _record(self, response: aiohttp.ClientResponse) -> float:
        """By its key to the partition where the job lies; the same partitioner put it there."""
        topics, key = self.cluster.topics, response.headers["x-tutti-job"].encode()
        sent_at = _CLOCK.monotonic()
        await self.producer.send(Message(topics.all_jobs()[0], None, key, None, headers.envelope("cancel")))
        return sent_at


async def measure(cluster: LocalCluster, node: WatchedNode, cancels: int, ways: tuple[str, ...] = WAYS) -> dict[str, list[float]]:
    """Way → milliseconds of each cancel. The ways take turns."""
    log = AioLog(cluster.servers, _CLOCK)
    producer = await log.producer(client_id="bench-cancel")
    measured: dict[str, list[float]] = {way: [] for way in ways}
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
            stage = Stage(cluster, node, session, producer)
            await stage.one(ways[0])  # the first of all meets cold code
            for _ in range(cancels):
                for way in ways:
                    measured[way].append(await stage.one(way))
    finally:
        await producer.close()
        await log.close()
    return measured


def figures(measured: Mapping[str, Sequence[float]]) -> Figures:
    """Milliseconds of each way."""
    return {
        f"{way}.{name}_ms": round(value, 1)
        for way, values in measured.items()
        for name, value in (("p50", percentile(values, 0.5)), ("p99", percentile(values, 0.99)), ("max", max(values)))
    }


@contextmanager
def _stage(lab: Lab) -> Iterator[tuple[LocalCluster, WatchedNode]]:
    """The worker's node is the watched one, which answers while the cluster starts."""
    [port] = ports.free_ports(1)
    own = {"TUTTI_WORKER__BACKEND": "ollama", "TUTTI_WORKER__URL": f"http://127.0.0.1:{port}", "TUTTI_WORKER__SLOTS": "8"}
    node, cluster = watched_node(port), lab.cluster("cancel", nodes=[own])
    watched = lab.run(node.__aenter__())
    try:
        yield lab.run(asyncio.to_thread(cluster.__enter__)), watched
    finally:
        lab.run(asyncio.to_thread(cluster.__exit__, None, None, None))
        lab.run(node.__aexit__(None, None, None))


def measure_cancels(lab: Lab, repeat: int, *, cancels: int) -> Figures:
    """Measure cancellation at the node's socket."""
    measured = lab.run(measure(*lab.kept(_stage, lab), cancels))
    lab.detail("cancels_ms", measured)
    return figures(measured)


BENCH = Bench(
    measure_cancels,
    "the node is simulated",
    tuple(Budget(f"{way}, p99", "ms", median_of(f"{way}.p99_ms"), at_most=100.0) for way in WAYS),
    (option("cancels", 50, "Of each way, in each run.", type=click.IntRange(1, 10_000)),),
    quick={"cancels": 3},
)
