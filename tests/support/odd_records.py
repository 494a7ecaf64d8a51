"""Records of every odd kind, for any topic: what a foreign client, an older or a newer process, or a disk may leave there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shared.contracts.base import VERSION
from shared.kafka.memory import MemoryLog
from shared.kafka.port import Message, TopicPartition

FAMILIES = ("jobs", "outcomes", "steps", "work", "controls", "nodes", "credits", "registry", "delays", "replies", "job-events")
"""Topics that services read."""
"""Not on job-events: history of a newer planner is left to one, see test_planner_upgrades."""
Write = Callable[[MemoryLog, TopicPartition], None]
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


def _absurd(log: MemoryLog, tp: TopicPartition, number: bytes) -> None:
    """A record of every type, each with every field that anything here has, and this number in all of them."""
    for kind in _TYPES:
        _of(_ABSURD.replace(b"%s", kind.encode(), 1).replace(b"%s", number), ("type", kind.encode()))(log, tp)


def _of(value: bytes | None, *headers: tuple[str, Any], key: bytes | None = b"odd") -> Write:
    def write(log: MemoryLog, tp: TopicPartition) -> None:
        log.write(tp, [Message(tp.topic, value, key, tp.partition, tuple(headers))])

    return write


def _far(log: MemoryLog, tp: TopicPartition) -> None:
    """Names mailboxes and homes that no topic has, in every kind of message."""
    of = b'"job":"gone","step":"' + b"5" * 32 + b'","attempt":1,"node":"n","claim":"n.b.1"'
    for value in (
        b'{"type":"claimed",' + of + b',"mailbox":999,"lease_seconds":20.0}',
        b'{"type":"routed",' + of + b',"mailbox":999,"offset":1}',
        b'{"type":"budget_requested","tenant":"t","day":0,"home":999,"serial":1,"least":{}}',
        b'{"job":"gone","id":"' + b"5" * 32 + b'","home":999}',
        b'{"topic":"jobs.standard","partition":999,"due_at":1.0,"value":""}',
        b'{"id":"far","boot":"b","mailbox":999,"backend":"ollama","models":[{"name":"small:1b","size_bytes":1}],"at":0}',
        b'{"type":"credits","node":"far","boot":"b","sequence":0,"mailbox":999,"offers":{"router-1-1":50},"read":{"chat":0}}',
    ):
        _of(value)(log, tp)


KINDS: dict[str, Write] = {
    "not JSON": _of(b'{"prompt": '),
    "no object": _of(b'["a", 1, null]'),
    "wrong types": _of(b'{"type": 7, "job": [], "prompt": {}, "id": {}, "models": "x", "epoch": "x", "chunks": 1}'),
    "unknown mailbox or home": _far,
    "headers without a value": _of(b"{}", ("type", None), ("version", None), ("node", None), ("reply-topic", None), ("traceparent", None)),
    "a header name of odd bytes": _of(b"{}", ("cl\\xe9", b"x"), ("", b"")),
    "a header name of 20 kB": _of(b"{}", ("n" * 20_000, b"x")),
    "header values of odd bytes": _of(
        b"{}", ("type", b"\xff"), ("node", b"\xff"), ("reply-topic", b"\xff"), ("correlation-id", b"\xff" * 999)
    ),
    "no key": _of(b"{}", key=None),
    "a key of odd bytes": _of(b"{}", key=b"\xff/\x00"),
    "a huge key": _of(b"{}", key=b"k" * 100_000),
    "no value": _of(None),
    "neither": _of(None, key=None),
    "a newer version": _of(b"{}", ("version", str(VERSION + 1).encode())),
    "a garbled version": _of(b"{}", ("version", b"\xff9")),
    "huge": _of(b'{"prompt": "%s"}' % (b"x" * 900_000)),
    "deep": _of(b"[" * 100_000),
    "deep objects": _of(b'{"a":' * 50_000),
    "an unknown type": _of(b'{"type": "nobody", "prompt": 1}', ("type", b"nobody")),
    "numbers beyond all bounds": lambda log, tp: _absurd(log, tp, b"9" * 310),
    "vast numbers": lambda log, tp: _absurd(log, tp, b"9007199254740992"),
    "a batch that nobody can unpack": lambda log, tp: log.spoil(tp, 3),
}
"""Name → how it is written to a partition."""
