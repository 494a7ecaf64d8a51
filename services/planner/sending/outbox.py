"""Outbox: everything a planner sends besides events. What Kafka did not acknowledge is sent again.

Repeats are harmless by design: steps are claimed once, results are byte-identical, replies are recognised by correlation. Finals to reply
topics of the callers' own choice go by lanes of their own (`notices`): such a topic may not exist, and nothing waits for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from services.planner.sending.notices import Notices, is_notice
from shared.clock import Clock
from shared.errors import LogError, RecordTooLarge
from shared.kafka.port import Log, Message, Producer
from shared.telemetry import logs, metrics

log = logs.get(__name__)

_BATCH = 1_000
_SENDS = 4
"""Batches under way at once; the producer joins what goes to one partition."""
_RETRY_SECONDS = 0.5


@dataclass(slots=True)
class _Parcel:
    """Messages of one effect; `done` is called once all are acknowledged."""

    messages: list[Message]
    done: Callable[[], None] | None


class Outbox:
    """Bounded by its users: a home does not begin a round while `full`."""

    def __init__(self, log_: Log, producer: Producer, clock: Clock, client_id: str, *, own: Collection[str], bound: int = 20_000) -> None:
        """`own`: topics of the cluster itself; notices to all others are nobody's concern but their caller's."""
        self._producer, self._clock, self._own, self._bound = producer, clock, frozenset(own), bound
        self._notices = Notices(log_, clock, client_id)
        self._parcels: deque[_Parcel] = deque()
        self._waiting = 0
        self._sending: set[asyncio.Task[None]] = set()
        self._free = asyncio.Semaphore(_SENDS)
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._idle = asyncio.Event()
        self._idle.set()

    def post(self, messages: list[Message], done: Callable[[], None] | None = None) -> None:
        """Queue messages; what has to be sent again may be overtaken. `done`: all but the notices are acknowledged. Never blocks."""
        needed = [m for m in messages if m.topic in self._own or not is_notice(m)]
        if len(needed) < len(messages):
            for message in messages:
                if message.topic not in self._own and is_notice(message):
                    self._notices.post(message)
        if not needed:
            if done is not None:
                done()
            return
        self._parcels.append(_Parcel(needed, done))
        self._waiting += len(needed)
        self._wake.set()
        self._idle.clear()
        if self._waiting >= self._bound:
            self._room.clear()

    async def deliver(self, messages: list[Message]) -> None:
        """Queue messages and wait until they are acknowledged, however long that takes."""
        delivered = asyncio.Event()
        self.post(messages, delivered.set)
        await delivered.wait()

    async def room(self) -> None:
        """Wait until there is room."""
        await self._room.wait()

    async def idle(self) -> None:
        """Wait until everything posted is acknowledged."""
        await self._idle.wait()
        await self._notices.idle()

    async def run(self) -> None:
        """Send until cancelled."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._parcels:
                    await self._free.acquire()
                    task = asyncio.create_task(self._deliver(self._take()))
                    self._sending.add(task)
                    task.add_done_callback(self._sending.discard)
        finally:
            for task in list(self._sending):
                task.cancel()
            await self._notices.close()

    async def _deliver(self, parcels: list[_Parcel]) -> None:
        """One batch. What Kafka did not take goes back to the front after a pause."""
        try:
            again = await self._send(parcels)
            if again:
                await self._clock.sleep(_RETRY_SECONDS)
                self._parcels.extendleft(reversed(again))
                self._wake.set()
        finally:
            self._free.release()
        if self._waiting == 0:
            self._idle.set()

    def _take(self) -> list[_Parcel]:
        taken: list[_Parcel] = []
        size = 0
        while self._parcels and size < _BATCH:
            parcel = self._parcels.popleft()
            taken.append(parcel)
            size += len(parcel.messages)
        return taken

    async def _send(self, parcels: Sequence[_Parcel]) -> list[_Parcel]:
        """The parcels, or parts of them, that must be sent again."""
        fates = iter(await self._producer.send_many([m for parcel in parcels for m in parcel.messages]))
        again: list[_Parcel] = []
        for parcel in parcels:
            left = [m for m in parcel.messages if self._unsent(m, next(fates))]
            self._waiting -= len(parcel.messages) - len(left)
            if left:
                again.append(_Parcel(left, parcel.done))
            elif parcel.done is not None:
                parcel.done()
        if self._waiting < self._bound:
            self._room.set()
        return again

    @staticmethod
    def _unsent(message: Message, fate: object) -> bool:
        """Whether the message must be sent again. One that can never be sent is reported and given up."""
        if not isinstance(fate, Exception):
            return False
        metrics.SEND_FAILURES.labels("planner").inc()
        if isinstance(fate, RecordTooLarge) or not isinstance(fate, LogError):
            log.error("message_given_up", topic=message.topic, reason=str(fate))
            return False
        return True
