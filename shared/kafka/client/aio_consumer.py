"""The consumer on aiokafka. Records come out as aiokafka made them: nothing is copied.

Facts of aiokafka 0.14 that callers live with (notes in tests/integration/test_platform_assumptions.py):
one fetch is in flight per broker and it asks only for partitions that were neither paused nor buffered when it was sent; the broker answers
it as soon as any of those has data. So a consumer that drains all buffers at each poll waits for nothing; a partition that was paused, or
just resumed or sought, waits for the fetch in flight, at most `fetch_max_wait_ms`. `pause` throws the partition's buffer away.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, cast

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as Theirs

from shared.clock import Clock
from shared.errors import CommitRefused, LogError, LogUnavailable, TopicMadeAnew
from shared.kafka.client.aio_closing import stop_consumer
from shared.kafka.client.aio_errors import FOREIGN, commit_error, in_our_words, log_error
from shared.kafka.client.aio_fetch import Oddities
from shared.kafka.client.aio_identity import Identities
from shared.kafka.client.aio_rebalance import AioAssignor, Ownership
from shared.kafka.port import MISSED, HeldBack, MissedRecords, RebalanceListener, Record, TopicPartition
from shared.kafka.settings import CALL_SECONDS, PACE_RECORDS, PACE_SECONDS, POLL_RECORDS, SILENCE_SECONDS
from shared.telemetry import logs

log = logs.get(__name__)

POLL_GRACE_SECONDS = 0.1
"""A poll that a rebalance catches in the middle is cut this long after its timeout."""

_NOTHING_ODD = Oddities()
"""Of a fetcher that keeps none."""


class AioConsumer:
    """Implements `port.Consumer`."""

    def __init__(self, consumer: AIOKafkaConsumer, assignor: AioAssignor, clock: Clock, *, waits_ms: tuple[int, int] = (500, 500)) -> None:
        """`waits_ms`: of a fetch, while nothing is paused and while something is."""
        self._consumer = consumer
        self._waits_ms = waits_ms
        self._clock = clock
        self._brought_at: float | None = None
        """When the last poll brought many records."""
        self._asked_since = clock.monotonic()
        """When the set of partitions that are asked for changed last."""
        self._assignor = assignor
        self._ownership = Ownership(self._prepare)
        self._identities = Identities(consumer._client, clock)  # noqa: SLF001
        self._anew: list[str] = []
        """Topics made anew of which the caller is not told yet."""
        self.on_denied: Callable[[BaseException], None] = lambda _: None
        """Told why the group does not let us in."""
        self.missed: deque[MissedRecords] = deque(maxlen=MISSED)
        self._theirs: dict[TopicPartition, Theirs] = {}
        self._sought: dict[TopicPartition, int] = {}
        """Where the caller has gone since the poll under way began."""
        self._subscribed: frozenset[str] = frozenset()
        self._closed = False

    def assign(self, partitions: Collection[TopicPartition]) -> None:
        with in_our_words():
            self._consumer.assign([self._their(tp) for tp in partitions])
        self._ownership.assigned_by_hand(partitions)
        self._identities.doubted.update(tp.topic for tp in partitions)

    async def subscribe(self, topics: Collection[str], listener: RebalanceListener | None = None) -> None:
        self._subscribed = frozenset(topics)
        self._ownership.listener = listener
        with in_our_words():
            self._consumer.subscribe(topics=list(topics), listener=self._ownership)

    async def poll(
        self, *, timeout_seconds: float, max_records: int | None = None, partitions: Collection[TopicPartition] | None = None
    ) -> Mapping[TopicPartition, Sequence[Record]]:
        assert max_records is None or max_records > 0, "max_records is positive"
        self._sought.clear()
        self._raise_kept_errors()
        if partitions is not None and not partitions:
            return {}
        if not self._ownership.settled.is_set():
            return await self._wait_for_assignment(timeout_seconds)
        await self._look_at_topics()
        if not self._ownership.settled.is_set():
            return {}
        wanted = [self._their(tp) for tp in partitions] if partitions is not None else ()
        if self._brought_at is not None:  # also when nothing is left of the pause: what is buffered would come without any wait
            await self._clock.sleep(max(0.0, self._brought_at + PACE_SECONDS - self._clock.monotonic()))
            self._brought_at = None
        try:
            async with asyncio.timeout(timeout_seconds + POLL_GRACE_SECONDS):
                found = await self._consumer.getmany(*wanted, timeout_ms=timeout_seconds * 1000, max_records=max_records or POLL_RECORDS)
        except TimeoutError:
            return {}
        except FOREIGN as error:
            self._raise_kept_errors()
            raise log_error(error) from error
        self._identities.polled()
        if found:
            if sum(map(len, found.values())) >= PACE_RECORDS:
                self._brought_at = self._clock.monotonic()
            if self._identities.doubted or self._oddities:
                await self._withhold(found)
            if self._sought:
                self._leave_out_what_was_left(found)
        elif self._silent_seconds() > SILENCE_SECONDS:
            raise LogUnavailable("Kafka does not answer")
        return cast("Mapping[TopicPartition, Sequence[Record]]", found)

    def _leave_out_what_was_left(self, found: dict[Theirs, list[Any]]) -> None:
        """Who has gone elsewhere while a poll was under way gets nothing of where he was: what follows would look as if it came before.
        What was read from there on is read again. *Trace:* a home is taken again while a poll waits to learn whether its topics are still
        the same; it goes back to what was committed, then gets the records of its last life, takes the next ones for known, and commits.
        """
        owned = self._ownership.partitions
        for tp in [tp for tp in self._sought if self._their(tp) in found]:
            del found[self._their(tp)]
            if tp in owned:
                self._consumer.seek(self._their(tp), self._sought[tp])

    # Topics made anew, records that are gone

    async def _look_at_topics(self) -> None:
        """Raises TopicMadeAnew for each that was, once."""
        topics = {tp.topic for tp in self._ownership.partitions}
        self._begin_anew(self._identities.look(topics, self._subscribed))
        if self._oddities.out_of_range:
            self._keep_doubts()
            self._begin_anew(await self._identities.settle(topic for topic, _ in self._oddities.out_of_range))
            self._note_missed({})
        if self._anew:
            raise TopicMadeAnew(self._anew.pop())

    async def _withhold(self, found: dict[Theirs, list[Any]]) -> None:
        """Take out of `found` what lies in topics that were made anew; what cannot be judged now is read again."""
        self._keep_doubts()
        try:
            anew = await self._identities.settle({tp.topic for tp in found})
        except LogError as error:
            log.warning("topics_unknown", reason=error.message)
            for tp in [tp for tp in found if tp.topic in self._identities.doubted]:
                self._consumer.seek(tp, found.pop(tp)[0].offset)
            return
        for tp in [tp for tp in found if tp.topic in anew]:
            del found[tp]
        self._begin_anew(anew)
        self._note_missed(found)

    def _keep_doubts(self) -> None:
        self._identities.doubted |= self._oddities.doubtful
        self._oddities.doubtful.clear()

    def _begin_anew(self, topics: Collection[str]) -> None:
        """In a group by a rebalance: all members and their listeners must begin anew. By hand at the beginning."""
        if not topics:
            return
        log.warning("topics_made_anew", topics=sorted(topics))
        if self._subscribed:
            self._ownership.settled.clear()
            self._consumer._coordinator.request_rejoin()  # type: ignore[union-attr]  # noqa: SLF001
            return
        self._identities.accept(topics)
        for tp in self._ownership.partitions:
            if tp.topic in topics:
                self._oddities.out_of_range.pop(tp, None)
                self._consumer.seek(self._their(tp), 0)
        self._anew += sorted(topics)

    def _note_missed(self, found: dict[Theirs, list[Any]]) -> None:
        """Positions that the log did not have, as soon as it is known where reading goes on."""
        for tp, expected in list(self._oddities.out_of_range.items()):
            partition = TopicPartition(*tp)
            records = found.get(self._their(partition))
            reached = records[0].offset if records else self.reached(partition)
            if reached is not None:
                del self._oddities.out_of_range[tp]
                if partition in self._ownership.partitions:
                    self.missed.append(MissedRecords(partition, expected, reached))

    @property
    def _oddities(self) -> Oddities:
        return getattr(self._consumer._fetcher, "oddities", _NOTHING_ODD)  # noqa: SLF001

    async def _prepare(self, partitions: Collection[TopicPartition]) -> None:
        """A group's new assignment: learn which topics these are; what was committed of others of these names is passed over."""
        self._asks_otherwise()
        try:
            await self._identities.learn({tp.topic for tp in partitions})
            stale = [tp for tp, (_, ours) in (await self._fetch_committed(partitions)).items() if not ours]
        except LogError as error:
            # The client goes on where it committed; the ids are asked for again at the next look.
            log.warning("topics_unknown", reason=error.message)
            return
        for tp in stale:
            log.warning("position_of_another_topic", topic=tp.topic, partition=tp.partition)
            self._consumer.seek(self._their(tp), 0)

    async def _fetch_committed(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, tuple[int, bool]]:
        """(offset, whether it is of the topic that is there now) of what was committed."""
        theirs = [self._their(tp) for tp in partitions]
        with in_our_words():
            async with asyncio.timeout(CALL_SECONDS):
                found = await self._consumer._coordinator.fetch_committed_offsets(theirs)  # type: ignore[union-attr]  # noqa: SLF001
        ids = self._identities.ids
        kept = {TopicPartition(*tp): one for tp, one in found.items() if one.offset >= 0}
        return {tp: (one.offset, one.metadata in ("", ids.get(tp.topic, one.metadata))) for tp, one in kept.items()}

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
                ids = self._identities.ids
                await self._consumer.commit({self._their(tp): (offset, ids.get(tp.topic, "")) for tp, offset in offsets.items()})
        except FOREIGN as error:
            raise commit_error(error) from error

    async def committed(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int | None]:
        if not self._subscribed:
            await self._identities.learn({tp.topic for tp in partitions} - self._identities.ids.keys())
        found = await self._fetch_committed(partitions)
        return {tp: found[tp][0] if tp in found and found[tp][1] else None for tp in partitions}

    async def position(self, partition: TopicPartition) -> int:
        with in_our_words():
            async with asyncio.timeout(CALL_SECONDS):
                return int(await self._consumer.position(self._their(partition)))

    def seek(self, partition: TopicPartition, offset: int) -> None:
        assert offset >= 0, "an offset is not negative"
        if partition not in self._ownership.partitions:
            raise LogError(f"{partition.topic}-{partition.partition} is not assigned")
        self._oddities.out_of_range.pop(partition, None)  # what was missing where nobody reads any longer
        self._sought[partition] = offset
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

    def identity(self, topic: str) -> str | None:
        return self._identities.ids.get(topic)

    def reached(self, partition: TopicPartition) -> int | None:
        state = self._state(partition)
        return None if state is None else state._position  # noqa: SLF001

    def held_back(self) -> dict[TopicPartition, HeldBack]:
        if self._consumer._isolation_level != "read_committed":  # noqa: SLF001
            return {}
        states = {tp: state for tp in self._ownership.partitions if (state := self._state(tp)) is not None and state.lso is not None}
        return {tp: HeldBack(s.lso, s.highwater - s.lso) for tp, s in states.items() if s.highwater > s.lso}

    def _state(self, partition: TopicPartition) -> Any:
        subscription = self._consumer._subscription.subscription  # noqa: SLF001
        assignment = None if subscription is None else subscription.assignment
        theirs = self._their(partition)
        return assignment.state_value(theirs) if assignment is not None and theirs in assignment.tps else None

    def pause(self, *partitions: TopicPartition) -> None:
        """Partitions that are no longer assigned are passed over: a rebalance may overtake the caller."""
        self._consumer.pause(*self._owned(partitions))
        self._asks_otherwise()

    def resume(self, *partitions: TopicPartition) -> None:
        self._consumer.resume(*self._owned(partitions))
        self._asks_otherwise()

    def _asks_otherwise(self) -> None:
        """Other partitions are asked for, and the next fetches wait as long as they may."""
        self._asked_since = self._clock.monotonic()
        fetcher = self._consumer._fetcher  # noqa: SLF001
        assert fetcher is not None, "the consumer was started"
        fetcher._fetch_max_wait_ms = self._waits_ms[bool(self._consumer.paused())]  # noqa: SLF001

    def assignment(self) -> frozenset[TopicPartition]:
        return self._ownership.partitions

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._ownership.partitions = frozenset()
        self._identities.close()
        await stop_consumer(self._consumer)

    async def _wait_for_assignment(self, timeout_seconds: float) -> Mapping[TopicPartition, Sequence[Record]]:
        """No partitions yet, or a rebalance under way. aiokafka holds a failed coordination until somebody asks for its error."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._ownership.settled.wait()
        except TimeoutError:
            self._raise_kept_errors()
            coordinator = self._consumer._coordinator  # noqa: SLF001
            assert coordinator is not None, "the consumer was started"
            try:
                with in_our_words():
                    coordinator.check_errors()
            except LogError as error:
                self.on_denied(error)
                raise
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
