"""A log that seals, for tests: every topic of it, or those of the registry; and who sees through seals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from shared.clock import Clock
from shared.contracts.data_key import DataKey
from shared.contracts.headers import SEALED
from shared.kafka.memory.memory_partition import MemoryRecord
from shared.kafka.port import Log, NewTopic
from shared.sealing.cipher import Cipher, ClusterKeys, new_key, written
from shared.sealing.key_ring import KeyRing
from shared.sealing.sealed_log import SealedLog
from shared.topics import Topics, TopicSettings


def keys_file(folder: Path, *keys: bytes, name: str = "cluster-keys") -> Path:
    """A file with these cluster keys; with a new one if none is given."""
    path = folder / name
    path.write_text("".join(f"{written(key)}\n" for key in keys or (new_key(),)))
    return path


async def sealing(inner: Log, clock: Clock, file: Path, prefix: str = "", *, everything: bool = True, packs: bool = False) -> SealedLog:
    """`everything`: also topics that the registry does not know."""
    topics = Topics(TopicSettings(prefix=prefix))
    admin = await inner.admin()
    await admin.create_topics([NewTopic(topics.data_keys, 1, 1, {"cleanup.policy": "compact"})])
    await admin.close()
    log = SealedLog(inner, clock, topics, KeyRing(inner, clock, topics, ClusterKeys(str(file)), client_id="ring"), packs=packs)
    if everything:
        log.seals = lambda topic: topic != topics.data_keys
    return log


class Eyes:
    """What was written, opened: for the laws of a simulated cluster that seals. Also what was shredded since."""

    def __init__(self, topics: Topics, keys: ClusterKeys) -> None:
        self._topics, self._cluster = topics, keys
        self.keys: dict[bytes, Cipher] = {}
        self.seen = 0
        """Sealed records."""

    def open(self, records: Sequence[MemoryRecord]) -> Sequence[MemoryRecord]:
        if records[0].topic == self._topics.data_keys:
            for record in records:
                if record.value is not None and record.key is not None:
                    said = DataKey.model_validate_json(record.value)
                    key = self._cluster.unwrap(said.cluster_key, said.wrapped, record.key.decode())
                    assert key is not None
                    self.keys[record.key.partition(b"/")[2]] = Cipher(key)
            return records
        return [self._opened(record) for record in records]

    def _opened(self, record: MemoryRecord) -> MemoryRecord:
        if not record.headers or record.headers[0][0] != SEALED:
            return record
        self.seen += 1
        value = self.keys[record.headers[0][1]].open(record.value or b"", record.topic, record.key)
        return replace(record, value=value, headers=record.headers[1:])
