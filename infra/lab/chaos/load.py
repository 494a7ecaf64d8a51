"""Load: sends jobs at a bounded rate whatever happens to broker and ingress, and sees their results.

A job whose fate is unknown is sent again under its own id: history knows it. Nothing here gives up on a job.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import aiohttp

from infra.lab.chaos.jobs import Asked, JobMix, Ledger, Met
from shared.clock import Clock
from shared.contracts import headers
from shared.errors import ConsumerGaveUp, LogError
from shared.kafka.port import Log, Message, Producer, Record, TopicPartition
from shared.processing.tail import Tail
from shared.tasks import ended
from shared.topics import Topics

TICK_SECONDS = 0.05
AGAIN_SECONDS = 0.5
OPEN_SECONDS = 30.0
"""No more jobs without a result than are sent in so long: beyond it the load waits, as callers do. A slower machine is asked less, and its
backlog stays one that it works off.
"""
_BATCH = 200
_REST_IN_FLIGHT = 16
_REST_SECONDS = 10.0
_RESEND_STATUS = frozenset({408, 429, 500, 502, 503, 504})


class JobRefused(Exception):
    """The ingress finds a job of the load wrong: the run means nothing."""


class Sender:
    """Sends one job, or a batch, until it is acknowledged."""

    def __init__(
        self, producer: Producer, session: aiohttp.ClientSession, url: Callable[[], str], *, topics: Topics, ledger: Ledger, clock: Clock
    ) -> None:
        """`url`: of the ingress that the next request goes to."""
        self._producer, self._session, self._url, self._topics = producer, session, url, topics
        self._ledger, self._clock = ledger, clock
        self._rest = asyncio.Semaphore(_REST_IN_FLIGHT)

    async def over_kafka(self, jobs: Sequence[Asked]) -> None:
        waiting = list(jobs)
        while waiting:
            messages = [
                Message(self._topics.jobs(job.priority_class), job.body, job.id.encode(), None, headers.envelope("job")) for job in waiting
            ]
            fates = await self._fates(messages)
            failed = []
            for job, fate in zip(waiting, fates, strict=True):
                if isinstance(fate, Exception):
                    failed.append(job)
                else:
                    self._ledger.on_acknowledged(job.number, self._clock.monotonic())
            waiting = failed
            if waiting:
                self._ledger.sent_again += len(waiting)
                await self._clock.sleep(AGAIN_SECONDS)

    async def _fates(self, messages: Sequence[Message]) -> Sequence[object]:
        try:
            return await self._producer.send_many(messages)
        except LogError as error:
            return [error] * len(messages)

    async def over_rest(self, job: Asked) -> None:
        """POST /v1/jobs until it is taken. Raises JobRefused."""
        async with self._rest:
            while not await self._posted(job):
                self._ledger.sent_again += 1
                await self._clock.sleep(AGAIN_SECONDS)

    async def _posted(self, job: Asked) -> bool:
        url = self._url()
        try:
            async with self._session.post(f"{url}/v1/jobs", data=job.body) as response:
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            self._meet(job, url, repr(error))
            return False
        if response.status in (200, 202):
            self._ledger.on_acknowledged(job.number, self._clock.monotonic())
            return True
        if response.status not in _RESEND_STATUS:
            raise JobRefused(f"the ingress refuses {job.id}: {response.status} {text[:300]}")
        self._meet(job, url, f"{response.status} {text}")
        return False

    def _meet(self, job: Asked, url: str, what: str) -> None:
        self._ledger.met.append(Met(self._clock.monotonic(), f"job {job.id} at {url}: {what[:200]}"))


class Load:
    """The jobs of one run: `produce` until told to stop, then `watch` goes on until all have ended."""

    def __init__(self, mix: JobMix, ledger: Ledger, topics: Topics, clock: Clock) -> None:
        self._mix, self.ledger, self._topics, self._clock = mix, ledger, topics, clock
        self._sends: set[asyncio.Task[None]] = set()
        self._failed: BaseException | None = None
        self.enough = asyncio.Event()
        """Set: no further jobs beyond the number asked for."""

    async def produce(self, log: Log, url: Callable[[], str], jobs: int, rate: float) -> None:
        """At least `jobs` jobs at `rate` a second, and on until `enough` is set. Returns when all are acknowledged. Raises JobRefused."""
        producer = await log.producer(client_id="chaos-load")
        timeout = aiohttp.ClientTimeout(total=_REST_SECONDS)
        try:
            async with aiohttp.ClientSession(timeout=timeout, headers={"content-type": "application/json"}) as session:
                sender = Sender(producer, session, url, topics=self._topics, ledger=self.ledger, clock=self._clock)
                await self._pace(sender, jobs, rate)
                while self._sends and self._failed is None:
                    await asyncio.wait(self._sends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await ended(*self._sends)
            await producer.close()
        if self._failed is not None:
            raise self._failed

    async def _pace(self, sender: Sender, jobs: int, rate: float) -> None:
        budget, before, most = 0.0, self._clock.monotonic(), max(_BATCH, round(rate * OPEN_SECONDS))
        while self._failed is None and (self.ledger.count < jobs or not self.enough.is_set()):
            await self._clock.sleep(TICK_SECONDS)
            now = self._clock.monotonic()
            budget, before = min(budget + rate * (now - before), max(rate, 1.0)), now
            count = max(0, min(int(budget), most - len(self.ledger.open), _BATCH))
            budget -= count
            self._send(sender, count)

    def _send(self, sender: Sender, count: int) -> None:
        wall, now = self._clock.wall(), self._clock.monotonic()
        jobs = [self._mix.job(self.ledger.count + n, wall) for n in range(count)]
        for job in jobs:
            self.ledger.on_sent(now if job.not_before is None else now + job.not_before - wall)
        if direct := [job for job in jobs if not job.over_rest]:
            self._spawn(sender.over_kafka(direct))
        for job in jobs:
            if job.over_rest:
                self._spawn(sender.over_rest(job))

    def _spawn(self, sending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(sending)
        self._sends.add(task)
        task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sends.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed = error

    async def watch(self, log: Log) -> None:
        """Read `results` from the beginning until cancelled; with a new consumer where one is given up."""
        partitions = [TopicPartition(self._topics.results, n) for n in range(self._topics.partitions("other"))]
        read: dict[TopicPartition, int] = {}

        def begin(partition: TopicPartition, first: int, _: int) -> int:
            return read.get(partition, first)

        while True:
            tail = Tail(log, self._clock, partitions, client_id="chaos-results", begin=begin, handle=self._on_results)
            with contextlib.suppress(ConsumerGaveUp):
                await tail.run()
            read = tail.positions

    def _on_results(self, _: TopicPartition, records: Sequence[Record]) -> None:
        now = self._clock.monotonic()
        for record in records:
            number = self._mix.number_of((record.key or b"").decode("utf-8", "replace"))
            if number is not None and number < self.ledger.count:
                self.ledger.on_result(number, now)
