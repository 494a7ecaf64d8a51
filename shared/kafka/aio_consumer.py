"""The consumer on aiokafka. Records come out as aiokafka made them: nothing is copied.

Facts of aiokafka 0.14 that callers live with (notes in tests/integration/test_platform_assumptions.py):
one fetch is in flight per broker and it asks only for partitions that were neither paused nor buffered when it was sent; the broker answers
it as soon as any of those has data. So a consumer that drains all buffers at each poll waits for nothing; a partition that was paused, or
just resumed or sought, waits for the fetch in flight, at most `fetch_max_wait_ms`. `pause` throws the partition's buffer away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import cast

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as Theirs

from shared.clock import Clock
from shared.errors import CommitRefused, LogError, LogUnavailable
from shared.kafka.aio_assignor import AioAssignor
from shared.kafka.aio_closing import close_client, unless_cancelled
from shared.kafka.aio_errors import FOREIGN, commit_error, in_our_words, log_error
from shared.kafka.aio_rebalance import Ownership
from shared.kafka.port import RebalanceListener, Record, TopicPartition
from shared.kafka.settings import CALL_SECONDS, PACE_SECONDS, STOP_SECONDS
from shared.telemetry import logs

log = logs.get(__name__)

SILENCE_SECONDS = 5.0
"""An empty poll after so long without any answer is an error: a fetch is answered within `fetch_max_wait`, also when nothing is new."""
POLL_GRACE_SECONDS = 0.1
"""A poll that a rebalance catches in the middle is cut this long after its timeout."""


class AioConsumer:
    """Implements `port.Consumer`."""

    def __init__(self, consumer: AIOKafkaConsumer, assignor: AioAssignor, clock: Clock) -> None:
        self._consumer = consumer
        self._clock = clock
        self._brought_at = 0.0
        self._asked_since = clock.monotonic()
        """When the set of partitions that are asked for changed last."""
        self._assignor = assignor
        self._ownership = Ownership()
        self._theirs: dict[TopicPartition, Theirs] = {}
        self._subscribed = False
        self._closed = False

    def assign(self, partitions: Collection[TopicPartition]) -> None:
        with in_our_words():
            self._consumer.assign([self._their(tp) for tp in partitions])
        self._ownership.assigned_by_hand(partitions)

    async def subscribe(self, topics: Collection[str], listener: RebalanceListener | None = None) -> None:
        self._subscribed = True
        self._ownership.listener = listener
        with in_our_words():
            self._consumer.subscribe(topics=list(topics), listener=self._ownership)

    async def poll(
        self, *, timeout_seconds: float, max_records: int | None = None, partitions: Collection[TopicPartition] | None = None
    ) -> Mapping[TopicPartition, Sequence[Record]]:
        assert max_records is None or max_records > 0, "max_records is positive"
        self._raise_kept_errors()
        if partitions is not None and not partitions:
            return {}
        if not self._ownership.settled.is_set():
            return await self._wait_for_assignment(timeout_seconds)
        wanted = [self._their(tp) for tp in partitions] if partitions is not None else ()
        early = self._brought_at + PACE_SECONDS - self._clock.monotonic()
        if early > 0:
            await self._clock.sleep(early)
        try:
            async with asyncio.timeout(timeout_seconds + POLL_GRACE_SECONDS):
                found = await self._consumer.getmany(*wanted, timeout_ms=timeout_seconds * 1000, max_records=max_records)
        except TimeoutError:
            return {}
        except FOREIGN as error:
            self._raise_kept_errors()
            raise log_error(error) from error
        if found:
            self._brought_at = self._clock.monotonic()
        elif self._silent_seconds() > SILENCE_SECONDS:
            raise LogUnavailable("Kafka does not answer")
        return cast("Mapping[TopicPartition, Sequence[Record]]", found)

    def _silent_seconds(self) -> float:
        """Since the cluster last answered a fetch of a partition that is asked for; aiokafka itself only goes on trying."""
        asked = self._consumer.assignment() - self._consumer.paused()
        if not asked or not self._ownership.settled.is_set():
            self._asked_since = self._clock.monotonic()
            return 0.0
        newest = max(self._consumer.last_poll_timestamp(tp) or 0 for tp in asked)
        return min(self._clock.wall() - newest / 1000, self._clock.monotonic() - self._asked_since)

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        owned = self._ownership.partitions
        for tp in offsets:
            if tp not in owned:
                raise CommitRefused(f"{tp.topic}-{tp.partition} is not assigned")
        if self._subscribed and self._generation() < 0:
            raise CommitRefused("this member is no longer in its group")
        try:
            async with asyncio.timeout(CALL_SECONDS):
                await self._consumer.commit({self._their(tp): offset for tp, offset in offsets.items()})
        except FOREIGN as error:
            raise commit_error(error) from error

    async def committed(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int | None]:
        with in_our_words():
            async with asyncio.timeout(CALL_SECONDS):
                found = await asyncio.gather(*(self._consumer.committed(self._their(tp)) for tp in partitions))
        return dict(zip(partitions, found, strict=True))

    async def position(self, partition: TopicPartition) -> int:
        with in_our_words():
            async with asyncio.timeout(CALL_SECONDS):
                return int(await self._consumer.position(self._their(partition)))

    def seek(self, partition: TopicPartition, offset: int) -> None:
        assert offset >= 0, "an offset is not negative"
        if partition not in self._ownership.partitions:
            raise LogError(f"{partition.topic}-{partition.partition} is not assigned")
        self._consumer.seek(self._their(partition), offset)

    async def beginning_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        with in_our_words():
            async with asyncio.timeout(CALL_SECONDS):
                found = await self._consumer.beginning_offsets([self._their(tp) for tp in partitions])
        return {tp: found[self._their(tp)] for tp in partitions}

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        with in_our_words():
            async with asyncio.timeout(CALL_SECONDS):
                found = await self._consumer.end_offsets([self._their(tp) for tp in partitions])
        return {tp: found[self._their(tp)] for tp in partitions}

    async def offset_at(self, partition: TopicPartition, timestamp_ms: int) -> int:
        theirs = self._their(partition)
        with in_our_words():
            async with asyncio.timeout(CALL_SECONDS):
                found = (await self._consumer.offsets_for_times({theirs: timestamp_ms}))[theirs]
                return int(found.offset if found is not None else (await self._consumer.end_offsets([theirs]))[theirs])

    def pause(self, *partitions: TopicPartition) -> None:
        """Partitions that are no longer assigned are passed over: a rebalance may overtake the caller."""
        self._consumer.pause(*self._owned(partitions))
        self._asked_since = self._clock.monotonic()

    def resume(self, *partitions: TopicPartition) -> None:
        self._consumer.resume(*self._owned(partitions))
        self._asked_since = self._clock.monotonic()

    def assignment(self) -> frozenset[TopicPartition]:
        return self._ownership.partitions

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._ownership.partitions = frozenset()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._stop()
        except Exception as error:  # the consumer is given up either way
            log.warning("consumer_stop_failed", error=repr(error))
        finally:
            await close_client(self._consumer._client)  # noqa: SLF001

    async def _stop(self) -> None:
        if not await unless_cancelled(self._consumer.stop()):
            fetcher = self._consumer._fetcher  # noqa: SLF001
            assert fetcher is not None, "the consumer was started"
            await unless_cancelled(fetcher.close())

    async def _wait_for_assignment(self, timeout_seconds: float) -> Mapping[TopicPartition, Sequence[Record]]:
        """No partitions yet, or a rebalance under way. aiokafka holds a failed coordination until somebody asks for its error."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._ownership.settled.wait()
        except TimeoutError:
            self._raise_kept_errors()
            coordinator = self._consumer._coordinator  # noqa: SLF001
            assert coordinator is not None, "the consumer was started"
            with in_our_words():
                coordinator.check_errors()
        return {}

    def _generation(self) -> int:
        """Below zero when the client left the group by itself or was thrown out. aiokafka commits even then, as a client without group,
        and the broker accepts that while the group is empty.
        """
        return int(self._consumer._coordinator.generation)  # type: ignore[union-attr]  # noqa: SLF001

    def _raise_kept_errors(self) -> None:
        """What the caller's own listener or assignor raised inside aiokafka."""
        for keeper in (self._ownership, self._assignor):
            if keeper.error is not None:
                error, keeper.error = keeper.error, None
                raise error
        if self._closed:
            raise LogError("the consumer is closed")

    def _owned(self, partitions: Collection[TopicPartition]) -> list[Theirs]:
        owned = self._ownership.partitions
        return [self._their(tp) for tp in partitions if tp in owned]

    def _their(self, tp: TopicPartition) -> Theirs:
        """Aiokafka checks for its own type, although the two are equal."""
        found = self._theirs.get(tp)
        if found is None:
            found = self._theirs[tp] = Theirs(tp.topic, tp.partition)
        return found
