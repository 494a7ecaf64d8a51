"""Text on its way to callers while it is generated: the first piece at once, the rest coalesced, one record for many jobs of a reader.

Sent by a producer of its own (acks=1): a lost chunk is completed by the final, and no lease ever waits for one. Each reader has one send
under way, so that none waits for another whose topic is not there. Bounded: beyond the limit text is dropped here, not held.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from services.worker.backends.base import Delta
from services.worker.settings import WorkerSettings
from shared.clock import Clock, within
from shared.contracts import headers
from shared.contracts.base import ClaimId
from shared.contracts.job import ReplyTo
from shared.contracts.reply import Chunk, Chunks
from shared.contracts.step import Step
from shared.contracts.tasks import TaskProgress
from shared.errors import LogError
from shared.kafka.port import Message, Producer
from shared.telemetry import logs, metrics
from shared.topics import Topics

log = logs.get(__name__)

RECORD_TEXT_BYTES = 48 * 1024
"""Text in one record; a record's other parts come on top, far below the record bound."""
_MOST_PROGRESS = 64
Reader = tuple[str, int | None]
"""Topic and partition of a reply address."""
SECONDS_PER_STREAM = 0.001
"""The more streams, the longer text is gathered: a record for many costs little more than for one."""


class _ChunkStream:
    """The pieces of one attempt that wait to be sent."""

    def __init__(self, owner: ChunkSender, step: Step, claim: ClaimId, *, reply: ReplyTo, model: str, simulated: bool) -> None:
        self.reply = reply
        self.reader = (reply.topic, reply.partition)
        self.tenant = step.tenant
        self._owner, self._step, self._claim, self._model, self._simulated = owner, step, claim, model, simulated
        self._tokens: int | None = step.prefix_tokens if step.prefix else 0
        """Of the answer's text so far; None where nobody counted its beginning."""
        self._sequence = 0
        self._continues_from = self._offset = len(step.prefix or "")
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._tools: list[dict[str, Any]] = []
        self._progress: dict[str, TaskProgress] = {}
        self.waiting_bytes = 0

    @property
    def began(self) -> bool:
        """Something has been sent or dropped already."""
        return self._sequence > 0

    def add(self, delta: Delta) -> None:
        """One more piece; never waits."""
        if delta.text:
            self._text.append(delta.text)
            if self._tokens is not None:  # of what comes with thoughts only one is sure to be of the text
                self._tokens += 1 if delta.thinking or delta.tool_calls else delta.tokens
        if delta.thinking:
            self._thinking.append(delta.thinking)
        self._tools.extend(delta.tool_calls)
        if delta.progress is not None and len(self._progress) < _MOST_PROGRESS:  # of each file the newest word is enough
            self._progress.pop(delta.progress.status, None)
            self._progress[delta.progress.status] = delta.progress
        size = len(delta.text) + len(delta.thinking or "") + 64 * (len(delta.tool_calls) + (delta.progress is not None))
        self.waiting_bytes += size
        self._owner.added(self, size)

    def finish(self) -> None:
        """The attempt has ended: what waits goes out now."""
        self._owner.finished(self)

    def take(self) -> Chunk | None:
        """Everything that waits, as one chunk."""
        if not self.waiting_bytes:
            return None
        text = "".join(self._text)
        chunk = Chunk(
            job=self._step.job,
            step=self._step.id,
            attempt=self._step.attempt,
            claim=self._claim,
            tokens=self._tokens,
            sequence=self._sequence,
            offset=self._offset,
            text=text,
            continues_from=self._continues_from,
            thinking="".join(self._thinking) or None,
            tool_calls=tuple(self._tools),
            model=self._model,
            simulated=self._simulated,
            progress=tuple(self._progress.values()),
            correlation=self.reply.correlation,
        )
        self._sequence += 1
        self._offset += len(text)
        self._text, self._thinking, self._tools, self.waiting_bytes = [], [], [], 0
        self._progress.clear()
        return chunk


