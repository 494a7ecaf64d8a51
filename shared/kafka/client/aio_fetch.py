"""A cheaper fetch cycle for aiokafka 0.14.0: the same bytes, the same answers, the same decisions.

aiokafka encodes and decodes every field by a chain of Python calls, and looks at every partition of an answer although most bring nothing:
half of a cycle's CPU with 36 partitions. Here one `struct` call packs or unpacks a partition. Seams, all of one started consumer:

- `LeanFetcher` takes the place of the consumer's fetcher class. It makes `LeanRequest`s.
- `LeanRequest` encodes Fetch v11 itself and names `LeanResponse` as its answer. Older versions are aiokafka's.
- Partitions without records and without error ("quiet") are settled in bulk and kept from aiokafka's loop.
- `fetched_records` hands out at most `POLL_BYTES` at once; records are unpacked as they are handed out.
- Errors are kept (`Oddities`): a topic may have been made anew, records may be gone.

Whatever is unusual (a buffered partition, two brokers, no leader, odd or short bytes) goes to aiokafka's own code, which also raises its
own errors. Another version of aiokafka, or a rack, is left alone with a warning: only speed and the bound of a poll
depend on this file.
"""
# ruff: noqa: SLF001  (the whole file is about the inside of one pinned version)

from __future__ import annotations

import asyncio
import random
import struct
import sys
import time
from collections.abc import Collection
from io import BytesIO
from typing import Any, Self, cast

import aiokafka
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import Fetcher, FetchResult
from aiokafka.protocol.fetch import FetchRequest, FetchRequest_v11, FetchRequestStruct, FetchResponse_v11

from shared.kafka.settings import POLL_BYTES, RETRY_SECONDS
from shared.telemetry import logs

log = logs.get(__name__)

PINNED = "0.14.0"  # the one version whose inside is known here

REQUEST_HEAD = struct.Struct(">iiiibiii")
# replica, longest wait (ms), least bytes, most bytes, isolation, session, session epoch, number of topics
REQUEST_PARTITION = struct.Struct(">iiqqi")  # partition, leader epoch, offset, log start, most bytes
RESPONSE_HEAD = struct.Struct(">ihii")  # throttle (ms), error, session, number of topics
RESPONSE_PARTITION = struct.Struct(">ihqqqiii")
"""Partition, error, high water, last stable, log start, aborted transactions (here none), preferred replica, length of records."""
RESPONSE_TAIL = struct.Struct(">ii")  # the last two of these; aborted transactions stand before them
ABORTED = struct.Struct(">qq")  # producer, first offset
INT16 = struct.Struct(">h")
INT32 = struct.Struct(">i")

Partition = tuple[int, int, int, int, int, list[tuple[int, int]] | None, int, bytes]
"""Partition, error, high water, last stable, log start, aborted (producer, first offset), preferred replica, records."""
ERROR, HIGHWATER, STABLE, RECORDS = 1, 2, 3, 7
OFFSET_OUT_OF_RANGE = 1
Topics = list[tuple[str, list[Partition]]]


def hasten(consumer: AIOKafkaConsumer) -> bool:
    """Give a started consumer the lean fetch cycle. False, and a warning, where it would not be safe; the consumer then works as it is."""
    fetcher = consumer._fetcher
    assert fetcher is not None, "the consumer was started"
    if aiokafka.__version__ != PINNED or type(fetcher) is not Fetcher or fetcher._client_rack:
        log.warning("fetch_not_hastened", version=aiokafka.__version__, pinned=PINNED, fetcher=type(fetcher).__name__)
        return False
    fetcher.__class__ = LeanFetcher
    cast("LeanFetcher", fetcher).oddities = Oddities()
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


