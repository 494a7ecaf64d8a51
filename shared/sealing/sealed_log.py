"""SealedLog: a log whose values lie sealed in Kafka. Services see them as they were written, and know nothing of it.

    log = SealedLog(AioLog(servers, clock), clock, topics, ring)

Sealed is the value of each record of the registry's topics that have bodies; topics of others (where callers wait) stay plain, since their
readers have no keys. Without a ring nothing is sealed and nothing can be opened: then a sealed record is not taken for an odd one. Nothing
is read past it, and `trouble` says what is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Unpack

from shared.clock import Clock
from shared.contracts.headers import SEALED
from shared.errors import ConfigurationError, InvalidRecord, Locked, LogError
from shared.kafka.port import (
    Appended,
    Consumer,
    ConsumerOptions,
    Log,
    Message,
    OriginalRecord,
    Producer,
    RebalanceListener,
    Record,
    TopicPartition,
    Unreadable,
)
from shared.settings import KafkaSettings
from shared.topics import Topics

if TYPE_CHECKING:
    from shared.sealing.key_ring import HeldKey, KeyRing

PLAIN = frozenset({"data-keys", "acts", "nodes", "credits", "presence", "controls"})
"""Families of topics without bodies, and the keys."""
NOBODYS = ""
"""Tenant of what is nobody's in particular."""
_LOCKED = "records here are sealed (header `sealed`), and TUTTI_SEALING__KEYS_FILE names no keys"
_SHREDDED, _UNKNOWN = "its key is gone with its tenant", "it is sealed with a key that nobody has made here"
_CLEAR = "jobs are taken sealed only (TUTTI_SEALING__JOBS): submit it through the ingress"


def sealed(inner: Log, settings: KafkaSettings, clock: Clock, topics: Topics, *, client_id: str = "tutti-keys") -> SealedLog:
    """As the settings say. Raises ConfigurationError: of a file that cannot be used, of a library that is not installed."""
    given, ring = settings.sealing, None
    if given.keys_file:
        try:
            from shared.sealing.cipher import ClusterKeys
            from shared.sealing.key_ring import KeyRing
        except ImportError:
            raise ConfigurationError("TUTTI_SEALING__KEYS_FILE needs the extra `sealing` (pip install 'tutti-cluster[sealing]')") from None
        ring = KeyRing(inner, clock, topics, ClusterKeys(given.keys_file), client_id=client_id)
    elif given.jobs == "sealed":
        raise ConfigurationError("TUTTI_SEALING__JOBS asks for sealed jobs, and TUTTI_SEALING__KEYS_FILE is not set")
    packs = settings.kafka_compression != "none"
    return SealedLog(inner, clock, topics, ring, packs=packs, writes=given.writes, jobs_sealed=given.jobs == "sealed")


class SealedLog:
    """Implements `port.Log` on another one."""

    def __init__(
        self,
        inner: Log,
        clock: Clock,
        topics: Topics,
        ring: KeyRing | None,
        *,
        packs: bool = False,
        writes: bool = True,
        jobs_sealed: bool = False,
    ) -> None:
        """`packs`: values are compressed before they are sealed. `jobs_sealed`: others are unreadable."""
        self.inner, self._clock, self._ring, self._packs, self._writes = inner, clock, ring, packs, writes
        bodies = {topic.name for topic in topics.all() if topic.family.pattern not in PLAIN}
        self.seals: Callable[[str], bool] = bodies.__contains__
        self._demanded = frozenset(topics.all_jobs()) if jobs_sealed else frozenset()
        self._trouble: str | None = None
        self.admin = inner.admin

    @property
    def trouble(self) -> str | None:
        return self.inner.trouble or self._trouble or (self._ring.trouble if self._ring is not None else None)

    @property
    def unheard(self) -> bool:
        return self.inner.unheard

    async def producer(self, *, client_id: str, acks: Literal["all", 1] = "all", linger_ms: int = 0) -> Producer:
        if self._ring is None or not self._writes:
            return await self.inner.producer(client_id=client_id, acks=acks, linger_ms=linger_ms)
        await self._ring.ready()
        inner = await self.inner.producer(client_id=client_id, acks=acks, linger_ms=linger_ms)
        return _SealedProducer(inner, self._ring, self.seals, packs=self._packs)

    async def consumer(self, **options: Unpack[ConsumerOptions]) -> _SealedConsumer:
        if self._ring is not None:
            await self._ring.ready()
        return _SealedConsumer(await self.inner.consumer(**options), self._ring, self._clock, self._lock, self._demanded)

    async def close(self) -> None:
        if self._ring is not None:
            await self._ring.close()
        await self.inner.close()

    def _lock(self, why: str | None) -> None:
        self._trouble = why


