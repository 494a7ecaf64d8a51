"""Chaos: the load never gives up on a job, and never counts one as sent that is not acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from infra.lab.chaos.jobs import NEVER, JobMix, Ledger
from infra.lab.chaos.load import OPEN_SECONDS, JobRefused, Load, Sender
from infra.lab.chaos.run import _unless_broken
from infra.lab.virtual_loop import run
from shared.clock import LoopClock
from shared.errors import SendFailed
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.port import Appended, Message, NewTopic, TopicPartition
from shared.topics import Topics

TOPICS = Topics()


class FailingProducer:
    """Fails the first `failures` messages; what failed may still be in the log, as with Kafka."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.seen: list[Message] = []

    async def send_many(self, messages: Sequence[Message]) -> list[Appended | Exception]:
        self.seen += messages
        fates: list[Appended | Exception] = []
        for message in messages:
            self.failures -= 1
            fates.append(SendFailed() if self.failures >= 0 else Appended(message.topic, 0, 0))
        return fates


def test_what_failed_is_sent_again_under_its_own_id() -> None:
    async def scenario() -> None:
        clock, ledger, producer = LoopClock(), Ledger(), FailingProducer(5)
        mix = JobMix(1, "a-")
        jobs = [mix.job(n, clock.wall()) for n in range(3)]
        for _ in jobs:
            ledger.on_sent(0.0)
        sender = Sender(cast("Any", producer), cast("Any", None), lambda: "", topics=TOPICS, ledger=ledger, clock=clock)
        await sender.over_kafka(jobs)
        assert ledger.sent_again == 5
        assert NEVER not in ledger.acknowledged
        assert [message.key for message in producer.seen] == [b"a-0", b"a-1", b"a-2", b"a-0", b"a-1", b"a-2", b"a-0", b"a-1"]

    run(scenario())


def test_the_rate_holds_and_results_are_seen() -> None:
    """40 jobs at 20 a second take two seconds; each result closes its job."""

    async def scenario() -> None:
        clock, ledger = LoopClock(), Ledger()
        log = MemoryLog(clock)
        log.create([NewTopic(t.name, t.partitions, 1, {}) for t in TOPICS.all()])
        load = Load(_OverKafka(2, "a-"), ledger, TOPICS, clock)
        load.enough.set()
        watching = asyncio.create_task(load.watch(log))
        started = clock.monotonic()
        await load.produce(log, lambda: "", 40, 20.0)
        assert 1.9 < clock.monotonic() - started < 2.3
        for number in range(ledger.count):
            log.write(TopicPartition(TOPICS.results, 0), [Message(TOPICS.results, b"{}", f"a-{number}".encode(), 0)])
        await clock.sleep(2.0)
        watching.cancel()
        assert ledger.open == set()

    run(scenario())


def test_the_load_waits_for_who_serves_it() -> None:
    """No more is open than is sent in so many seconds, however slow the machine; each result makes room for another job."""

    async def scenario() -> None:
        clock, ledger, rate = LoopClock(), Ledger(), 20.0
        log = MemoryLog(clock)
        log.create([NewTopic(t.name, t.partitions, 1, {}) for t in TOPICS.all()])
        load = Load(_OverKafka(2, "a-"), ledger, TOPICS, clock)
        producing = asyncio.create_task(load.produce(log, lambda: "", 10_000, rate))
        await clock.sleep(10 * OPEN_SECONDS)
        assert ledger.count == rate * OPEN_SECONDS
        for number in range(100):
            ledger.on_result(number, clock.monotonic())
        await clock.sleep(10 * OPEN_SECONDS)
        assert ledger.count == rate * OPEN_SECONDS + 100
        producing.cancel()

    run(scenario())


class _Refusing:
    """A session whose ingress finds every job wrong."""

    def post(self, url: str, data: bytes) -> Any:
        return self

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is held."""

    status = 422

    async def text(self) -> str:
        return "wrong"


def test_a_job_that_is_refused_ends_the_run() -> None:
    """A load whose jobs are wrong would show nothing."""

    async def scenario() -> None:
        clock = LoopClock()
        sender = Sender(cast("Any", None), cast("Any", _Refusing()), lambda: "", topics=TOPICS, ledger=Ledger(), clock=clock)
        with pytest.raises(JobRefused):
            await sender.over_rest(JobMix(1, "a-").job(0, clock.wall()))

    run(scenario())


def test_what_breaks_in_the_background_ends_the_course() -> None:
    async def scenario() -> None:
        clock = LoopClock()

        async def broken() -> None:
            await clock.sleep(1.0)
            raise JobRefused

        with pytest.raises(JobRefused):
            await _unless_broken(clock.sleep(1e6), asyncio.create_task(broken()))
        await _unless_broken(clock.sleep(1.0), asyncio.create_task(clock.sleep(1e6)))

    run(scenario())


class _OverKafka(JobMix):
    """Without REST: there is no ingress here."""

    def job(self, number: int, now: float) -> Any:
        return replace(super().job(number, now), over_rest=False)
