"""Where a consumer goes on: what it sought while a poll was under way counts, and an error of a whole answer is no empty answer."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import errors as kafka
from aiokafka.protocol.commit import OffsetFetchRequest

from shared.clock import SystemClock
from shared.kafka.client.aio_consumer import AioConsumer
from shared.kafka.client.aio_offsets import heed_offset_errors
from shared.kafka.client.aio_rebalance import AioAssignor
from shared.kafka.client.aio_topics import ask_any
from shared.kafka.port import TopicPartition

JOBS, OTHER = TopicPartition("jobs", 1), TopicPartition("other", 1)


class Client:
    """Of aiokafka's consumer what a poll touches; `found` comes when `arrived` is set."""

    def __init__(self) -> None:
        self._client = SimpleNamespace(cluster=SimpleNamespace())
        self._fetcher = SimpleNamespace()
        self.arrived, self.found = asyncio.Event(), cast("dict[Any, list[Any]]", {})
        self.sought: list[tuple[Any, int]] = []

    def assign(self, _partitions: Any) -> None: ...

    def assignment(self) -> set[Any]:
        return set()

    def paused(self) -> set[Any]:
        return set()

    async def getmany(self, *_partitions: Any, **_options: Any) -> dict[Any, list[Any]]:
        await self.arrived.wait()
        return self.found

    def seek(self, tp: Any, offset: int) -> None:
        self.sought.append((tuple(tp), offset))


async def polling(client: Client) -> tuple[AioConsumer, asyncio.Task[Any]]:
    consumer = AioConsumer(cast("Any", client), cast("AioAssignor", SimpleNamespace(error=None)), SystemClock())
    consumer.assign([JOBS, OTHER])
    consumer._identities.doubted.clear()
    consumer._look_at_topics = _nothing  # type: ignore[method-assign]
    task = asyncio.create_task(consumer.poll(timeout_seconds=5.0))
    await asyncio.sleep(0)  # noqa: TID251
    await asyncio.sleep(0)  # noqa: TID251
    return consumer, task


async def _nothing() -> None: ...


def records(*offsets: int) -> list[Any]:
    return [SimpleNamespace(offset=offset) for offset in offsets]


@pytest.mark.parametrize("late", [False, True])
async def test_a_poll_gives_nothing_of_where_its_caller_was(late: bool) -> None:
    """Whether the records are from before he went or from after: they are left out, and reading begins where he wants. Others are given."""
    client = Client()
    consumer, task = await polling(client)
    client.found = {consumer._their(JOBS): records(291, 292), consumer._their(OTHER): records(7)}
    if late:
        client.arrived.set()
    consumer.seek(JOBS, 0)
    client.arrived.set()
    given = await task
    assert {tuple(tp): [record.offset for record in found] for tp, found in given.items()} == {("other", 1): [7]}
    assert client.sought == [(("jobs", 1), 0)] * 2


async def test_what_was_sought_before_a_poll_is_read() -> None:
    """The next poll begins there."""
    client = Client()
    consumer, task = await polling(client)
    consumer.seek(JOBS, 5)
    client.arrived.set()
    await task
    client.found = {consumer._their(JOBS): records(5, 6)}
    given = await consumer.poll(timeout_seconds=5.0)
    assert [record.offset for found in given.values() for record in found] == [5, 6]


def coordinator(*answers: Any) -> Any:
    left = list(answers)

    async def send(_request: Any) -> Any:
        return left.pop(0)

    found = SimpleNamespace(_send_req=send, dead=0)
    found.coordinator_dead = lambda: setattr(found, "dead", found.dead + 1)
    return found


@pytest.mark.parametrize(
    ("code", "error", "dead"),
    [(14, kafka.GroupLoadInProgressError, 0), (15, kafka.GroupCoordinatorNotAvailableError, 1), (16, kafka.NotCoordinatorForGroupError, 1)],
)
async def test_a_coordinator_that_cannot_tell_has_not_said_that_nothing_is_committed(code: int, error: type[Exception], dead: int) -> None:
    """Its error is raised, so that it is asked again; another one is looked for where it is not the one."""
    asked = OffsetFetchRequest("group", [("jobs", [1])])
    found = coordinator(SimpleNamespace(error_code=code, topics=[]), SimpleNamespace(error_code=0, topics=["t"]))
    heed_offset_errors(cast("Any", SimpleNamespace(_coordinator=found)))
    with pytest.raises(error):
        await found._send_req(asked)
    assert (await found._send_req(asked)).topics == ["t"]
    assert (found.dead, getattr(error, "retriable", False)) == (dead, True)


async def test_other_answers_are_nobodys_business_here() -> None:
    """A heartbeat's error is read by who sent it."""
    found = coordinator(SimpleNamespace(error_code=27))
    heed_offset_errors(cast("Any", SimpleNamespace(_coordinator=found)))
    assert (await found._send_req(object())).error_code == 27


def test_a_lost_broker_is_not_asked_alone() -> None:
    """The client knows it for up to half a minute more: whoever asks any broker goes on to the next. The first is chance's."""

    def client(fates: dict[int, Any], first: int) -> tuple[Any, list[int]]:
        asked: list[int] = []

        async def send(node: int, _request: Any, *, group: Any) -> Any:
            asked.append(node)
            if isinstance(fates[node], Exception):
                raise fates[node]
            return fates[node]

        brokers = [SimpleNamespace(nodeId=node) for node in fates]
        cluster = SimpleNamespace(brokers=lambda: brokers)
        return SimpleNamespace(cluster=cluster, get_random_node=lambda: first if fates else None, send=send), asked

    away = kafka.NodeNotReadyError()
    for fates, first, answer, order in (
        ({1: away, 2: kafka.KafkaConnectionError(), 3: "told"}, 2, "told", [2, 1, 3]),
        ({1: "told", 2: away, 3: away}, 3, "told", [3, 1]),
        ({1: "told", 2: "told"}, 2, "told", [2]),
    ):
        there, asked = client(fates, first)
        assert asyncio.run(ask_any(there, cast("Any", None))) == answer
        assert asked == order
    for nobody in (client({}, 0), client({1: away}, 1)):
        with pytest.raises(kafka.NodeNotReadyError):
            asyncio.run(ask_any(nobody[0], cast("Any", None)))
