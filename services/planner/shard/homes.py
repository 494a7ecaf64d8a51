"""Homes: the partition numbers that this planner owns: one group consumer, always drained into them, and one commit for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from services.planner.intake.look_ahead import LookAhead
from services.planner.intake.open_transactions import OpenTransactions
from services.planner.shard.commit import Commit
from services.planner.shard.home import Home
from services.planner.shard.wiring import Wiring
from shared.agents.beliefs import TELL_SECONDS, Beliefs
from shared.clock import Clock
from shared.contracts import beliefs, headers
from shared.errors import CommitRefused, LogError
from shared.kafka.port import Message, Record, TopicPartition
from shared.processing.lane import Sent
from shared.processing.registry import registry_key
from shared.service import kafka_silence
from shared.service.processor import every
from shared.tasks import ended
from shared.telemetry import logs, metrics
from shared.topics import Topics

log = logs.get(__name__)

QUIET_SECONDS = 5.0
"""Longest wait for what is on its way when partitions are taken away; half the rebalance timeout."""
_POLL_SECONDS = 1.0
_POLL_QUEUES = 3
"""A poll brings at most so many queues of records."""
_RETRY_SECONDS = 0.5
_LOOK_SECONDS = 0.5
"""Between two looks at where reading stands; as often as is committed."""


@dataclass(slots=True)
class _OwnedHome:
    """A home and its task."""

    home: Home
    task: asyncio.Task[None]


class Homes:
    """Implements `shared.kafka.port.RebalanceListener`: homes follow the assignment. `begin` comes before all else."""

    def __init__(self, topics: Topics, clock: Clock) -> None:
        self._topics, self._clock = topics, clock
        self.owned: dict[int, _OwnedHome] = {}
        self.beliefs = Beliefs(topics.settings.home_partitions)
        self._polled_at: float | None = None
        self._assigned = False
        self._committed: dict[TopicPartition, int] = {}
        self._transactions = OpenTransactions(topics)

    async def begin(self, wiring: Wiring) -> None:
        """Join the group."""
        self._wiring, self.consumer = wiring, wiring.consumer
        self.second_reader = LookAhead(wiring, self)
        await self.consumer.subscribe([*self._topics.all_jobs(), self._topics.outcomes, self._topics.job_events], self)

    def reasons(self) -> Iterator[str]:
        """Why not ready: Kafka does not answer polls, or an assigned partition is not replayed."""
        now = self._clock.monotonic()
        yield from kafka_silence(self._polled_at, now)
        if not self._assigned:
            yield "no assignment yet"
        homes = [(number, owned.home) for number, owned in sorted(self.owned.items())]
        for number, home in homes:
            if home.left_because is not None:
                yield f"partition {number} is not worked on: {home.left_because}"
        taking = [str(number) for number, home in homes if not home.running and home.left_because is None]
        if taking:
            yield f"taking over partitions {', '.join(taking)}"
        for number, home in homes:
            yield from (f"partition {number}: {what}" for what in home.tries.undone)
        yield from self._transactions.reasons(now)

    # RebalanceListener

    async def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        """Begin nothing new, let appends in flight end, commit while that is still possible."""
        await self.suspend()
        await self.commit()

    async def on_assigned(self, partitions: Collection[TopicPartition]) -> None:
        """Keep homes that stay, drop those that left, take over new ones."""
        metrics.REBALANCES.labels("planner").inc()
        numbers = {p.partition for p in partitions if p.topic == self._topics.job_events}
        # The events partition is assigned only so that the watermark can be committed with the inputs.
        self.consumer.pause(*(p for p in partitions if p.topic == self._topics.job_events))
        left = [self.owned.pop(number) for number in [n for n in self.owned if n not in numbers]]
        await ended(*(owned.task for owned in left))
        for number in sorted(numbers):
            found = self.owned.get(number)
            if found is not None and not found.task.done():
                found.home.resume()
            else:
                home = Home(number, self._wiring)
                self.owned[number] = _OwnedHome(home, self._wiring.spawn(home.run()))
        self._assigned = True

    async def suspend(self) -> None:
        """Begin nothing new; return when nothing is being appended, or soon."""
        waits = []
        for owned in self.owned.values():
            owned.home.suspend()
            waits.append(asyncio.create_task(owned.home.quiet()))
        if waits:
            _, late = await asyncio.wait(waits, timeout=QUIET_SECONDS)
            for task in late:
                task.cancel()
        self._tell()

    def _tell(self) -> None:
        """What judges have said since: each home's owner tells the others, and his successor."""
        for home, value in self.beliefs.to_tell():
            key = registry_key(beliefs.KIND, home)
            message = Message(self._topics.registry, value, key, 0, headers.envelope("home_beliefs"))
            self._wiring.outbox.put(message, partial(self._on_told, home), again=False, patience_seconds=TELL_SECONDS)

    def _on_told(self, home: str, result: Sent) -> None:
        if isinstance(result, Exception):
            self.beliefs.not_told(home)

    # Reading

    def parts(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """What goes on for ever."""
        return self.run(), self.second_reader.run(), every(self._clock, TELL_SECONDS, self._tell)

    async def run(self) -> None:
        """Drain the consumer into the homes; a partition whose queue is full is paused.

        In bounded pieces: one fetch may hold twenty thousand small jobs, which would all be unpacked into a queue for a thousand.
        """
        most, look_at = _POLL_QUEUES * self._wiring.options.queue_records, self._clock.monotonic()
        while True:
            try:
                batches = await self.consumer.poll(timeout_seconds=_POLL_SECONDS, max_records=most)
            except LogError as error:
                log.warning("poll_failed", reason=error.message)
                await self._clock.sleep(_RETRY_SECONDS)
                continue
            self._polled_at = self._clock.monotonic()
            for partition, records in batches.items():
                owned = self._reading(partition)
                if owned is not None and owned.home.offer(partition.topic, records):
                    self.consumer.pause(partition)
                    self.second_reader.wake()
            if self._polled_at >= look_at:
                look_at = self._polled_at + _LOOK_SECONDS
                self._look()

    def _reading(self, partition: TopicPartition) -> _OwnedHome | None:
        return None if partition.topic == self._topics.job_events else self.owned.get(partition.partition)

    def _look(self) -> None:
        """Where reading stands and what stands in its way. Only between two polls: all that the consumer has passed was offered."""
        for partition in self.consumer.assignment():
            owned, reached = self._reading(partition), self.consumer.reached(partition)
            if owned is not None and reached is not None:
                owned.home.reached(partition.topic, reached)
        self._transactions.look(self.consumer.held_back(), self._clock.monotonic())

    # For the second reader: `look_ahead`

    def backlog(self) -> bool:
        return any(owned.home.ahead.backlog for owned in self.owned.values())

    def looks_from(self) -> dict[TopicPartition, int]:
        starts = ((number, owned.home.ahead.looks_from()) for number, owned in self.owned.items() if owned.home.running)
        return {TopicPartition(topic, number): start for number, found in starts for topic, start in found}

    def look_ahead(self, partition: TopicPartition, topic_id: str, start: int, records: Sequence[Record], reached: int) -> None:
        owned = self.owned.get(partition.partition)
        if owned is not None and owned.home.running and owned.home.ahead.look(partition.topic, topic_id, start, records, reached):
            owned.home.nudge()

    async def commit(self) -> None:
        """One OffsetCommit for all homes: every input of a number and its watermark together."""
        metrics.LIVE_JOBS.set(sum(owned.home.live for owned in self.owned.values()))
        commits: list[Commit] = []
        offsets: dict[TopicPartition, int] = {}
        for owned in self.owned.values():
            commit = owned.home.due_commit()
            if commit is not None:
                commits.append(commit)
                offsets.update(commit.offsets)
        assigned = self.consumer.assignment()
        offsets = {tp: offset for tp, offset in offsets.items() if tp in assigned}  # one of the topics may be gone
        if not offsets or offsets == self._committed:
            return
        try:
            await self.consumer.commit(offsets)
        except CommitRefused:
            log.warning("commit_refused", partitions=len(offsets))
            return
        except LogError as error:
            log.warning("commit_failed", reason=error.message)
            return
        self._committed = offsets
        for commit in commits:
            commit.succeeded()

    # For the homes

    def nudge(self) -> None:
        """The schedules have changed, or the outbox has room again."""
        for owned in self.owned.values():
            owned.home.nudge()

    def on_made_anew(self, topic: str) -> None:
        """Steps that waited in it are gone: what was asked for and not taken up is sent again, as after a take-over."""
        if topic in self._topics.all_steps():
            for owned in self.owned.values():
                owned.home.take_again(f"{topic} was made anew, and steps that lay in it are sent again")

    def rewind(self, number: int, inputs: dict[str, int]) -> None:
        """Read the inputs of a number again from these offsets."""
        assigned = self.consumer.assignment()
        for topic, offset in inputs.items():
            partition = TopicPartition(topic, number)
            if partition in assigned:
                self.consumer.seek(partition, offset)
                self.consumer.resume(partition)

    def unpause(self, partition: TopicPartition) -> None:
        """Its queue has room again."""
        if partition in self.consumer.assignment():
            self.consumer.resume(partition)

    async def still_owner(self, number: int) -> bool:
        """A commit that changes nothing: it succeeds only in the current generation."""
        events = TopicPartition(self._topics.job_events, number)
        if events not in self.consumer.assignment():
            return False
        try:
            committed = (await self.consumer.committed([events]))[events]
            if committed is not None:
                await self.consumer.commit({events: committed})
        except CommitRefused:
            return False
        except LogError:
            return True
        return True
