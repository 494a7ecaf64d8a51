"""Promise: a consumer pauses only after a poll that brought many records; one that brought few is followed by the next at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from infra.lab import virtual_loop
from shared.clock import LoopClock
from shared.kafka.client.aio_consumer import AioConsumer
from shared.kafka.port import TopicPartition
from shared.kafka.settings import PACE_RECORDS, PACE_SECONDS

PARTITIONS = [TopicPartition("a", 0), TopicPartition("b", 0)]


@pytest.mark.parametrize(("brought", "pause"), [(1, 0.0), (PACE_RECORDS - 1, 0.0), (PACE_RECORDS, PACE_SECONDS), (500, PACE_SECONDS)])
def test_the_next_poll_waits_only_behind_many_records(brought: int, pause: float) -> None:
    """Counted over all partitions of the poll."""

    async def measure() -> float:
        clock = LoopClock()
        consumer = consumer_of(
            [{PARTITIONS[0]: ["record"] * (brought // 2), PARTITIONS[1]: ["record"] * (brought - brought // 2)}, {}], clock
        )
        await clock.sleep(1)
        await consumer.poll(timeout_seconds=0)
        began = clock.monotonic()
        await consumer.poll(timeout_seconds=0)
        return clock.monotonic() - began

    assert virtual_loop.run(measure()) == pytest.approx(pause)


def test_a_fetch_may_wait_long_only_while_nothing_is_paused() -> None:
    """A partition that is resumed waits for the fetch in flight; else nobody does."""
    paused: set[TopicPartition] = set()
    fetcher = SimpleNamespace(_fetch_max_wait_ms=500, oddities=None)
    theirs = SimpleNamespace(
        _client=None, _fetcher=fetcher, assign=lambda _: None, assignment=lambda: set(PARTITIONS), paused=lambda: paused,
        pause=lambda *tps: paused.update(tps), resume=lambda *tps: paused.difference_update(tps),
    )  # fmt: skip

    async def waits() -> list[int]:
        consumer = AioConsumer(theirs, SimpleNamespace(error=None), LoopClock(), waits_ms=(500, 100))  # type: ignore[arg-type]
        consumer.assign(PARTITIONS)
        found = []
        for change in (consumer.pause, consumer.resume):
            for partition in PARTITIONS:
                change(partition)
                found.append(fetcher._fetch_max_wait_ms)
        return found

    assert virtual_loop.run(waits()) == [100, 100, 100, 500]


def consumer_of(polls: list[Any], clock: LoopClock) -> AioConsumer:
    """A consumer whose client brings this."""

    async def getmany(*_: Any, **__: Any) -> Any:
        return polls.pop(0)

    theirs = SimpleNamespace(_client=None, _fetcher=None, getmany=getmany, assign=lambda _: None, assignment=set, paused=set)
    made = AioConsumer(theirs, SimpleNamespace(error=None), clock)  # type: ignore[arg-type]
    made.assign(PARTITIONS)
    made._identities = SimpleNamespace(look=lambda *_: (), polled=lambda: None, doubted=set())  # type: ignore[assignment]
    return made
