"""Promise: a cancel closes the running generation's connection at the node soon, what waits never starts, and what was used is accounted.

What: streams are cancelled by disconnect, DELETE and a cancel record; jobs that wait behind them (in the worker's mailbox and in the
router's window, with one slot taken) are cancelled before their turn. The node itself notes when its connections end.
How: real Kafka, real processes, a simulated node inside the test. The bound here is generous: a test machine is busy. The figure of law 9
(100 ms) is what `make bench-cancel` measures.

    client ── disconnect ─► ingress ─┐
    client ── DELETE ─────► ingress ─┼─► outcomes | jobs.* ─► planner ─► controls ─► worker ─ ✂ ─ node
    producer ── cancel record ───────┘
"""

from __future__ import annotations

import asyncio
import statistics
from typing import Any

import aiohttp
import pytest

from infra.lab.bench.cancel import MODEL, WAYS, Stage, measure, watched_node
from infra.native import ports
from infra.native.cluster import LocalCluster
from shared.clock import SystemClock
from shared.kafka.client.aio import AioLog
from tests.support.native import StartCluster

pytestmark = [pytest.mark.kafka, pytest.mark.alone, pytest.mark.timeout(150)]

REPEATS = 3
BOUND_MS = 2_000.0
QUEUED = 12
JOB = {"model": MODEL, "prompt": "never mind", "options": {"max_tokens": 5_000}}


async def _ended(session: aiohttp.ClientSession, url: str, job: str) -> dict[str, Any]:
    """The job's public status once it has ended."""
    async with asyncio.timeout(30):
        while True:
            async with session.get(f"{url}/v1/jobs/{job}") as response:
                status: dict[str, Any] = await response.json()
            if status.get("result"):
                return status
            await SystemClock().sleep(0.05)


async def _submit(session: aiohttp.ClientSession, url: str) -> str:
    async with session.post(f"{url}/v1/jobs", json=JOB) as response:
        assert response.status == 202, await response.text()
        return str((await response.json())["id"])


async def _in_flight(stage: Stage, count: int) -> None:
    """Wait until the node has so many requests in work."""
    async with asyncio.timeout(30):
        while stage.node.truth.in_flight != count:
            await SystemClock().sleep(0.02)


async def _cancelled(session: aiohttp.ClientSession, url: str, job: str) -> dict[str, Any]:
    """Cancel the job; its result."""
    async with session.delete(f"{url}/v1/jobs/{job}") as response:
        assert response.status == 202
    result: dict[str, Any] = (await _ended(session, url, job))["result"]
    return result


async def _cancel_a_queue(one: LocalCluster, stage: Stage, requests: dict[str, int]) -> list[dict[str, Any]]:
    """One job runs, the others wait; those are cancelled first, then it. Returns the results, its own first."""
    session = stage.session
    await _in_flight(stage, 0)  # the node may still be busy with a stream that was cancelled a moment ago
    first = await _submit(session, one.url)
    await _in_flight(stage, 1)
    before = stage.node.truth.requests["chat"]
    waiting = [await _submit(session, one.url) for _ in range(QUEUED)]
    await SystemClock().sleep(1.0)
    results = [await _cancelled(session, one.url, job) for job in waiting]
    # Cancels of different homes are not ordered: the running job goes last, when the stops of those that wait have arrived too.
    await SystemClock().sleep(0.5)
    results.insert(0, await _cancelled(session, one.url, first))
    await SystemClock().sleep(1.0)
    requests["started"] = stage.node.truth.requests["chat"] - before
    return results


def test_cancels_reach_the_node_and_waiting_jobs_never_start(cluster: StartCluster, kafka: str) -> None:
    """All three ways; then a queue."""

    async def scenario() -> tuple[dict[str, list[float]], list[dict[str, Any]], dict[str, int]]:
        port = ports.free_ports(1)[0]
        async with watched_node(port) as watched:
            node = {"TUTTI_WORKER__BACKEND": "ollama", "TUTTI_WORKER__URL": f"http://127.0.0.1:{port}", "TUTTI_WORKER__SLOTS": "1"}
            one = await asyncio.to_thread(cluster, "cancelling", nodes=[node])
            measured = await measure(one, watched, REPEATS)
            requests: dict[str, int] = {}
            log = AioLog(kafka, SystemClock())
            producer = await log.producer(client_id="test")
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
                results = await _cancel_a_queue(one, Stage(one, watched, session, producer), requests)
            await producer.close()
            await log.close()
            return measured, results, requests

    measured, results, requests = asyncio.run(scenario())
    for way in WAYS:
        print(f"{way}: {[round(value) for value in measured[way]]} ms")
        assert statistics.median(measured[way]) < BOUND_MS
    assert {result["status"] for result in results} == {"cancelled"}
    assert requests["started"] == 0
    assert results[0]["usage"]["wasted_calls"] == 1
    assert results[0]["usage"]["wasted_tokens"] > 0
    assert all(result["usage"].get("wasted_calls", 0) == 0 for result in results[1:])
