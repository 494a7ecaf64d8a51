"""What must reach the log, in order: outcomes are kept and sent again until they are acknowledged; duplicates are harmless.

One task drains it, so records batch by themselves while a send is outstanding. A mark between records asks for the positions of
what was read to be committed once everything before it is acknowledged.

A claim may wait a little: the outcome of a step that ends meanwhile takes its place, and one record is sent instead of two. The planner
accepts an outcome whose claim it has not seen.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

from shared.clock import Clock
from shared.errors import LogError, RecordTooLarge
from shared.kafka.port import Appended, Message, Producer, TopicPartition
from shared.telemetry import logs, metrics

log = logs.get(__name__)

BATCH = 1_000
FIRST_BACKOFF_SECONDS = 0.1
LONGEST_BACKOFF_SECONDS = 2.0
PATIENCE_SECONDS = 0.01
"""How long a claim waits for its outcome. Short beside the claim timeout (5 s), long beside a step without a model."""


@dataclass(slots=True)
class _Entry:
    message: Message


@dataclass(frozen=True, slots=True)
class _Mark:
    positions: Mapping[TopicPartition, int]


class Outbox:
    """Bounded by what feeds it: a worker reads nothing new while Kafka is away, and holds a bounded number of claims."""

    def __init__(self, clock: Clock, acknowledged: Callable[[Mapping[TopicPartition, int]], None]) -> None:
        self._clock = clock
        self._acknowledged = acknowledged
        self._waiting: deque[_Entry | _Mark] = deque()
        self._renewals: list[Message] = []
        self._promised: dict[Hashable, _Entry] = {}
        self._some = asyncio.Event()
        self._hurry = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.healthy = True
        """False from a failed send to the next one that succeeds."""

    def put(self, message: Message, instead_of: Hashable = None) -> None:
        """Send this now; keep it until acknowledged. It takes the place of what was promised under `instead_of` and is not sent yet."""
        entry = self._promised.pop(instead_of, None)
        if entry is None:
            self._waiting.append(_Entry(message))
        else:
            entry.message = message
        self._hurry.set()
        self._wake()

    def promise(self, key: Hashable, message: Message) -> None:
        """Send this soon, unless something else is put in its place before."""
        entry = self._promised[key] = _Entry(message)
        self._waiting.append(entry)
        self._wake()

    def mark(self, positions: Mapping[TopicPartition, int]) -> None:
        """Report `positions` as acknowledged when everything put before is."""
        self._waiting.append(_Mark(positions))
        self._wake()

    def renew(self, messages: Sequence[Message]) -> None:
        """Send these once; newer ones replace those not sent yet, so that they never pile up."""
        self._renewals = list(messages)
        if self._renewals:
            self._wake()

    async def flushed(self) -> None:
        """Return when nothing waits."""
        await self._idle.wait()

    def _wake(self) -> None:
        self._some.set()
        self._idle.clear()

    async def run(self, producer: Producer) -> None:
        """Send for ever, with backoff while Kafka does not acknowledge."""
        backoff = FIRST_BACKOFF_SECONDS
        while True:
            await self._some.wait()
            await self._be_patient()
            await self._gather()
            await self._send_some(producer)
            if self.healthy:
                backoff = FIRST_BACKOFF_SECONDS
            else:
                await self._clock.sleep(backoff)
                backoff = min(LONGEST_BACKOFF_SECONDS, backoff * 2)

    async def _be_patient(self) -> None:
        """While there are only promises, give their outcomes a chance."""
        if not self._hurry.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await self._hurry.wait()
        self._hurry.clear()

    async def _gather(self) -> None:
        """Let what is ready now run first: a step that ends at once has its claim and its outcome in one batch."""
        for _ in range(3):
            await self._clock.sleep(0)

    async def _send_some(self, producer: Producer) -> None:
        entries = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
        self._promised.clear()
        renewals, self._renewals = self._renewals, []
        messages = [entry.message for entry in entries if isinstance(entry, _Entry)]
        try:
            results = await _sent(producer, [*messages, *renewals])
        except asyncio.CancelledError:
            self._waiting.extendleft(reversed(entries))
            raise
        self._settle(entries, results[: len(messages)])
        self.healthy = not any(_must_repeat(result) for result in results)
        if self._waiting:
            self._hurry.set()
        elif not self._renewals:
            self._some.clear()
            self._idle.set()

    def _settle(self, entries: list[_Entry | _Mark], results: Sequence[Appended | Exception]) -> None:
        """Put back what failed, in order, and every mark behind a failure; report the other marks."""
        again: list[_Entry | _Mark] = []
        outcomes = iter(results)
        for entry in entries:
            if isinstance(entry, _Mark):
                if again:
                    again.append(entry)
                else:
                    self._acknowledged(entry.positions)
            elif _must_repeat(result := next(outcomes)):
                again.append(entry)
            elif isinstance(result, Exception):
                log.error("record_refused", topic=entry.message.topic, bytes=len(entry.message.value or b""), error=str(result))
        if again:
            metrics.SEND_FAILURES.labels("worker").inc(len(again))
            self._waiting.extendleft(reversed(again))


def _must_repeat(result: Appended | Exception) -> bool:
    return isinstance(result, Exception) and not isinstance(result, RecordTooLarge)


async def _sent(producer: Producer, messages: list[Message]) -> Sequence[Appended | Exception]:
    if not messages:
        return []
    try:
        return await producer.send_many(messages)
    except LogError as error:
        return [error] * len(messages)
