"""What cannot be sent on is a dead letter; what lies around it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from services.delay import forwarder, held
from services.delay.forwarder import Forwarder
from services.delay.handlers import DelayReader
from services.delay.held import HeldRecords
from services.delay.settings import DelaySettings
from shared.clock import SystemClock
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.delayed import Delayed
from shared.kafka.port import Appended, Message, TopicPartition
from shared.processing.intake import Intake
from shared.processing.outbox import Outbox
from shared.processing.window import Window, WindowBounds
from shared.settings import DeadLetterCapSettings
from shared.topics import Topics
from tests.support.routing import FakeRecord

TOPICS = Topics()


class Accepting:
    """A producer that takes everything."""

    def __init__(self) -> None:
        self.sent: list[Message] = []

    async def send_many(self, messages: Sequence[Message]) -> list[Any]:
        self.sent += messages
        return [Appended(message.topic, 0, 0) for message in messages]


def test_a_record_that_cannot_be_sent_on_is_a_dead_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its window lets it go; the process lives on."""

    def onward(waiter: Any, *rest: Any) -> Message:
        if waiter.record.offset == 1:
            raise OverflowError
        return held.onward(waiter, *rest)

    monkeypatch.setattr(forwarder, "onward", onward)
    producer: Any = Accepting()
    window, waiting = Window(TopicPartition("delays.5s", 0), WindowBounds(), 0), HeldRecords()
    value = Delayed(topic="jobs.batch", partition=0, due_at=1.0, value=b"v").to_bytes()
    window.receive([FakeRecord("delays.5s", 0, offset, 0, None, value) for offset in range(3)])
    while (record := window.take()) is not None:
        waiting.add(DelayReader(TOPICS).read(record, window, 1_700_000_000.0))
    for waiter in waiting.take(float("inf"), 3):
        waiter.ready_at = 0.0
        waiting.add(waiter)
    clock = SystemClock()
    outbox = Outbox(clock, "delay", TOPICS)
    intake = Intake(outbox, service="delay", bounds=WindowBounds(), cap=DeadLetterCapSettings(), clock=clock, arrived=lambda: None)

    async def send() -> None:
        running = asyncio.create_task(outbox.run(producer))
        sending = Forwarder(intake, outbox, waiting, topics=TOPICS, settings=DelaySettings(), clock=clock, wake=asyncio.Event())
        await sending.forward()
        async with asyncio.timeout(10.0):
            while window.commit_offset < 3:
                await clock.sleep(0.01)
        running.cancel()

    asyncio.run(send())
    assert sorted(message.topic for message in producer.sent) == ["dead-letters", "jobs.batch", "jobs.batch"]
    [letter] = [DeadLetter.model_validate_json(m.value or b"") for m in producer.sent if m.topic == "dead-letters"]
    assert (letter.offset, letter.code) == (1, "internal")
    assert window.commit_offset == 3
