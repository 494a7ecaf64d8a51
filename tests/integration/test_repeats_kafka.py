"""Promise: what is sent again is done once, through the real planner: a key at a restarted ingress, a dead letter replayed twice.

How: a cluster of real processes on a real Kafka, without Redis and with an ingress that reads nothing back, so that only the planner
can know. Then `tutti dead-letters` against the same Kafka.

    POST (key) ─► ingress ─► jobs ─► planner ─► result        kill -9, start
    POST (key) ─► ingress ─► jobs ─► planner ─► same result   (no second run)
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from infra.cli.main import main
from infra.native.cluster import LocalCluster
from shared.clock import SystemClock
from shared.contracts.base import PriorityClass
from shared.contracts.dead_letter import DeadLetter
from shared.kafka.client.aio import AioLog
from shared.kafka.port import Message, TopicPartition
from tests.support.native import StartCluster

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]
CHAT = "/v1/chat/completions"


def post(cluster: LocalCluster, path: str, body: dict[str, Any], key: str | None = None) -> httpx.Response:
    headers = {} if key is None else {"idempotency-key": key}
    return httpx.post(cluster.url + path, json=body, headers=headers, timeout=60)


def chat(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "auto", "messages": [{"role": "user", "content": text}], **fields}


def tutti(cluster: LocalCluster, *arguments: str) -> Result:
    environment = {"TUTTI_KAFKA_SERVERS": cluster.servers, "TUTTI_TOPICS__PREFIX": cluster.prefix}
    result = CliRunner().invoke(main, arguments, env=environment, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_repeats_are_done_once(cluster: StartCluster) -> None:
    """The same completion and the same job after a kill of the ingress; 409 for another body; one result of a letter replayed twice."""
    at = cluster("repeats", environment={"TUTTI_INGRESS__EVENTS_LOOKBACK": "0", "TUTTI_LOG_LEVEL": "warning"})
    first = post(at, CHAT, chat("one"), "k1")
    assert first.status_code == 200, first.text
    job = post(at, "/v1/jobs?wait=30", {"prompt": "two"}, "k2").json()
    assert job["state"] == "settled"
    ingress = at.services["ingress"]
    ingress.daemon.kill()
    ingress.start()
    ingress.await_ready()
    again = post(at, CHAT, chat("one"), "k1")
    assert (again.status_code, again.json()) == (200, first.json())
    assert post(at, "/v1/jobs?wait=30", {"prompt": "two"}, "k2").json()["result"] == job["result"]
    for path, body, key in ((CHAT, chat("other"), "k1"), (CHAT, chat("other", stream=True), "k1"), ("/v1/jobs", {"prompt": "b"}, "k2")):
        refused = post(at, path, body, key)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict"), path
    _replay(at)


def _replay(at: LocalCluster) -> None:
    """A job without an id of its own, whose record died: sent again twice, and once more after its end.

    A caller is answered by the event that a job ended; its result follows, so whoever counts results waits for them.
    """
    lay: dict[str, Any] = {"topic": at.topics.jobs(PriorityClass.STANDARD), "partition": 2, "offset": 7, "timestamp": 1_700_000_000_000}
    letter = DeadLetter(**lay, service="planner", reason="a test", code="invalid_record", value=b'{"prompt": "again"}', at=1.0)
    asyncio.run(_write(at, letter))
    before = 2
    asyncio.run(_results_of(at, before))
    for number in range(3):
        assert tutti(at, "dead-letters", "replay", "--topic", lay["topic"], "--yes").stdout.count("->") == 1
        if number:
            asyncio.run(_results_of(at, before + 1))
    assert post(at, "/v1/jobs?wait=30", {"prompt": "after the replays"}).json()["state"] == "settled"
    results = asyncio.run(_results_of(at, before + 2))
    assert len(results) == before + 2, "one of the replayed job, one of the job after it"
    assert all(json.loads(value)["status"] == "succeeded" for values in results.values() for value in values)
    assert all(len(values) == 1 for values in results.values())
    assert tutti(at, "dead-letters", "purge", "--all", "--yes").stdout == "1 dead letters deleted\n"
    assert json.loads(tutti(at, "dead-letters", "list", "--json").stdout) == []


async def _write(at: LocalCluster, letter: DeadLetter) -> None:
    log = AioLog(at.servers, SystemClock())
    producer = await log.producer(client_id="test")
    await producer.send(Message(at.topics.dead_letters, letter.to_bytes()))
    await producer.close()
    await log.close()


async def _results_of(at: LocalCluster, jobs: int) -> dict[bytes, set[bytes]]:
    """As soon as there are results of so many jobs."""
    async with asyncio.timeout(30):
        while len(found := await _results(at)) < jobs:
            await SystemClock().sleep(0.1)
    return found


async def _results(at: LocalCluster) -> dict[bytes, set[bytes]]:
    """Job → everything that was ever published for it."""
    log = AioLog(at.servers, SystemClock())
    consumer = await log.consumer(client_id="test")
    partitions = [TopicPartition(at.topics.results, number) for number in range(at.topics.partitions("other"))]
    consumer.assign(partitions)
    ends = await consumer.end_offsets(partitions)
    found: dict[bytes, set[bytes]] = {}
    while any([await consumer.position(partition) < end for partition, end in ends.items()]):
        for records in (await consumer.poll(timeout_seconds=0.5)).values():
            for record in records:
                found.setdefault(record.key or b"", set()).add(record.value or b"")
    await consumer.close()
    await log.close()
    return found
