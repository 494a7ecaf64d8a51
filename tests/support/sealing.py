"""A log that seals, for tests: every topic of it, or those of the registry."""

from __future__ import annotations

from pathlib import Path

from shared.clock import Clock
from shared.kafka.port import Log, NewTopic
from shared.sealing.cipher import ClusterKeys, new_key, written
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
