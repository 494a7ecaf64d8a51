"""What a worker tells: marks, promises and renewals over lanes of which one takes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from services.worker.outbox import MOST_MARKS, Outbox
from shared.clock import LoopClock
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.port import Message, NewTopic, TopicPartition
from shared.topics import Topics
from tests.support.virtual_loop import within

MAILBOX = TopicPartition("work.chat", 0)


def told(text: str, home: int = 0) -> Message:
    return Message("outcomes", text.encode(), b"job", home)


class Desk:
    """A log with two homes, an outbox that drains, and the positions that it has reported."""

    def __init__(self) -> None:
        self.clock = LoopClock()
        self.log = MemoryLog(self.clock)
        self.log.create([NewTopic("outcomes", 2, 1, {})])
        self.reported: list[int] = []
        self.outbox = Outbox(self.clock, Topics(), self._on_acknowledged)

    def _on_acknowledged(self, positions: Mapping[TopicPartition, int]) -> None:
        self.reported.append(positions[MAILBOX])

    def written(self, home: int = 0) -> list[bytes | None]:
        return [record.value for record in self.log.existing(TopicPartition("outcomes", home)).records]


@asynccontextmanager
async def desk() -> AsyncIterator[Desk]:
    here = Desk()
    task = asyncio.create_task(here.outbox.run(await here.log.producer(client_id="test")))
    yield here
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


simulated = within(desk)


@simulated
async def test_a_mark_waits_for_every_home_and_no_home_for_another(here: Desk) -> None:
    """While one home takes nothing the position stays; the other home hears all at once; then the newest position is reported."""
    here.log.faults.away[TopicPartition("outcomes", 1)] = 20.0
    here.outbox.put(told("stuck", 1))
    for number in range(5 * MOST_MARKS):
        here.outbox.put(told(str(number)))
        here.outbox.mark({MAILBOX: number + 1})
        await here.clock.sleep(0.5)
        assert len(here.written()) == number + 1
    assert here.reported == []
    here.log.faults.heal()
    await here.outbox.flushed()
    assert here.written(1) == [b"stuck"]
    assert here.reported == sorted(here.reported)
    assert here.reported[-1] == 5 * MOST_MARKS
    assert len(here.reported) <= MOST_MARKS + 1


@simulated
async def test_an_outcome_takes_the_place_of_its_claim(here: Desk) -> None:
    """Of one that is not sent yet; a claim on its way stays, and its outcome follows."""
    here.outbox.promise("a", told("claim a"))
    here.outbox.put(told("outcome a"), instead_of="a")
    await here.outbox.flushed()
    here.outbox.promise("b", told("claim b"))
    await here.outbox.flushed()
    here.outbox.put(told("outcome b"), instead_of="b")
    await here.outbox.flushed()
    assert here.written() == [b"outcome a", b"claim b", b"outcome b"]


@simulated
async def test_renewals_do_not_pile_up(here: Desk) -> None:
    """Newer ones take the place of those that wait; they are sent once."""
    here.log.faults.away["outcomes"] = 20.0
    here.outbox.put(told("first"))
    await here.clock.sleep(0.1)
    for number in range(100):
        here.outbox.renew([told(f"renewed {number}")])
    here.log.faults.heal()
    await here.outbox.flushed()
    assert here.written() in ([b"first", b"renewed 99"], [b"first"])
