"""Arrivals: jobs with known ids onto Kafka, at once or at a rhythm, and the times at which their results appear."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import chain
from random import Random

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from infra.lab.bench.bare import new_consumer, new_producer
from infra.lab.bench.runner import Unmeasured
from infra.native.cluster import LocalCluster
from shared.clock import Clock
from shared.contracts import ids
from shared.contracts.base import PriorityClass
from shared.topics import Topics

Jobs = Sequence[tuple[PriorityClass, str, bytes]]
"""(class, id, value)."""
POLL_MS = 20
MODEL, TOKENS = "steady", 5


def steady(call_seconds: float, slots: int) -> tuple[str, ...]:
    """Options of a simulated node: so long a call, as many calls at once as it has slots."""
    model = {"name": MODEL, "bytes_per_context_token": 0, "decode_tokens_per_second": TOKENS / call_seconds}
    values = {"num_parallel": slots, "decode_sharing": 0, "jitter": 0, "answer_tokens": [TOKENS, TOKENS], "models": [model]}
    return ("--profile", "instant", *chain.from_iterable(("--set", f"{name}={json.dumps(value)}") for name, value in values.items()))


def jobs(count: int, priority_class: PriorityClass, tenant: str = "default", size_bytes: int = 0) -> Jobs:
    """So many equal jobs for such a node, with ids that tell class, tenant and number, whose prompts have so many bytes more than these."""
    names, more = [f"{priority_class.value}:{tenant}:{number}" for number in range(count)], " much" * (size_bytes // 5)
    common = {"tenant": tenant, "model": MODEL, "options": {"max_tokens": TOKENS}}
    return [(priority_class, name, json.dumps({"id": name, "prompt": name + more, **common}).encode()) for name in names]


def jain(values: Sequence[float]) -> float:
    """Jain's fairness index (Jain, Chiu and Hawe 1984): 1 when all are equal, 1/n when one has everything."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def _is_of(name: str, prefix: str) -> bool:
    """Whole names of classes and tenants: `tenant-1` is not the beginning of `tenant-10`."""
    return name.startswith(prefix.rstrip(":") + ":")


class Traffic:
    """Sends jobs and watches `results`. One task; times are this process's monotonic seconds."""

    def __init__(self, producer: AIOKafkaProducer, consumer: AIOKafkaConsumer, topics: Topics, clock: Clock) -> None:
        self._producer, self._consumer, self._topics, self._clock = producer, consumer, topics, clock
        self._sent: dict[str, float] = {}
        self._ended: dict[str, float] = {}
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._began = clock.monotonic()

    @property
    def seconds(self) -> float:
        """Since the first job was sent."""
        return self._clock.monotonic() - self._began

    async def send(self, jobs: Jobs) -> None:
        """All at once."""
        if not self._sent:
            self._began = self._clock.monotonic()
        for priority_class, name, value in jobs:
            self._sent[name] = self._clock.monotonic()
            await self._producer.send(self._topics.jobs(priority_class), value)
        await self._producer.flush()

    async def send_paced(self, jobs: Jobs, per_second: float, random: Random) -> None:
        """As a Poisson process; listens meanwhile."""
        due = self._clock.monotonic()
        for job in jobs:
            due += random.expovariate(per_second)
            while (left := due - self._clock.monotonic()) > 0:
                await self._poll(min(left, POLL_MS / 1_000))
            self._sent[job[1]] = self._clock.monotonic()
            await self._producer.send(self._topics.jobs(job[0]), job[2])

    async def listen(self, seconds: float) -> None:
        """Take results in for a while."""
        until = self._clock.monotonic() + seconds
        while self._clock.monotonic() < until:
            await self._poll(POLL_MS / 1_000)

    async def until(self, done: Callable[[], bool], longest_seconds: float) -> bool:
        """Listen until it is so; False when it took too long."""
        until = self._clock.monotonic() + longest_seconds
        while not done():
            if self._clock.monotonic() > until:
                return False
            await self._poll(POLL_MS / 1_000)
        return True

    async def rate(self, prefix: str, seconds: float) -> float:
        """Results a second of jobs whose ids begin so, measured now."""
        before, began = self.ended(prefix), self._clock.monotonic()
        await self.listen(seconds)
        return (self.ended(prefix) - before) / (self._clock.monotonic() - began)

    def ended(self, prefix: str) -> int:
        """How many jobs of `class` or `class:tenant:` have a result."""
        return self._counts[prefix.rstrip(":")]

    def latencies(self, prefix: str) -> list[float]:
        """From sending to the result, seconds, in the order of sending. `prefix` as in `ended`."""
        return [self._ended[name] - at for name, at in self._sent.items() if name in self._ended and _is_of(name, prefix)]

    def end_times(self, prefix: str) -> list[float]:
        """When their results appeared, ascending. `prefix` as in `ended`."""
        return sorted(at for name, at in self._ended.items() if _is_of(name, prefix))

    async def _poll(self, seconds: float) -> None:
        batches = await self._consumer.getmany(timeout_ms=max(1, int(seconds * 1_000)))
        now = self._clock.monotonic()
        for records in batches.values():
            for record in records:
                self._take((record.key or b"").decode(), record.value or b"", now)

    def _take(self, name: str, value: bytes, now: float) -> None:
        if b'"status":"succeeded"' not in value:
            raise Unmeasured(f"a job did not succeed: {json.loads(value).get('failure')}")
        name = ids.public(name)
        if name not in self._ended:
            self._ended[name] = now
            priority_class, tenant, _ = name.split(":")
            self._counts[priority_class] += 1
            self._counts[f"{priority_class}:{tenant}"] += 1


@asynccontextmanager
async def connected(cluster: LocalCluster, clock: Clock) -> AsyncIterator[Traffic]:
    """Traffic on a running cluster; knows the end of `results` before anything is sent."""
    topics = cluster.topics
    consumer, producer = new_consumer(cluster.servers, None, "latest"), new_producer(cluster.servers)
    await consumer.start()
    await producer.start()
    try:
        consumer.assign([TopicPartition(topics.results, number) for number in range(topics.partitions("other"))])
        await consumer.seek_to_end()
        yield Traffic(producer, consumer, topics, clock)
    finally:
        await producer.stop()
        await consumer.stop()
