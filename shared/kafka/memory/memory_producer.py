"""The in-memory log's producer. Without faults a batch lies in the log at once; with them it travels, and may get lost on either way."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Sequence

from shared.errors import LogError, NoDestination, SendFailed
from shared.kafka.memory.memory_cluster import MemoryCluster
from shared.kafka.memory.memory_faults import Fate
from shared.kafka.memory.memory_process import MemoryProcess, ProcessState
from shared.kafka.port import Appended, Message, TopicPartition
from shared.kafka.settings import CALL_SECONDS
from shared.kafka.sizes import check_batch, check_record
from shared.topics import partition_of

Batch = tuple[Sequence[Message], "asyncio.Future[int]"]


class MemoryProducer:
    """Implements `port.Producer`."""

    def __init__(self, log: MemoryCluster, process: MemoryProcess) -> None:
        self._log = log
        self._process = process
        self._travelling: defaultdict[TopicPartition, deque[Batch]] = defaultdict(deque)
        self._orphans: dict[TopicPartition, deque[Batch]] = {}
        """Under way when the process was killed, and not lost."""
        self._arrives_at: dict[TopicPartition, float] = {}
        self._outstanding: set[asyncio.Future[int]] = set()
        self._appending: set[TopicPartition] = set()
        self._rotation = 0
        self._closed = False
        process.own(self)

    async def send(self, message: Message) -> Appended:
        check_record(message)
        partition = self._place(message)
        future = self._submit(partition, (message,))
        await self._log.clock.sleep(0)
        return Appended(*partition, await future)

    async def send_many(self, messages: Sequence[Message]) -> list[Appended | Exception]:
        results: list[Appended | Exception | None] = [None] * len(messages)
        groups: defaultdict[TopicPartition, list[int]] = defaultdict(list)
        for index, message in enumerate(messages):
            try:
                check_record(message)
                groups[self._place(message)].append(index)
            except LogError as error:
                results[index] = error
        futures = {tp: self._submit(tp, [messages[i] for i in indices]) for tp, indices in groups.items()}
        await self._log.clock.sleep(0)
        await asyncio.wait(futures.values()) if futures else None
        for partition, future in futures.items():
            failure = future.exception()
            base = -1 if failure else future.result()
            for count, index in enumerate(groups[partition]):
                results[index] = failure if isinstance(failure, Exception) else Appended(*partition, base + count if base >= 0 else -1)
        return [result for result in results if result is not None]

    async def append(self, partition: TopicPartition, messages: Sequence[Message]) -> int:
        assert messages, "an append has at least one message"
        assert partition not in self._appending, f"a second append to {partition} while one is outstanding"
        check_batch(messages)
        self._appending.add(partition)
        future = self._submit(partition, messages)
        future.add_done_callback(lambda _: self._appending.discard(partition))
        await self._log.clock.sleep(0)
        return await asyncio.shield(future)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._outstanding and not self._process.blocked:
            await asyncio.wait(self._outstanding, timeout=CALL_SECONDS)
        self._process.disown(self)

    def on_killed(self) -> None:
        """What travels is lost, or has left the machine and arrives; nobody hears of it."""
        self._closed = True
        for partition, queue in self._travelling.items():
            self._orphans[partition] = deque(batch for batch in queue if self._log.faults.outlives())
        self._travelling.clear()

    def on_frozen(self) -> None:
        """What travels arrives after the thaw."""

    def on_thawed(self) -> None:
        """Arrivals were queued at the process."""

    def _place(self, message: Message) -> TopicPartition:
        if message.partition is not None:
            return TopicPartition(message.topic, message.partition)
        count = self._log.partition_count(message.topic)
        if count == 0:
            raise SendFailed(f"topic {message.topic} does not exist")
        if message.key is not None:
            return TopicPartition(message.topic, partition_of(message.key, count))
        self._rotation += 1
        return TopicPartition(message.topic, self._rotation % count)

    def _submit(self, partition: TopicPartition, messages: Sequence[Message]) -> asyncio.Future[int]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        if self._closed and self._process.state.value != "killed":
            future.set_exception(SendFailed("the producer is closed"))
        elif (seconds := self._log.faults.silence(partition)) is not None:
            self._fail_late(loop, future, seconds)
        elif self._log.partition(partition) is None:
            missing = NoDestination if self._log.partition_count(partition.topic) else SendFailed
            future.set_exception(missing(f"{partition} does not exist"))
        elif self._log.availability.absence == "fails":
            future.set_exception(SendFailed("the cluster is away"))
        else:
            self._depart(loop, partition, (messages, future))
        return future

    def _fail_late(self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[int], seconds: float) -> None:
        """Nobody answers for this topic: the client gives up after a while."""
        self._outstanding.add(future)
        future.add_done_callback(self._outstanding.discard)
        fail = lambda: self._acknowledge(future, Fate.LOST, -1)  # noqa: E731
        loop.call_later(seconds, self._process.call, fail, context=self._log.context)

    def _depart(self, loop: asyncio.AbstractEventLoop, partition: TopicPartition, batch: Batch) -> None:
        delay = self._log.faults.draw(self._log.faults.send_seconds)
        queue = self._travelling[partition]
        if delay == 0.0 and not queue and not self._process.blocked:
            self._arrive(partition, batch)
            return
        queue.append(batch)
        self._outstanding.add(batch[1])
        batch[1].add_done_callback(self._outstanding.discard)
        arrives_at = max(self._arrives_at.get(partition, 0.0), loop.time() + delay)
        self._arrives_at[partition] = arrives_at
        loop.call_at(arrives_at, self._on_arrival, partition, context=self._log.context)

    def _on_arrival(self, partition: TopicPartition) -> None:
        """One timer per batch, and each takes the oldest, so equal times cannot reorder a partition."""
        if self._orphans.get(partition):
            self._log.availability.call(lambda: self._arrive(partition, self._orphans[partition].popleft()))
            return
        self._process.call(lambda: self._log.availability.call(lambda: self._arrive_next(partition)))

    def _arrive_next(self, partition: TopicPartition) -> None:
        queue = self._travelling.get(partition)
        if queue:
            self._arrive(partition, queue.popleft())

    def _arrive(self, partition: TopicPartition, batch: Batch) -> None:
        messages, future = batch
        faults = self._log.faults
        fate = faults.fate(partition)
        base = -1 if fate is Fate.LOST else self._log.write(partition, messages)
        if base >= 0 and faults.duplicates(partition):
            self._log.write(partition, messages)
        delay = faults.draw(faults.ack_seconds)
        if self._process.state is ProcessState.KILLED:
            return
        if delay == 0.0:
            self._acknowledge(future, fate, base)
        else:
            self._outstanding.add(future)
            future.add_done_callback(self._outstanding.discard)
            acknowledge = lambda: self._acknowledge(future, fate, base)  # noqa: E731
            asyncio.get_running_loop().call_later(delay, self._process.call, acknowledge, context=self._log.context)

    @staticmethod
    def _acknowledge(future: asyncio.Future[int], fate: Fate, base: int) -> None:
        if future.done():
            return
        if fate is Fate.ACKNOWLEDGED:
            future.set_result(base)
        elif fate is Fate.OFFSET_UNKNOWN:
            future.set_result(-1)
        else:
            future.set_exception(SendFailed())
