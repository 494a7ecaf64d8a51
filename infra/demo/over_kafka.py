"""The Kafka half: what any producer can do. One JSON record on `jobs.interactive`, one record read from `results`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from infra.native.errors import StartFailed
from shared.clock import SystemClock
from shared.contracts.base import PriorityClass
from shared.contracts.result import Result
from shared.kafka.client.aio import AioLog
from shared.kafka.client.security import security_of
from shared.kafka.port import Consumer, Log, Message, TopicPartition
from shared.sealing.sealed_log import sealed
from shared.settings import ClusterSettings, KafkaSettings
from shared.topics import Topics


async def submit(servers: str, question: str, job_id: str, *, timeout_seconds: float = 120.0) -> Result:
    """Produce the job with key `job_id` and wait for its result. Raises LogError kinds, or StartFailed when none comes."""
    topics = Topics(ClusterSettings().topics)
    settings, clock = KafkaSettings(), SystemClock()
    log = sealed(AioLog(servers=servers, clock=clock, security=security_of(settings)), settings, clock, topics)
    try:
        reader = await log.consumer(client_id="tutti-demo", reset="latest", fetch_max_wait_ms=50)
        async with _closing(reader), asyncio.timeout(timeout_seconds):
            await _stand_at_the_end(reader, topics)
            await _produce(log, topics, question, job_id)
            return await _result(reader, job_id)
    except TimeoutError:
        raise StartFailed(f"no result of job {job_id} after {timeout_seconds:.0f} s; see `tutti logs`") from None
    finally:
        await log.close()


@asynccontextmanager
async def _closing(reader: Consumer) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await reader.close()


async def _stand_at_the_end(reader: Consumer, topics: Topics) -> None:
    """So that only results from now on are read."""
    partitions = [TopicPartition(topics.results, number) for number in range(topics.settings.other_partitions)]
    reader.assign(partitions)
    for partition, offset in (await reader.end_offsets(partitions)).items():
        reader.seek(partition, offset)


async def _produce(log: Log, topics: Topics, question: str, job_id: str) -> None:
    producer = await log.producer(client_id="tutti-demo")
    value = json.dumps({"id": job_id, "prompt": question}).encode()
    try:
        await producer.send(Message(topics.jobs(PriorityClass.INTERACTIVE), value, key=job_id.encode()))
    finally:
        await producer.close()


async def _result(reader: Consumer, job_id: str) -> Result:
    while True:
        for records in (await reader.poll(timeout_seconds=1.0)).values():
            for record in records:
                if record.key == job_id.encode() and record.value is not None:
                    return Result.model_validate_json(record.value)
