"""Blobs: bodies above the inline bound, each written once to the topic `blobs`, in chunks; records name it by a BlobRef.

Every chunk is acknowledged before any record may name the blob: a reader never has to wait for one. Several writers use a partition, so
the reader takes of what lies between first and last only what has the blob's key, and checks count, size and digest. The key is a hash of
tenant and digest: who names another tenant's blob looks for a key that nobody has written.

What is gone (retention, a topic made anew) is gone for good: BlobGone, never retried. A blob written twice costs its bytes twice, no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import TypeVar

from shared.clock import Clock
from shared.contracts.blob import BLOB_BYTES, BlobRef
from shared.contracts.chat import Answer
from shared.contracts.headers import envelope, find
from shared.contracts.ids import digest_of
from shared.contracts.result import Result
from shared.errors import LogError, LogUnavailable, NotFound, SendFailed, TooLarge
from shared.kafka.port import Appended, Consumer, Log, Message, Producer, TopicPartition
from shared.processing.tail import stretches
from shared.telemetry import logs, metrics
from shared.topics import Topics, partition_of

log = logs.get(__name__)

T = TypeVar("T")

CHUNK_BYTES = 192 * 1024
"""With key and headers within a record's bound."""
AT_ONCE = 4
"""Blobs that one process writes or reads at a time: each is in memory whole."""
FETCH_SECONDS = 60.0
_PAUSE_SECONDS = 1.0
_NUMBER = "chunk"


class BlobGone(NotFound):
    """The blob is gone, or was never there."""

    code = "blob_gone"


def key_of(tenant: str, digest: str) -> bytes:
    """Of all chunks of the blob."""
    return blake2b(f"{tenant}\x1f{digest}".encode(), digest_size=16).hexdigest().encode()


class Blobs:
    """One per process. Its producer is opened with the first blob, so that large bodies never queue before small records."""

    def __init__(self, log: Log, clock: Clock, topics: Topics, *, service: str, instance: str) -> None:
        self._log, self._clock = log, clock
        self._topic, self._partitions = topics.blobs, topics.partitions("other")
        self._client = f"tutti-{service}-blobs-{instance}"
        self._written = metrics.BLOB_BYTES.labels(service, "written")
        self._read = metrics.BLOB_BYTES.labels(service, "read")
        self._producer: Producer | None = None
        self._opening = asyncio.Lock()
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def store(self, tenant: str, body: bytes) -> BlobRef:
        """Write the body; returns when all of it is acknowledged. Raises TooLarge, LogError (then nobody names what is written)."""
        if len(body) > BLOB_BYTES:
            raise TooLarge(f"the body has {len(body)} bytes as it is written out; at most {BLOB_BYTES} are kept")
        async with self._turns:
            return await self._store(tenant, body)

    async def _store(self, tenant: str, body: bytes) -> BlobRef:
        digest = digest_of(body)
        key = key_of(tenant, digest)
        partition = partition_of(key, self._partitions)
        pieces = [body[start : start + CHUNK_BYTES] for start in range(0, len(body), CHUNK_BYTES)]
        messages = [
            Message(self._topic, piece, key, partition, (*envelope("chunk"), (_NUMBER, b"%d" % number)), tenant)
            for number, piece in enumerate(pieces)
        ]
        lie = await (await self._opened()).send_many(messages)
        offsets = [_offset(one) for one in lie]
        self._written.inc(len(body))
        return BlobRef(
            digest=digest,
            partition=partition,
            first=min(offsets),
            last=max(offsets),
            chunks=len(pieces),
            size=len(body),
            written_at=self._clock.wall(),
        )

    async def store_in_time(self, tenant: str, body: bytes) -> BlobRef:
        """The same for who has time: while Kafka does not take it, it is written again. Raises TooLarge."""
        return await self._in_time("blob_not_written", lambda: self.store(tenant, body))

    async def fetch(self, tenant: str, ref: BlobRef) -> bytes:
        """The body. Raises BlobGone, LogError."""
        async with self._turns:
            return await self._fetch(tenant, ref)

    async def renew(self, tenant: str, ref: BlobRef) -> BlobRef:
        """Write it again; returns where it lies from now on. In one turn: however many are to be renewed, few are in memory.

        Raises BlobGone, LogError.
        """
        async with self._turns:
            return await self._store(tenant, await self._fetch(tenant, ref))

    async def _fetch(self, tenant: str, ref: BlobRef) -> bytes:
        consumer = await self._log.consumer(client_id=self._client, reset="earliest")
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                body = await self._collect(consumer, key_of(tenant, ref.digest), ref)
        except TimeoutError:
            raise LogUnavailable from None
        finally:
            await consumer.close()
        if len(body) != ref.size or digest_of(body) != ref.digest:
            raise BlobGone
        self._read.inc(len(body))
        return body

    async def fetch_in_time(self, tenant: str, ref: BlobRef) -> bytes:
        """The same for who has time: while Kafka does not answer, it is asked again. Raises BlobGone."""
        return await self._in_time("blob_not_read", lambda: self.fetch(tenant, ref))

    async def whole(self, result: Result) -> Result:
        """The result with its answer, where that is by reference. Waits for Kafka as long as it takes. Raises BlobGone."""
        answer = result.answer
        if answer is None or answer.blob is None:
            return result
        body = await self.fetch_in_time(result.tenant, answer.blob)
        beside = {"finish_reason": answer.finish_reason, "explanation": answer.explanation}  # a job's own: the blob may be a step's answer
        return result.model_copy(update={"answer": Answer.model_validate_json(body).model_copy(update=beside)})

    async def close(self) -> None:
        """Free the producer."""
        if self._producer is not None:
            await self._producer.close()

    async def _collect(self, consumer: Consumer, key: bytes, ref: BlobRef) -> bytes:
        place = TopicPartition(self._topic, ref.partition)
        begin, end = (await consumer.beginning_offsets([place]))[place], (await consumer.end_offsets([place]))[place]
        if begin > ref.first or end <= ref.last:
            raise BlobGone
        pieces: dict[bytes, bytes] = {}
        async for records in stretches(consumer, {place: (ref.first, ref.last + 1)}):
            for record in records:
                number = find(record.headers, _NUMBER)
                if record.key == key and number is not None:
                    pieces.setdefault(number, record.value or b"")
        if len(pieces) < ref.chunks:
            raise BlobGone
        return b"".join(pieces.get(b"%d" % number, b"") for number in range(ref.chunks))

    async def _opened(self) -> Producer:
        async with self._opening:
            if self._producer is None:
                self._producer = await self._log.producer(client_id=self._client)
            return self._producer

    async def _in_time(self, failed: str, call: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await call()
            except LogError as error:
                log.warning(failed, reason=error.message)
                await self._clock.sleep(_PAUSE_SECONDS)


def _offset(lies: Appended | Exception) -> int:
    """Raises what befell the chunk; SendFailed where nobody can tell where it lies."""
    if isinstance(lies, Exception):
        raise lies
    if lies.offset < 0:
        raise SendFailed
    return lies.offset