class _SealedProducer:
    """Implements `port.Producer`. Who waits for a tenant's first key holds up the calls behind him, so that the order stands."""

    def __init__(self, inner: Producer, ring: KeyRing, seals: Callable[[str], bool], *, packs: bool) -> None:
        self._inner, self._ring, self._seals, self._packs = inner, ring, seals, packs
        self._turn, self._queued = asyncio.Lock(), 0
        self.close = inner.close

    async def send(self, message: Message) -> Appended:
        [sealed] = await self._sealed((message,))
        return await self._inner.send(sealed)

    async def send_many(self, messages: Sequence[Message]) -> list[Appended | Exception]:
        try:
            sealed = await self._sealed(messages)
        except LogError as error:
            return [error] * len(messages)
        return await self._inner.send_many(sealed)

    async def append(self, partition: TopicPartition, messages: Sequence[Message]) -> int:
        return await self._inner.append(partition, await self._sealed(messages))

    async def _sealed(self, messages: Sequence[Message]) -> list[Message]:
        """Raises LogError where a tenant has no key and none can be made: nothing is sent."""
        keys = dict.fromkeys(message.tenant or NOBODYS for message in messages if self._to_seal(message))
        missing = [tenant for tenant in keys if self._ring.sealing(tenant) is None]
        if missing or self._queued:
            self._queued += 1
            try:
                async with self._turn:
                    held = {tenant: self._ring.sealing(tenant) or await self._ring.key_for(tenant) for tenant in keys}
            finally:
                self._queued -= 1
        else:
            held = {tenant: key for tenant in keys if (key := self._ring.sealing(tenant)) is not None}
        return [self._seal(message, held[message.tenant or NOBODYS]) if self._to_seal(message) else message for message in messages]

    def _to_seal(self, message: Message) -> bool:
        """What could not be opened, and was kept as it was, goes back as it was."""
        return message.value is not None and self._seals(message.topic) and not (message.headers and message.headers[0][0] == SEALED)

    def _seal(self, message: Message, key: HeldKey) -> Message:
        topic, value, name, partition, headers, _ = message
        key.left -= 1
        sealed = key.cipher.seal(value or b"", topic, name, packs=self._packs)
        return Message(topic, sealed, name, partition, ((SEALED, key.header), *headers))


