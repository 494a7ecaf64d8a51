"""Odd records: what a foreign client, an older or a newer process may leave on any topic. None of them may cost anybody else anything.

`KINDS` is the one list: a chaos run writes it to a real Kafka, the simulation to its log.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from infra.verify.report import RecordPlace
from shared.clock import Clock
from shared.contracts.base import INLINE_BYTES, VERSION
from shared.errors import LogError
from shared.kafka.client.aio import AioLog
from shared.kafka.port import Message
from shared.topics import Topics


class Odd(NamedTuple):
    """One record. The value of a header may be missing."""

    value: bytes | None
    headers: tuple[tuple[str, Any], ...] = ()
    key: bytes | None = b"odd"


_ABSURD = (
    b'{"type":"%s","id":"x","job":"x","step":"' + b"0" * 32 + b'","node":"n","claim":"c","boot":"b","mailbox":%s,"home":%s,'
    b'"attempt":%s,"lease_seconds":1e308,"prompt":"q","limits":{"cost":1e303,"tokens":%s},"needs":{"min_vram_bytes":%s},"due_at":1e308,'
    b'"topic":"nowhere","value":"","at":1e308,"tenant":"t","day":%s,"serial":%s,"least":{"calls":%s},"total":{"micros":%s},"offset":%s,'
    b'"epoch":%s,"router":"r","backlog":%s,"sequence":%s,"offers":{"r":%s},"read":{"chat":%s},"backend":"ollama","models":[],'
    b'"correlation":"","result":{},"chunks":[],"deadline_at":1e308,"usage":{"calls":%s,"cost":1e308},"answer":{"text":""},"reason":""}'
)
_TYPES = (
    *("job", "step", "node", "router", "credits", "claimed", "routed", "renewed", "succeeded", "failed", "released", "cancel"),
    *("stream_position", "budget_requested", "budget_granted", "stop", "drain", "chunks", "final", "stream_broken", "delayed"),
    *("job_accepted", "job_settled", "job_snapshot", "step_asked", "tenant_share", "tenant_account", "schedule_fired"),
)
_PLACE = b'"job":"gone","step":"' + b"5" * 32 + b'","attempt":1,"node":"n","claim":"n.b.1"'
_NEWER = str(VERSION + 1).encode()


def _absurd(number: bytes) -> tuple[Odd, ...]:
    """A record of every type, each with every field that anything here has, and this number in all of them."""
    kinds = [name.encode() for name in _TYPES]
    return tuple(Odd(_ABSURD.replace(b"%s", kind, 1).replace(b"%s", number), (("type", kind),)) for kind in kinds)


KINDS: dict[str, tuple[Odd, ...]] = {
    "not JSON": (Odd(b'{"prompt": '),),
    "no object": (Odd(b'["a", 1, null]'),),
    "wrong types": (Odd(b'{"type": 7, "job": [], "prompt": {}, "id": {}, "models": "x", "epoch": "x", "chunks": 1}'),),
    "unknown mailbox or home": (
        Odd(b'{"type":"claimed",' + _PLACE + b',"mailbox":999,"lease_seconds":20.0}'),
        Odd(b'{"type":"routed",' + _PLACE + b',"mailbox":999,"offset":1}'),
        Odd(b'{"type":"budget_requested","tenant":"t","day":0,"home":999,"serial":1,"least":{}}'),
        Odd(b'{"job":"gone","id":"' + b"5" * 32 + b'","home":999}'),
        Odd(b'{"topic":"jobs.standard","partition":999,"due_at":1.0,"value":""}'),
        Odd(b'{"id":"far","boot":"b","mailbox":999,"backend":"ollama","models":[{"name":"small:1b","size_bytes":1}],"at":0}'),
        Odd(b'{"type":"credits","node":"far","boot":"b","sequence":0,"mailbox":999,"offers":{"router-1-1":50},"read":{"chat":0}}'),
    ),
    "headers without a value": (Odd(b"{}", tuple((name, None) for name in ("type", "version", "node", "reply-topic", "traceparent"))),),
    "a header name of odd bytes": (Odd(b"{}", (("cl\\xe9", b"x"), ("", b""))),),
    "a header name of 20 kB": (Odd(b"{}", (("n" * 20_000, b"x"),)),),
    "header values of odd bytes": (
        Odd(b"{}", (("type", b"\xff"), ("node", b"\xff"), ("reply-topic", b"\xff"), ("correlation-id", b"\xff" * 999))),
    ),
    "no key": (Odd(b"{}", key=None),),
    "a key of odd bytes": (Odd(b"{}", key=b"\xff/\x00"),),
    "a huge key": (Odd(b"{}", key=b"k" * 100_000),),
    "no value": (Odd(None),),
    "neither": (Odd(None, key=None),),
    "a newer version": (Odd(b"{}", (("version", _NEWER),)),),
    "a garbled version": (Odd(b"{}", (("version", b"\xff9"),)),),
    "large": (Odd(b'{"promt": "%s"}' % (b"x" * (INLINE_BYTES + 4_096))),),
    "huge": (Odd(b'{"promt": "%s"}' % (b"x" * 900_000)),),
    "deep": (Odd(b"[" * 100_000),),
    "deep objects": (Odd(b'{"a":' * 50_000),),
    "an unknown type": (Odd(b'{"type": "nobody", "prompt": 1}', (("type", b"nobody"),)),),
    "numbers beyond all bounds": _absurd(b"9" * 310),
    "vast numbers": _absurd(b"9007199254740992"),
}
"""Name → records of that kind. Names of headers that are not UTF-8 (here as a reader shows them) and batches that nobody can unpack need a
client that writes bytes; they are tested elsewhere.
"""
_LEFT_OUT = ("huge", "headers without a value")
"""Of a chaos run: on 200 partitions at once the first is a load of its own, and our producer writes no header without a value."""


def messages(topics: Topics) -> Iterator[Message]:
    """One of each kind on every partition of every topic, few enough for the dead-letter cap; without a key where Kafka allows that."""
    for topic in topics.all():
        for partition in range(topic.partitions):
            for kind, (odd, *_) in KINDS.items():
                if kind not in _LEFT_OUT and (odd.key is not None or "compact" not in topic.family.cleanup):
                    yield Message(topic.name, odd.value, odd.key, partition, odd.headers)


async def write(servers: str, topics: Topics, clock: Clock) -> set[RecordPlace]:
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
    return {RecordPlace(fate.topic, fate.partition, fate.offset) for fate in fates if not isinstance(fate, Exception)}
