"""What lies in `data-keys`, for people and administrators: nothing here opens a key, but for wrapping it by another cluster key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from pydantic import ValidationError

from shared.contracts.data_key import DataKey
from shared.contracts.headers import envelope
from shared.kafka.port import Consumer, Log, Message, Producer, TopicPartition
from shared.processing.tail import stretches

if TYPE_CHECKING:
    from shared.sealing.cipher import ClusterKeys

_CLIENT = "tutti-data-keys"


class DataKeys:
    """The topic of one cluster."""

    def __init__(self, log: Log, topic: str) -> None:
        self._log, self._lies = log, TopicPartition(topic, 0)

    async def held(self) -> dict[str, DataKey]:
        """`tenant/id` → the entry in force. Raises LogError."""
        async with self._reader() as consumer:
            return (await self._read(consumer, 0))[0]

    async def of_tenant(self, tenant: str) -> list[str]:
        """Names of the tenant's. Raises LogError."""
        return [name for name, entry in (await self.held()).items() if entry.tenant == tenant]

    async def shred(self, tenant: str) -> int:
        """Remove a tenant's; returns how many there were. What is sealed with them cannot be opened any more. Raises LogError."""
        names = await self.of_tenant(tenant)
        async with self._writer() as producer:
            for name in names:
                await self._remove(producer, name)
        return len(names)

    async def rewrap(self, keys: ClusterKeys) -> tuple[int, int]:
        """Wrap all by the first cluster key; (how many were, how many cannot be, since the one that wraps them is not in the file).

        One that is shredded meanwhile is shredded again: else it were back. Raises LogError, InvalidRecord.
        """
        async with self._reader() as consumer, self._writer() as producer:
            found, end = await self._read(consumer, 0)
            done: list[str] = []
            for name, entry in found.items():
                key = keys.unwrap(entry.cluster_key, entry.wrapped, name)
                if key is None or entry.cluster_key == keys.first:
                    continue
                by, wrapped = keys.wrap(key, name)
                again = entry.model_copy(update={"cluster_key": by, "wrapped": wrapped})
                await producer.send(Message(self._lies.topic, again.to_bytes(), name.encode(), 0, envelope("data_key")))
                done.append(name)
            removed: set[str] = set()
            await self._read(consumer, end, removed)
            for name in removed & set(done):
                await self._remove(producer, name)
        return len(done), sum(entry.cluster_key not in keys.ids for entry in found.values())

    async def _remove(self, producer: Producer, name: str) -> None:
        await producer.send(Message(self._lies.topic, None, name.encode(), 0, envelope("data_key")))

    async def _read(self, consumer: Consumer, start: int, removed: set[str] | None = None) -> tuple[dict[str, DataKey], int]:
        """(entries, where reading ended), by the rules of rings: what is no entry is passed over, what was removed never comes back."""
        found: dict[str, DataKey] = {}
        removed = set() if removed is None else removed
        end = (await consumer.end_offsets([self._lies]))[self._lies]
        async for records in stretches(consumer, {self._lies: (start, end)}):
            for record in records:
                name = (record.key or b"").decode(errors="replace")
                if record.value is None:
                    found.pop(name, None)
                    removed.add(name)
                elif name not in removed:
                    try:
                        found[name] = DataKey.model_validate_json(record.value)
                    except ValidationError:
                        continue
        return found, end

    @asynccontextmanager
    async def _reader(self) -> AsyncIterator[Consumer]:
        consumer = await self._log.consumer(client_id=_CLIENT, reset="earliest", fetch_max_wait_ms=50)
        try:
            yield consumer
        finally:
            await consumer.close()

    @asynccontextmanager
    async def _writer(self) -> AsyncIterator[Producer]:
        producer = await self._log.producer(client_id=_CLIENT)
        try:
            yield producer
        finally:
            await producer.close()
