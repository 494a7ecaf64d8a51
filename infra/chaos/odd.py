"""Odd records: what a foreign client, an older or a newer process may leave on any topic. None of them may cost anybody else anything."""

from __future__ import annotations

from collections.abc import Iterator

from infra.verify.report import Place
from shared.clock import Clock
from shared.contracts.base import INLINE_BYTES, VERSION
from shared.errors import LogError
from shared.kafka.aio import AioLog
from shared.kafka.port import Message
from shared.topics import Topics

_NEWER = str(VERSION + 1).encode()
_ODD: tuple[tuple[bytes | None, tuple[tuple[str, bytes], ...]], ...] = (
    (b'{"prompt": ', ()),
    (b'["a", 1, null]', ()),
    (b'{"type": 7, "job": [], "prompt": {}, "id": {}, "models": "x", "epoch": "x", "chunks": 1}', ()),
    (b"{}", (("version", _NEWER),)),
    (b"{}", (("version", b"\xff9"), ("type", b"\xff"), ("reply-topic", b"\xff"), ("correlation-id", b"\xff" * 999))),
    (b'{"prompt": "q", "limits": {"cost": 1e303, "tokens": ' + b"9" * 310 + b"}}", ()),
    (b'{"prompt": "' + b"x" * (INLINE_BYTES + 4_096) + b'"}', ()),
    (b"[" * 10_000, ()),
    (None, ()),
)
"""(value, headers). Names of headers that are not UTF-8 and batches that nobody can unpack need a client that writes bytes; they are
tested elsewhere.
"""


def messages(topics: Topics) -> Iterator[Message]:
    """Each on every partition of every topic; once more without a key where Kafka allows that."""
    for topic in topics.all():
        keys = (b"odd\xff/key",) if "compact" in topic.family.cleanup else (b"odd\xff/key", None)
        for partition in range(topic.partitions):
            for value, headers in _ODD:
                for key in keys:
                    yield Message(topic.name, value, key, partition, headers)


async def write(servers: str, topics: Topics, clock: Clock) -> set[Place]:
    """Write them all; returns where they lie. Raises LogError when Kafka does not take one."""
    log = AioLog(servers, clock)
    producer = await log.producer(client_id="chaos-odd")
    try:
        fates = await producer.send_many(list(messages(topics)))
    finally:
        await producer.close()
        await log.close()
    for fate in fates:
        if isinstance(fate, Exception):
            raise LogError("an odd record was not taken") from fate
    return {Place(fate.topic, fate.partition, fate.offset) for fate in fates if not isinstance(fate, Exception)}
