"""Notices: finals to reply topics that callers have chosen, which may not exist or lose partitions; nothing depends on them.

A lane a topic, with a task of its own while it has something to send, so that a bad address delays nobody else. What Kafka does not
acknowledge is sent again for a while and then given up: the result lies on `results`, whoever was told.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from shared.clock import Clock
from shared.errors import LogError, RecordTooLarge
from shared.kafka.port import Log, Message, Producer
from shared.telemetry import logs, metrics

log = logs.get(__name__)

_TYPES = (b"final", b"stream_broken")
_BATCH = 500
_LANES = 32
_LANE_BOUND = 10_000
_PATIENCE_SECONDS = 120.0
_RETRY_SECONDS = 1.0
_PACE_SECONDS = 0.5
"""How soon a lane that has only failed messages looks again for new ones."""


def is_notice(message: Message) -> bool:
    """Whether this goes to a caller's own topic and nothing depends on it. The type is the envelope's first header."""
    return bool(message.headers) and message.headers[0][1] in _TYPES


@dataclass(slots=True)
class _Entry:
    message: Message
    posted_at: float
    not_before: float = 0.0


@dataclass(slots=True)
class _Lane:
    """One topic's messages: new ones, and failed ones in the order in which they may be tried again."""

    fresh: deque[_Entry] = field(default_factory=deque)
    again: deque[_Entry] = field(default_factory=deque)

    def take(self, now: float) -> list[_Entry]:
        batch: list[_Entry] = []
        while self.again and self.again[0].not_before <= now and len(batch) < _BATCH // 2:
            batch.append(self.again.popleft())
        while self.fresh and len(batch) < _BATCH:
            batch.append(self.fresh.popleft())
        return batch


class Notices:
    """Bounded: beyond 32 topics at once, or 10,000 messages of one, the oldest are given up."""

    def __init__(self, log_: Log, clock: Clock, client_id: str) -> None:
        self._log, self._clock, self._client_id = log_, clock, client_id
        self._lanes: dict[str, _Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._producer: Producer | None = None
        self._opening = asyncio.Lock()
        self._idle = asyncio.Event()
        self._idle.set()

    def post(self, message: Message) -> None:
        """Queue one message. Never blocks."""
        lane = self._lanes.get(message.topic)
        if lane is None:
            if len(self._lanes) >= _LANES:
                _give_up(message, "too many reply topics fail at once")
                return
            lane = self._lanes[message.topic] = _Lane()
            self._start(message.topic, lane)
        elif len(lane.fresh) + len(lane.again) >= _LANE_BOUND:
            _give_up((lane.again or lane.fresh).popleft().message, "too many wait for this topic")
        lane.fresh.append(_Entry(message, self._clock.monotonic()))

    async def idle(self) -> None:
        """Wait until nothing waits."""
        await self._idle.wait()

    async def close(self) -> None:
        """Drop what waits."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._producer is not None:
            await self._producer.close()
            self._producer = None

    def _start(self, topic: str, lane: _Lane) -> None:
        self._idle.clear()
        task = asyncio.create_task(self._drain(topic, lane))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drain(self, topic: str, lane: _Lane) -> None:
        try:
            while lane.fresh or lane.again:
                batch = lane.take(self._clock.monotonic())
                if batch:
                    await self._send(lane, batch)
                else:
                    await self._clock.sleep(_PACE_SECONDS)
        finally:
            del self._lanes[topic]
            if not self._lanes:
                self._idle.set()

    async def _send(self, lane: _Lane, batch: list[_Entry]) -> None:
        producer = self._producer or await self._open()
        fates = await producer.send_many([entry.message for entry in batch])
        now = self._clock.monotonic()
        for entry, fate in zip(batch, fates, strict=True):
            if not isinstance(fate, Exception):
                continue
            metrics.SEND_FAILURES.labels("planner").inc()
            if isinstance(fate, RecordTooLarge) or not isinstance(fate, LogError) or now - entry.posted_at > _PATIENCE_SECONDS:
                _give_up(entry.message, str(fate))
            else:
                entry.not_before = now + _RETRY_SECONDS
                lane.again.append(entry)

    async def _open(self) -> Producer:
        async with self._opening:
            if self._producer is None:
                self._producer = await self._log.producer(client_id=f"{self._client_id}-notices")
            return self._producer


def _give_up(message: Message, reason: str) -> None:
    log.warning("notice_given_up", topic=message.topic, reason=reason)
