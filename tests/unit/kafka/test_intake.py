"""Intake: what a rebalance leaves of its windows, and what it commits (in-memory log, virtual time)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from infra.lab.virtual_loop import run
from shared.clock import LoopClock
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.port import Message, NewTopic, TopicPartition
from shared.processing.intake import Intake
from shared.processing.outbox import Outbox
from shared.processing.window import Window, WindowBounds
from shared.settings import DeadLetterCapSettings
from shared.topics import Topics

PARTITION = TopicPartition("t", 0)


class Reader:
    """One process of the group. Nothing is finished but what the test finishes."""

    def __init__(self, log: MemoryLog, name: str) -> None:
        self._log, self.name, self.drops = log, name, 0

    async def start(self) -> Reader:
        self.intake = Intake(
            Outbox(self._log.clock, "test", Topics()),
            service="test",
            bounds=WindowBounds(),
            cap=DeadLetterCapSettings(),
            clock=self._log.clock,
            arrived=lambda: None,
            dropped=self._dropped,
        )
        await self.intake.join(self._log.process(self.name), "g", self.name, ["t"])
        self._task = asyncio.create_task(self.intake.run())
        return self

    def _dropped(self) -> None:
        self.drops += 1

    @property
    def window(self) -> Window:
        return self.intake.windows[PARTITION]

    def finish(self, count: int) -> None:
        """Take so many records, and be done with them."""
        for _ in range(count):
            record = self.window.take()
            assert record is not None
            self.window.finish(record.offset)

    async def reads(self) -> None:
        """Wait until it has something of the partition."""
        async with asyncio.timeout(60):
            while PARTITION not in self.intake.windows:
                await self._log.clock.sleep(0.1)

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        await self.intake.close()


def written(log: MemoryLog) -> list[int]:
    """Every commit of the partition, in order."""
    found: list[int] = []

    def on_commit(_group: str, offsets: Mapping[TopicPartition, int]) -> None:
        if PARTITION in offsets:
            found.append(offsets[PARTITION])

    log.committed_listeners.append(on_commit)
    return found


def begun() -> MemoryLog:
    log = MemoryLog(LoopClock())
    log.create([NewTopic("t", 1, 1, {})])
    log.write(PARTITION, [Message("t", b"x")] * 20)
    return log


def test_a_window_that_another_owner_has_left_behind_is_dropped() -> None:
    """Paused beyond its session, woken, given the partition back: it reads on where the other owner has come to."""

    async def scenario() -> None:
        log = begun()
        commits = written(log)
        zombie = await Reader(log, "zombie").start()
        await zombie.reads()
        zombie.finish(2)
        await zombie.intake.commit()
        old = zombie.window
        log.freeze("zombie")
        other = await Reader(log, "other").start()
        await other.reads()
        other.finish(10)
        await other.intake.commit()
        await other.end()
        log.thaw("zombie")
        await log.clock.sleep(30)
        assert old.lost
        assert zombie.window.commit_offset == 12
        assert zombie.drops == 2
        zombie.finish(1)
        await zombie.intake.commit()
        assert commits == sorted(commits)
        assert commits[-1] == 13
        await zombie.end()

    run(scenario())


@pytest.mark.parametrize("finished", [0, 3])
def test_a_window_that_nobody_else_has_read_stays(finished: int) -> None:
    """Thrown out of the group and back: what was taken goes on, also what was finished and not yet committed."""

    async def scenario() -> None:
        log = begun()
        reader = await Reader(log, "a").start()
        await reader.reads()
        reader.finish(2)
        await reader.intake.commit()
        window = reader.window
        reader.intake._consumer.evict()  # type: ignore[attr-defined]
        reader.finish(finished)
        await log.clock.sleep(30)
        assert not window.lost
        assert reader.window is window
        await reader.intake.commit()
        assert log.group("g").offsets[PARTITION] == 2 + finished
        await reader.end()

    run(scenario())


def test_commits_do_not_overtake_one_another() -> None:
    """The loop's and the one before a rebalance, at the same time on connections of different speed."""

    async def scenario() -> None:
        log = begun()
        commits = written(log)
        reader = await Reader(log, "a").start()
        await reader.reads()
        log.faults.call_seconds = (1.0, 1.0)
        reader.finish(2)
        slow = asyncio.create_task(reader.intake.commit())
        await log.clock.sleep(0.1)
        log.faults.call_seconds = (0.0, 0.0)
        reader.finish(2)
        await reader.intake.commit()
        await slow
        assert commits == [2, 4]
        await reader.end()

    run(scenario())