class ChunkSender:
    """All streams of this worker and the one task (`run`) that sends for them."""

    def __init__(self, topics: Topics, clock: Clock, settings: WorkerSettings) -> None:
        self._topics, self._clock, self._most_bytes = topics, clock, settings.chunk_buffer_bytes
        self._shortest, self._longest = settings.chunk_min_seconds, settings.chunk_max_seconds
        self._waiting: dict[_ChunkStream, None] = {}
        self._urgent: dict[_ChunkStream, None] = {}
        self._busy: dict[Reader, list[_ChunkStream]] = {}
        """Readers to whom something is on its way, and what is urgent after it."""
        self._bytes = 0
        self._flushed_at = float("-inf")
        self._some = asyncio.Event()
        self._now = asyncio.Event()

    def open(self, step: Step, claim: ClaimId, model: str, simulated: bool) -> _ChunkStream | None:
        """A way for the chunks of this attempt; None when nobody waits, or where no reply may go."""
        if step.reply is None or not self._topics.may_reply_to(step.reply.topic):
            return None
        return _ChunkStream(self, step, claim, reply=step.reply, model=model, simulated=simulated)

    def added(self, stream: _ChunkStream, size: int) -> None:
        """A stream has more text."""
        self._bytes += size
        self._waiting[stream] = None
        if not stream.began:
            self._urge(stream)
        if self._bytes > self._most_bytes:
            self._drop(max(self._waiting, key=lambda waiting: waiting.waiting_bytes))
        self._some.set()

    def finished(self, stream: _ChunkStream) -> None:
        """A stream ended."""
        if stream.waiting_bytes:
            self._urge(stream)

    def _urge(self, stream: _ChunkStream) -> None:
        if stream.reader in self._busy:
            self._busy[stream.reader].append(stream)
        else:
            self._urgent[stream] = None
            self._now.set()

    def _drop(self, stream: _ChunkStream) -> None:
        self._bytes -= stream.waiting_bytes
        stream.take()
        self._waiting.pop(stream, None)
        self._urgent.pop(stream, None)

    async def run(self, producer: Producer) -> None:
        """Send for ever. One send a reader is outstanding at a time; what arrives meanwhile is gathered."""
        async with asyncio.TaskGroup() as sends:
            while True:
                await self._some.wait()
                await self._pause()
                for reader, streams in self._due().items():
                    self._busy[reader] = []
                    sends.create_task(self._send(producer, reader, self._messages(streams)))

    async def _pause(self) -> None:
        """Wait for the end of the interval, or until something urgent comes."""
        interval = min(self._longest, self._shortest + SECONDS_PER_STREAM * len(self._waiting))
        left = self._flushed_at + interval - self._clock.monotonic()
        if left <= 0 or self._urgent:
            return
        await within(left, self._now.wait())

    def _due(self) -> dict[Reader, list[_ChunkStream]]:
        """The urgent streams alone while the interval lasts, else all whose reader is free."""
        now = self._clock.monotonic()
        whole = now - self._flushed_at >= self._shortest
        if whole:
            self._flushed_at = now
        due: dict[Reader, list[_ChunkStream]] = {}
        for stream in list(self._waiting if whole else self._urgent):
            if stream.reader not in self._busy:
                due.setdefault(stream.reader, []).append(stream)
                self._waiting.pop(stream, None)
                self._urgent.pop(stream, None)
        self._now.clear()
        if whole or not self._waiting:
            self._some.clear()
        return due

    def _messages(self, streams: Iterable[_ChunkStream]) -> list[Message]:
        """One record for each reader that accepts chunks of several jobs, one a job for the others."""
        shared: dict[tuple[str, int | None], list[Chunk]] = {}
        whose: dict[tuple[str, int | None], set[str]] = {}
        messages: list[Message] = []
        for stream in streams:
            self._bytes -= stream.waiting_bytes
            chunk = stream.take()
            if chunk is None:
                continue
            if stream.reply.multiplex:
                shared.setdefault(stream.reader, []).append(chunk)
                whose.setdefault(stream.reader, set()).add(stream.tenant)
            else:
                messages.append(_single(stream.reply, chunk, stream.tenant))
        for reader, chunks in shared.items():
            tenants = whose[reader]
            messages.extend(_shared(*reader, chunks, tenants.pop() if len(tenants) == 1 else None))
        return messages

    async def _send(self, producer: Producer, reader: Reader, messages: list[Message]) -> None:
        metrics.CHUNK_RECORDS.inc(len(messages))
        try:
            results = await producer.send_many(messages)
        except LogError as error:
            results = [error]
        lost = sum(isinstance(result, Exception) for result in results)
        if lost:
            metrics.SEND_FAILURES.labels("worker").inc(lost)
            log.warning("chunks_lost", records=lost)
        for stream in self._busy.pop(reader):
            if stream.waiting_bytes:
                self._urge(stream)
        if self._waiting:
            self._some.set()


def _single(reply: ReplyTo, chunk: Chunk, tenant: str) -> Message:
    return Message(
        reply.topic,
        Chunks(chunks=(chunk,)).to_bytes(),
        key=reply.correlation or chunk.job.encode(),
        partition=reply.partition,
        headers=headers.envelope("chunks") + headers.correlation_headers(reply),
        tenant=tenant,
    )


def _shared(topic: str, partition: int | None, chunks: list[Chunk], tenant: str | None) -> Iterable[Message]:
    """`tenant`: whose they all are, if they are one's."""
    group: list[Chunk] = []
    size = 0
    for chunk in chunks:
        if group and size + len(chunk.text) > RECORD_TEXT_BYTES:
            yield _group(topic, partition, group, tenant)
            group, size = [], 0
        group.append(chunk)
        size += len(chunk.text)
    if group:
        yield _group(topic, partition, group, tenant)


def _group(topic: str, partition: int | None, chunks: list[Chunk], tenant: str | None) -> Message:
    value = Chunks(chunks=tuple(chunks)).to_bytes()
    return Message(topic, value, chunks[0].job.encode(), partition, headers.envelope("chunks"), tenant)