class LeanFetcher(Fetcher):
    """aiokafka's fetcher. Never constructed: `hasten` makes one of a fetcher that runs. Hence the state on the class."""

    _leader_seen: tuple[Any, Any, int | None] = (None, None, None)
    _stale_until: float = 0.0
    """Until then metadata is not asked for again: as long as a partition has no leader (its topic is gone) aiokafka asks without pause."""
    oddities: Oddities

    def _get_actions_per_node(self, assignment: Any) -> tuple[Any, ...]:
        """What to send where: (fetches, resets, seconds until asked again, metadata is stale, futures of paused partitions)."""
        plain = None if self._records or self._preferred_read_replica else self._one_node(assignment)
        if plain is not None:
            fetches, paused = plain
            return fetches, {}, self._fetcher_timeout, False, paused
        requests, resets, seconds, stale, resumed = super()._get_actions_per_node(assignment)  # type: ignore[no-untyped-call]
        if stale:
            early = self._stale_until - (now := asyncio.get_running_loop().time())
            if early > 0:
                stale, seconds = False, min(seconds, early)
            else:
                self._stale_until = now + RETRY_SECONDS
        return [(node, LeanRequest.like(request)) for node, request in requests], resets, seconds, stale, resumed

    async def _proc_fetch_request(self, assignment: Any, node_id: int, request: FetchRequest) -> bool:
        """Send, await, buffer what came. True when a waiting reader has something to read."""
        woken = bool(await super()._proc_fetch_request(assignment, node_id, request))  # type: ignore[no-untyped-call]
        if isinstance(request, LeanRequest) and assignment.active:
            if request.quiet:
                settle(assignment, request)
            if request.errors or not request.answered:
                self._keep_oddities(assignment, request)
        return woken

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
            if not found.has_more():
                self._forget(tp)
            if records:
                drained[tp] = records
                most, room = most - len(records), room - size
        return drained

    def _forget(self, tp: Any) -> None:
        """The partition may be fetched again."""
        del self._records[tp]
        self._notify(self._wait_consume_future)  # type: ignore[no-untyped-call]

    def _keep_oddities(self, assignment: Any, request: LeanRequest) -> None:
        self.oddities.doubtful.update(topic for topic, _ in request.topics if not request.answered)
        asked = {(topic, partition): offset for topic, partitions in request.topics for partition, offset, _ in partitions}
        for topic, partition, error in request.errors:
            self.oddities.doubtful.add(topic)
            if error == OFFSET_OUT_OF_RANGE and _stands(assignment, (topic, partition), asked[topic, partition]):
                self.oddities.out_of_range.setdefault((topic, partition), asked[topic, partition])

    def _one_node(self, assignment: Any) -> tuple[list[tuple[int, FetchRequest]], list[Any]] | None:
        """(fetches, futures of paused partitions) when nothing is buffered and all partitions have one leader; None where aiokafka has to
        look closer.
        """
        leader = self._one_leader(assignment)
        if leader is None:
            return None
        if leader in self._in_flight:
            return [], []
        wanted, paused = [], []
        for tp, state in assignment._tp_state.items():
            if state._position is None:
                return None
            if state._paused:
                paused.append(state._resume_fut)
            else:
                wanted.append((tp, state._position))
        if not wanted:
            return [], paused
        random.shuffle(wanted)  # the broker fills an answer in this order up to its bound
        topics: dict[str, list[tuple[int, int, int]]] = {}
        for (topic, partition), position in wanted:
            topics.setdefault(topic, []).append((partition, position, self._max_partition_fetch_bytes))
        bounds = (self._fetch_max_wait_ms, self._fetch_min_bytes, self._fetch_max_bytes, self._isolation_level)
        return [(leader, LeanRequest(*bounds, list(topics.items())))], paused

    def _one_leader(self, assignment: Any) -> int | None:
        """The node that leads all assigned partitions, if any. A metadata update makes a new table, a rebalance a new assignment."""
        table = self._client.cluster._partitions
        seen_assignment, seen_table, leader = self._leader_seen
        if seen_assignment is not assignment or seen_table is not table:
            leaders = {self._client.cluster.leader_for_partition(tp) for tp in assignment.tps}
            leader = leaders.pop() if len(leaders) == 1 and not leaders & {None, -1} else None
            self._leader_seen = (assignment, table, leader)
        return leader


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


def settle(assignment: Any, request: LeanRequest) -> None:
    """Note what the broker said about the quiet partitions, as aiokafka does for the others: unless the reader sought elsewhere."""
    offsets = {(topic, partition): offset for topic, partitions in request.topics for partition, offset, _ in partitions}
    now_ms = int(1000 * time.time())  # noqa: TID251  (aiokafka's `last_poll_timestamp` is the wall clock)
    for topic, partitions in request.quiet:
        for found in partitions:
            tp = (topic, found[0])
            state = assignment._tp_state[tp]
            if state._position == offsets[tp]:
                state.highwater, state.lso, state.timestamp = found[HIGHWATER], found[STABLE], now_ms


