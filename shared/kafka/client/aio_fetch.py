"""What aiokafka's fetcher keeps to itself, and what it does without a bound. Of one started consumer (`heed_fetches`):

- Errors of single partitions are kept (`Oddities`): a topic may have been made anew, records may be gone.
- `fetched_records` hands out at most `POLL_BYTES` at once; records are unpacked as they are handed out.
- Metadata is asked for with pauses: as long as a partition has no leader (its topic is gone) aiokafka asks without one.

Another version of aiokafka is left alone with a warning: records of a topic that was made anew may then be missed.
"""
# ruff: noqa: SLF001  (the whole file is about the inside of one pinned version)

from __future__ import annotations

import asyncio
import sys
from collections.abc import Collection
from typing import Any, cast

import aiokafka
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import Fetcher, FetchResult
from aiokafka.protocol.fetch import FetchRequest

from shared.kafka.settings import POLL_BYTES, RETRY_SECONDS
from shared.telemetry import logs

log = logs.get(__name__)

PINNED = "0.14.0"  # the one version whose inside is known here

OFFSET_OUT_OF_RANGE = 1


def heed_fetches(consumer: AIOKafkaConsumer) -> bool:
    """From now on its fetches are heeded. False, and a warning, where it would not be safe; the consumer then works as it is."""
    fetcher = consumer._fetcher
    assert fetcher is not None, "the consumer was started"
    if aiokafka.__version__ != PINNED or type(fetcher) is not Fetcher:
        log.warning("fetches_not_heeded", version=aiokafka.__version__, pinned=PINNED, fetcher=type(fetcher).__name__)
        return False
    fetcher.__class__ = HeedfulFetcher
    heedful = cast("HeedfulFetcher", fetcher)
    heedful.oddities = Oddities()
    heedful._client = _Client(heedful._client)
    return True


class Oddities:
    """What answers said that a reader must know and aiokafka keeps to itself."""

    def __init__(self) -> None:
        self.doubtful: set[str] = set()
        """Topics of which a fetch failed: they may have been deleted and made anew since."""
        self.out_of_range: dict[tuple[str, int], int] = {}
        """(topic, partition) → the offset asked for, which the log does not have. aiokafka goes on elsewhere."""

    def __bool__(self) -> bool:
        return bool(self.doubtful or self.out_of_range)


def _stands(assignment: Any, partition: tuple[str, int], offset: int) -> bool:
    """Whether the reader is still where it asked: it has not been told to read elsewhere since."""
    state = assignment.state_value(partition)
    return state is not None and not (state.has_valid_position and state.position != offset)


class _Client:
    """aiokafka's client; the answer to a fetch is left with its request, for who sent it."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def send(self, node_id: int, request: Any) -> Any:
        response = await self._client.send(node_id, request)
        if isinstance(request, FetchRequest):
            request.answer = response  # type: ignore[attr-defined]
        return response


class HeedfulFetcher(Fetcher):
    """aiokafka's fetcher. Never constructed: `heed_fetches` makes one of a fetcher that runs. Hence the state on the class."""

    _stale_until: float = 0.0
    """Until then metadata is not asked for again."""
    oddities: Oddities

    def _get_actions_per_node(self, assignment: Any) -> tuple[Any, ...]:
        """What to send where: (fetches, resets, seconds until asked again, metadata is stale, futures of paused partitions)."""
        requests, resets, seconds, stale, resumed = super()._get_actions_per_node(assignment)  # type: ignore[no-untyped-call]
        if stale:
            early = self._stale_until - (now := asyncio.get_running_loop().time())
            if early > 0:
                stale, seconds = False, min(seconds, early)
            else:
                self._stale_until = now + RETRY_SECONDS
        return requests, resets, seconds, stale, resumed

    async def _proc_fetch_request(self, assignment: Any, node_id: int, request: Any) -> bool:
        """Send, await, buffer what came. True when a waiting reader has something to read."""
        request.answer = None
        woken = bool(await super()._proc_fetch_request(assignment, node_id, request))  # type: ignore[no-untyped-call]
        if assignment.active:
            self._keep_oddities(assignment, request)
        return woken

    def _keep_oddities(self, assignment: Any, request: Any) -> None:
        if request.answer is None:
            self.oddities.doubtful.update(topic for topic, _ in request.topics)
            return
        failed = {(topic, n): error for topic, partitions in request.answer.topics for n, error, *_ in partitions if error}
        asked = {(topic, n): offset for topic, partitions in request.topics for n, offset, _ in partitions} if failed else {}
        for partition, error in failed.items():
            self.oddities.doubtful.add(partition[0])
            if error == OFFSET_OUT_OF_RANGE and _stands(assignment, partition, asked[partition]):
                self.oddities.out_of_range.setdefault(partition, asked[partition])

    async def fetched_records(
        self,
        partitions: Collection[Any],
        timeout: float = 0,  # noqa: ASYNC109  (aiokafka's name)
        max_records: int | None = None,
    ) -> dict[Any, list[Any]]:
        """What is buffered of these partitions (none: of all), up to both bounds; waits up to `timeout` seconds for the first."""
        until = self._loop.time() + timeout
        while True:
            if self._subscriptions.reassignment_in_progress:
                await self._subscriptions.wait_for_assignment()
            drained = self._drain(partitions, max_records or sys.maxsize)
            if drained or not timeout:
                return drained
            waiter = self._create_fetch_waiter()  # type: ignore[no-untyped-call]
            done, _ = await asyncio.wait([waiter], timeout=max(0.0, until - self._loop.time()))
            if not done or self._closed:
                waiter.cancel()
                return {}
            waiter.result()  # the coordinator's errors come this way

    def _drain(self, partitions: Collection[Any], most: int) -> dict[Any, list[Any]]:
        """A kept error is raised by the next call, if there is anything to hand out before it.

        What a fetch may bring of a partition, packed, is also what is handed out of it at once, unpacked.
        """
        drained: dict[Any, list[Any]] = {}
        room = POLL_BYTES
        for tp in list(self._records):
            if most <= 0 or room <= 0:
                break
            found = self._records[tp]
            if partitions and tp not in partitions:
                if not self._subscriptions.is_assigned(tp):
                    del self._records[tp]
                continue
            if type(found) is not FetchResult:
                if not drained:
                    self._forget(tp)
                    found.check_raise()
                break
            records, size = take(found, tp, most, min(room, self._max_partition_fetch_bytes))
            if found.has_more():
                self._records[tp] = self._records.pop(tp)  # behind the others: none waits until this one's buffer is empty
            else:
                self._forget(tp)
            if records:
                drained[tp] = records
                most, room = most - len(records), room - size
        return drained

    def _forget(self, tp: Any) -> None:
        """The partition may be fetched again."""
        del self._records[tp]
        self._notify(self._wait_consume_future)  # type: ignore[no-untyped-call]


def take(result: Any, tp: Any, most: int, room: int) -> tuple[list[Any], int]:
    """At most `most` records, and no further one once they have `room` bytes; and how many they have."""
    unread = result._partition_records
    if not result.check_assignment(tp) or not result.has_more():
        if unread is not None:
            unread.close()
        return [], 0
    taken: list[Any] = []
    size = 0
    for record in result._partition_records:
        taken.append(record)
        size += len(record.value or b"")
        if len(taken) >= most or size >= room:
            result._update_position()
            return taken, size
    result._update_position()
    result._partition_records = None
    return taken, size
