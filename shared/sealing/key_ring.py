"""KeyRing: the data keys of one process. It follows `data-keys`, opens what a cluster key of ours wraps, and makes what is missing.

A data key is acknowledged before anything is sealed with it, so who meets one that it does not know reads `data-keys` to its end and knows
then whether there is such a key. Two that are made for one tenant at the same time are both good: any opens, the newest seals. A key that
was shredded never comes back, whatever is written about it later.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import NamedTuple

from shared.clock import Clock
from shared.contracts.data_key import DataKey
from shared.contracts.headers import envelope
from shared.errors import ConfigurationError, InvalidRecord, Locked, LogError
from shared.kafka.port import Log, Message, Producer, Record, TopicPartition
from shared.processing.folding import fold_each
from shared.processing.tail import ASKED_WAIT_MS, Tail
from shared.sealing.cipher import Cipher, ClusterKeys, new_key
from shared.tasks import beside, ended
from shared.telemetry import logs
from shared.topics import DAY_MS, Topics

log = logs.get(__name__)

SEALS = 2**28
"""So many one process seals with one key: sixteen of them stay below the 2^32 that random nonces allow a key."""
SEALS_SECONDS = 30 * DAY_MS / 1000
"""A key seals for so long; it opens as long as it is there."""
_AGAIN_SECONDS = 2.0
_ABSENT = 10_000
_ID_BYTES = 8


class HeldKey:
    """A data key that is open."""

    __slots__ = ("at", "cipher", "header", "left", "tenant")

    def __init__(self, tenant: str, id_: str, key: bytes, at: float) -> None:
        self.tenant, self.header, self.cipher, self.at, self.left = tenant, id_.encode(), Cipher(key), at, SEALS


class _Entry(NamedTuple):
    name: str
    said: DataKey


def name_of(tenant: str, id_: str) -> str:
    """The entry's key."""
    return f"{tenant}/{id_}"