class LeanRequest(FetchRequest):
    """A fetch request. `quiet` holds what its answer said of partitions that brought nothing; `topics` of the answer has the others."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.quiet: Topics = []
        self.answered = False
        self.errors: list[tuple[str, int, int]] = []
        """(topic, partition, error) of those that failed."""

    @classmethod
    def like(cls, request: FetchRequest) -> Self:
        bounds = (request._max_wait_ms, request._min_bytes, request._max_bytes, request._isolation_level)
        return cls(*bounds, request._topics, rack_id=request._rack_id)

    def build(self, request_struct_class: type[FetchRequestStruct]) -> FetchRequestStruct:
        if request_struct_class is FetchRequest_v11:
            return LeanStruct(self)
        return super().build(request_struct_class)

    def plain(self) -> FetchRequest_v11:
        return cast("FetchRequest_v11", super().build(FetchRequest_v11))


class LeanStruct(FetchRequest_v11):
    """Fetch v11 on the wire: the bytes, and who reads the answer."""

    def __init__(self, request: LeanRequest) -> None:
        self.request = request
        self.RESPONSE_TYPE = Sorter(request)  # type: ignore[misc,assignment]

    def encode(self) -> bytes:
        """Raises: ValueError, from aiokafka, when a number or a name does not fit."""
        try:
            return encode_request(self.request)
        except struct.error:
            return self.request.plain().encode()

    def __repr__(self) -> str:
        return repr(self.request.plain())


class Sorter:
    """Reads the answer to one request and sets its quiet partitions aside. A connection calls `decode` where it expects a class."""

    def __init__(self, request: LeanRequest) -> None:
        self._request = request

    def decode(self, data: BytesIO) -> LeanResponse:
        response = LeanResponse.decode(data)
        self._request.answered, self._request.quiet = True, []
        for topic, partitions in response.topics or ():
            self._request.errors += [(topic, partition, error) for partition, error, *_ in partitions if error]
            self._request.quiet.append((topic, [found for found in partitions if not (found[RECORDS] or found[ERROR])]))
            partitions[:] = [found for found in partitions if found[RECORDS] or found[ERROR]]
        return response


class LeanResponse(FetchResponse_v11):
    """Equal to what aiokafka decodes from the same bytes."""

    topics: Topics | None

    @classmethod
    def decode(cls, data: BytesIO | bytes) -> Self:
        """Raises: ValueError, from aiokafka, when the bytes are not a Fetch v11 answer."""
        stream = data if isinstance(data, BytesIO) else BytesIO(data)
        start = stream.tell()
        try:
            return cls(*decode_response(stream.getvalue(), start))
        except (struct.error, UnicodeDecodeError):
            stream.seek(start)
            return super().decode(stream)


def encode_request(request: FetchRequest) -> bytes:
    """Fetch v11 without a session. Raises: struct.error when a number or a name does not fit."""
    bounds = (request._max_wait_ms, request._min_bytes, request._max_bytes, request._isolation_level)
    pieces = [REQUEST_HEAD.pack(-1, *bounds, 0, -1, len(request._topics))]
    for topic, partitions in request._topics:
        pieces += _string(topic), INT32.pack(len(partitions))
        pieces += [REQUEST_PARTITION.pack(partition, -1, offset, -1, most) for partition, offset, most in partitions]
    pieces += INT32.pack(0), _string(request._rack_id)
    return b"".join(pieces)


def _string(text: str) -> bytes:
    encoded = text.encode()
    return INT16.pack(len(encoded)) + encoded


def decode_response(buffer: bytes, at: int) -> tuple[int, int, int, Topics]:
    """Throttle, error, session, topics of the Fetch v11 answer that begins `at`. Raises: struct.error for aiokafka to judge."""
    throttle, error, session, count = RESPONSE_HEAD.unpack_from(buffer, at)
    at += RESPONSE_HEAD.size
    topics: Topics = []
    for _ in range(_sane(count)):
        (length,) = INT16.unpack_from(buffer, at)
        at += INT16.size
        topic = buffer[at : at + _sane(length)].decode()
        at += length
        (partitions,) = INT32.unpack_from(buffer, at)
        at += INT32.size
        found = []
        for _ in range(_sane(partitions)):
            partition, at = _partition(buffer, at)
            found.append(partition)
        topics.append((topic, found))
    return throttle, error, session, topics


def _partition(buffer: bytes, at: int) -> tuple[Partition, int]:
    """The partition that begins `at`, and where the next one does."""
    partition, error, highwater, stable, start, count, replica, length = RESPONSE_PARTITION.unpack_from(buffer, at)
    at += RESPONSE_PARTITION.size
    aborted: list[tuple[int, int]] | None = None if count == -1 else []
    if count > 0:
        first, at = at - RESPONSE_TAIL.size, at + count * ABORTED.size
        replica, length = RESPONSE_TAIL.unpack_from(buffer, at - RESPONSE_TAIL.size)
        aborted = list(ABORTED.iter_unpack(buffer[first : at - RESPONSE_TAIL.size]))
    end = at + _sane(length)
    if count < -1 or end > len(buffer):
        raise struct.error
    return (partition, error, highwater, stable, start, aborted, replica, buffer[at:end]), end


def _sane(count: int) -> int:
    if count < 0:
        raise struct.error
    return count
