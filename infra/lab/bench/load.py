"""Load: callers in a closed loop over HTTP, and bursts of jobs on Kafka. Everything that was sent is waited for and counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiokafka import TopicPartition

from infra.lab.bench.bare import new_consumer, new_producer
from infra.lab.bench.http_client import Caller, Response
from infra.lab.bench.runner import Unmeasured
from shared.clock import Clock

DEADLINE_SECONDS = 120.0
"""A measurement that takes longer has lost something."""
POLL_MS = 100


@dataclass(frozen=True, slots=True)
class Burst:
    """What came of a number of calls or jobs. Latencies in seconds, in order of completion."""

    count: int
    seconds: float
    latencies: Sequence[float] = ()
    first_texts: Sequence[float] = ()

    @property
    def per_second(self) -> float:
        return self.count / self.seconds


async def call_in_loop(url: str, bodies: Sequence[bytes], in_flight: int, clock: Clock) -> Burst:
    """Post every body once, `in_flight` at a time, each caller on a connection of its own. Raises Unmeasured."""
    callers = [Caller(url, clock) for _ in range(in_flight)]
    todo = iter(bodies)
    responses: list[Response] = []

    async def loop(caller: Caller) -> None:
        for body in todo:
            response = await caller.call(body)
            if response.status != 200:
                raise Unmeasured(f"{url} answered {response.status}: {response.body[:300].decode(errors='replace')}")
            responses.append(response)

    began = clock.monotonic()
    try:
        async with asyncio.timeout(DEADLINE_SECONDS), asyncio.TaskGroup() as group:
            for caller in callers:
                group.create_task(loop(caller))
    except TimeoutError as error:
        raise Unmeasured(f"{len(responses)} of {len(bodies)} calls were answered after {DEADLINE_SECONDS:.0f} s") from error
    finally:
        for caller in callers:
            caller.close()
    latencies = [response.ended_at - response.sent_at for response in responses]
    first_texts = [response.first_text_at - response.sent_at for response in responses if response.first_text_at is not None]
    return Burst(len(responses), clock.monotonic() - began, latencies, first_texts)


@dataclass(frozen=True, slots=True)
class QueueTarget:
    """Where jobs go and where their results appear. `accepts` judges one result's value."""

    jobs: str
    results: str
    result_partitions: int
    accepts: Callable[[bytes], bool]


async def queue_burst(servers: str, target: QueueTarget, values: Sequence[bytes], clock: Clock) -> Burst:
    """Produce all jobs as fast as Kafka takes them and wait for as many results; from the first send to the last result.

    Raises Unmeasured: a result that is not accepted, or fewer results than jobs.
    """
    consumer, producer = new_consumer(servers, None, "latest"), new_producer(servers)
    await consumer.start()
    await producer.start()
    try:
        consumer.assign([TopicPartition(target.results, number) for number in range(target.result_partitions)])
        await consumer.seek_to_end()
        began = clock.monotonic()
        sends = [await producer.send(target.jobs, value) for value in values]
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await asyncio.gather(*sends)
                seen = 0
                while seen < len(values):
                    for records in (await consumer.getmany(timeout_ms=POLL_MS)).values():
                        seen += sum(_accepted(target, record.value or b"") for record in records)
        except TimeoutError as error:
            raise Unmeasured(f"{seen} of {len(values)} results after {DEADLINE_SECONDS:.0f} s") from error
        return Burst(seen, clock.monotonic() - began)
    finally:
        await producer.stop()
        await consumer.stop()


def _accepted(target: QueueTarget, value: bytes) -> int:
    if not target.accepts(value):
        raise Unmeasured(f"a job did not succeed: {value[:300].decode(errors='replace')}")
    return 1