class KeyRing:
    """One a process. Everything that waits here waits for Kafka, or for a cluster key, until cancelled."""

    def __init__(self, log_: Log, clock: Clock, topics: Topics, keys: ClusterKeys, *, client_id: str) -> None:
        self._log, self._clock, self._cluster, self._client_id = log_, clock, keys, client_id
        self._lies = TopicPartition(topics.data_keys, 0)
        self._keys: dict[bytes, HeldKey] = {}
        """By id, as headers name it."""
        self._newest: dict[str, HeldKey] = {}
        self._locked: dict[str, _Entry] = {}
        self.shredded: set[bytes] = set()
        """Ids of keys that were taken away."""
        self._absent: OrderedDict[bytes, None] = OrderedDict()
        """Ids of which it is known that there is no such key."""
        self._making: dict[str, asyncio.Task[HeldKey]] = {}
        self._producer: Producer | None = None
        self._running: asyncio.Task[None] | None = None
        self._tail = Tail(
            log_, clock, [self._lies], client_id=client_id, handle=lambda _, records: fold_each("sealing", records, self._on_record),
            fetch_max_wait_ms=ASKED_WAIT_MS,
        )  # fmt: skip

    @property
    def trouble(self) -> str | None:
        """Why this process cannot open everything, for people."""
        if self._running is not None and not self._tail.caught_up():
            return f"{self._lies.topic}, which holds the keys of what is sealed, is not read yet"
        if not self._locked:
            return None
        ids = ", ".join(sorted({entry.said.cluster_key for entry in self._locked.values()}))
        return f"{len(self._locked)} data keys are wrapped by cluster keys that TUTTI_SEALING__KEYS_FILE does not hold: {ids}"

    async def ready(self) -> None:
        """Return when all data keys are read and open."""
        if self._running is None:
            self._running = beside(self._run(), "data keys")
        await self._tail.read_to()
        while self._locked:
            await self._clock.sleep(_AGAIN_SECONDS)

    async def _run(self) -> None:
        """Follow; and look for a cluster key that is missing, which somebody may put into the file."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tail.run())
            while True:
                await self._clock.sleep(_AGAIN_SECONDS)
                if self._locked:
                    self._unlock()
                    log.error("locked", reason=self.trouble)

    async def close(self) -> None:
        """Read no more."""
        await ended(*self._making.values(), *([] if self._running is None else [self._running]))
        if self._producer is not None:
            await self._producer.close()

    # Opening

    def find(self, id_: bytes) -> HeldKey | None:
        return self._keys.get(id_)

    async def look(self, id_: bytes) -> HeldKey | None:
        """The same, when all that lies in `data-keys` is read; None: it was shredded, or never was. Raises Locked, LogError."""
        if id_ in self._absent:
            return None
        await self._tail.read_to_end(self._lies)
        found = self._keys.get(id_)
        if found is None and any(name.endswith(f"/{id_.decode(errors='replace')}") for name in self._locked):
            raise Locked(self.trouble)
        if found is None:
            self._absent[id_] = None
            if len(self._absent) > _ABSENT:
                self._absent.popitem(last=False)
        return found

    # Sealing

    def sealing(self, tenant: str) -> HeldKey | None:
        """The key that seals for the tenant now, if it is here."""
        key = self._newest.get(tenant)
        return key if key is not None and key.left > 0 and self._clock.wall() - key.at < SEALS_SECONDS else None

    async def key_for(self, tenant: str) -> HeldKey:
        """The same, made where there is none. Raises LogError: then there is none at all."""
        making = self._making.get(tenant)
        if making is None:
            making = self._making[tenant] = asyncio.get_running_loop().create_task(self._make(tenant))
            making.add_done_callback(lambda _: self._making.pop(tenant, None))
        try:
            return await asyncio.shield(making)
        except LogError:
            old = self._newest.get(tenant)
            if old is None:
                raise
            return old  # past its time it still seals

    async def _make(self, tenant: str) -> HeldKey:
        self._refresh()
        if self._producer is None:
            self._producer = await self._log.producer(client_id=self._client_id)
        key, id_ = new_key(), new_key()[:_ID_BYTES].hex()
        name = name_of(tenant, id_)
        by, wrapped = self._cluster.wrap(key, name)
        said = DataKey(tenant=tenant, cluster_key=by, wrapped=wrapped, at=self._clock.wall())
        await self._producer.send(Message(self._lies.topic, said.to_bytes(), name.encode(), 0, envelope("data_key")))
        log.info("data_key_made", tenant=tenant, cluster_key=by)
        return self._keep(tenant, id_, key, said.at)

    # Folding

    def _on_record(self, record: Record) -> None:
        name = (record.key or b"").decode()
        tenant, slash, id_ = name.partition("/")
        if not slash or not id_:
            raise InvalidRecord("the entry's key is not tenant/id")
        if record.value is None:
            self._shred(name, tenant, id_.encode())
        elif id_.encode() not in self.shredded:
            said = DataKey.model_validate_json(record.value)
            if said.tenant != tenant:
                raise InvalidRecord("the entry's tenant is not that of its key")
            self._take(_Entry(name, said))

    def _take(self, entry: _Entry) -> None:
        name, said = entry
        tenant, _, id_ = name.partition("/")
        self._locked.pop(name, None)
        if id_.encode() in self._keys:
            return
        key = self._cluster.unwrap(said.cluster_key, said.wrapped, name)
        if key is None:
            self._locked[name] = entry
        else:
            self._keep(tenant, id_, key, said.at)

    def _keep(self, tenant: str, id_: str, key: bytes, at: float) -> HeldKey:
        known = self._keys.get(id_.encode())
        if known is not None or id_.encode() in self.shredded:
            return known or HeldKey(tenant, id_, key, at)
        held = self._keys[id_.encode()] = HeldKey(tenant, id_, key, at)
        self._absent.pop(held.header, None)
        newest = self._newest.get(tenant)
        if newest is None or (newest.at, newest.header) < (at, held.header):
            self._newest[tenant] = held
        return held

    def _shred(self, name: str, tenant: str, id_: bytes) -> None:
        self.shredded.add(id_)
        self._locked.pop(name, None)
        held = self._keys.pop(id_, None)
        if held is not None and self._newest.get(tenant) is held:
            others = [key for key in self._keys.values() if key.tenant == tenant]
            if others:
                self._newest[tenant] = max(others, key=lambda key: (key.at, key.header))
            else:
                del self._newest[tenant]

    def _unlock(self) -> None:
        self._refresh()
        for entry in list(self._locked.values()):
            try:
                self._take(entry)
            except InvalidRecord as error:
                log.warning("data_key_not_opened", entry=entry.name, reason=error.message)

    def _refresh(self) -> None:
        try:
            self._cluster.refresh()
        except ConfigurationError as error:
            log.warning("cluster_keys_not_taken", reason=error.message)