class _SealedConsumer:
    """Implements `port.Consumer`: what is sealed comes as `OriginalRecord`, what does not open as `Unreadable`, as it lies."""

    def __init__(
        self, inner: Consumer, ring: KeyRing | None, clock: Clock, lock: Callable[[str | None], None], demanded: Collection[str]
    ) -> None:
        """`lock`: told why nothing is read, and when that is over. `demanded`: topics of which what is not sealed is unreadable."""
        self._inner, self._ring, self._clock, self._lock, self._demanded = inner, ring, clock, lock, demanded
        self._sought: set[TopicPartition] = set()
        """Where the caller has gone while a poll was under way."""
        self._held = False
        # All else is the client's own.
        self.assign, self.commit, self.committed, self.close = inner.assign, inner.commit, inner.committed, inner.close
        self.position, self.reached, self.held_back, self.identity = inner.position, inner.reached, inner.held_back, inner.identity
        self.beginning_offsets, self.end_offsets, self.offset_at = inner.beginning_offsets, inner.end_offsets, inner.offset_at
        self.pause, self.resume, self.assignment, self.missed = inner.pause, inner.resume, inner.assignment, inner.missed

    async def subscribe(self, topics: Collection[str], listener: RebalanceListener | None = None) -> None:
        await self._inner.subscribe(topics, listener)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._sought.add(partition)
        self._inner.seek(partition, offset)

    async def poll(
        self, *, timeout_seconds: float, max_records: int | None = None, partitions: Collection[TopicPartition] | None = None
    ) -> Mapping[TopicPartition, Sequence[Record]]:
        """As `port.Consumer`. Raises Locked when the key to what lies here is not: it is read again then, from where it lies."""
        found = await self._inner.poll(timeout_seconds=timeout_seconds, max_records=max_records, partitions=partitions)
        if unknown := self._unknown(found):
            self._sought.clear()
            try:
                for id_ in unknown:
                    await self._look(id_)
            except BaseException as error:
                self._put_back(found)
                if isinstance(error, Locked):
                    self._held = True
                    self._lock(error.message)
                    await self._clock.sleep(timeout_seconds)
                raise
            found = {tp: found[tp] for tp in found if tp not in self._sought and tp in self._inner.assignment()}
        if found and self._held:
            self._held = False
            self._lock(None)
        return found if self._ring is None and not self._demanded else {tp: self._opened(records) for tp, records in found.items()}

    def _unknown(self, found: Mapping[TopicPartition, Sequence[Record]]) -> list[bytes]:
        """Ids of keys that are not here; of a process without a ring the first one."""
        ids: dict[bytes, None] = {}
        for records in found.values():
            for record in records:
                if _is_sealed(record):
                    id_ = record.headers[0][1]
                    if self._ring is None:
                        return [id_]
                    if self._ring.find(id_) is None:
                        ids[id_] = None
        return list(ids)

    async def _look(self, id_: bytes) -> None:
        if self._ring is None:
            raise Locked(_LOCKED)
        await self._ring.look(id_)

    def _put_back(self, found: Mapping[TopicPartition, Sequence[Record]]) -> None:
        """They are given again; not where the caller has gone elsewhere, or has nothing any more."""
        for tp in self._inner.assignment() - self._sought:
            if records := found.get(tp):
                self._inner.seek(tp, records[0].offset)

    def _opened(self, records: Sequence[Record]) -> Sequence[Record]:
        return [
            self._open(record, record.headers[0][1])
            if _is_sealed(record)
            else _unreadable(record, _CLEAR)
            if record.topic in self._demanded and record.value is not None
            else record
            for record in records
        ]

    def _open(self, record: Record, id_: bytes) -> Record:
        topic, key, headers = record.topic, record.key, record.headers
        held = self._ring.find(id_) if self._ring is not None else None
        if held is None:
            shredded = self._ring is not None and id_ in self._ring.shredded
            return _unreadable(record, _SHREDDED if shredded else _UNKNOWN, shredded=shredded)
        try:
            value = held.cipher.open(record.value or b"", topic, key)
        except InvalidRecord as error:
            return _unreadable(record, error.message)
        return OriginalRecord(topic, record.partition, record.offset, record.timestamp, key, value, headers[1:], held.tenant)


def _is_sealed(record: Record) -> bool:
    headers = record.headers
    return bool(headers) and headers[0][0] == SEALED and not isinstance(record, Unreadable)


def _unreadable(record: Record, why: str, *, shredded: bool = False) -> Record:
    topic, partition, offset = record.topic, record.partition, record.offset
    reason = f"offset {offset}: {why}"
    return Unreadable(topic, partition, offset, reason, record.timestamp, record.key, record.value, record.headers, shredded)
