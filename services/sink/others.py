"""Dead letters, announcements of nodes and acts of administrators as documents. No body, key or header of a letter: Kafka has those."""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import blake2b

from pydantic import ValidationError

from services.sink.fold import day_of
from services.sink.port import ACTS, LETTERS, NODES, Document, Writes
from shared.contracts import headers
from shared.contracts.act import Act
from shared.contracts.base import VERSION
from shared.contracts.bounds import explain
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.node import Node
from shared.errors import InvalidRecord
from shared.kafka.port import Record

_MOST_TOLD = 300


def keep_letter(record: Record, letter: DeadLetter, writes: Writes, days: int) -> None:
    """By where the original lay, so that who was refused twice is one letter."""
    upsert = writes.upsert(LETTERS, _document_of(letter))
    upsert.fields.update(
        topic=letter.topic, partition=letter.partition, offset=letter.offset, service=letter.service, code=letter.code,
        reason=letter.reason[:_MOST_TOLD], at=letter.at,
    )  # fmt: skip
    upsert.most["expires_at"] = _until(record, days)


def keep_replay(letter: DeadLetter, by: str, at: float, writes: Writes) -> None:
    """That somebody sends it again: beside what the log says of it, in fields of its own. `at`: epoch seconds."""
    writes.upsert(LETTERS, _document_of(letter)).fields[f"replays.{round(1e3 * at)}"] = {"by": by, "at": at}


def _document_of(letter: DeadLetter) -> str:
    return f"{letter.topic}/{letter.partition}/{letter.offset}/{letter.timestamp}"


def keep_node(record: Record, name: str, node: Node | None, writes: Writes, days: int) -> None:
    """A document for all announcements of one life of a node that say the same, and one when it left."""
    told = {"left": True} if node is None else _description(node)
    life = "" if node is None else node.boot
    same = blake2b(repr((record.timestamp if node is None else 0, life, told)).encode("utf-8", "replace"), digest_size=16).hexdigest()
    upsert = writes.upsert(NODES, f"{name}/{same}")
    upsert.fields.update(node=name, boot=life, **told)
    upsert.least["from_ms"] = min(record.timestamp, upsert.least.get("from_ms", record.timestamp))
    upsert.most["to_ms"] = max(record.timestamp, upsert.most.get("to_ms", 0))
    upsert.most["expires_at"] = _until(record, days)


def _description(node: Node) -> Document:
    return {
        "backend": node.backend,
        "version": node.version,
        "simulated": node.simulated,
        "slots": node.slots,
        "capabilities": list(node.capabilities),
        "models": [model.name for model in node.models],
        "resident": [model.name for model in node.models if model.resident],
        "ram_bytes": node.hardware.ram_bytes,
        "vram_bytes": node.hardware.vram_bytes,
        "accelerator": node.hardware.accelerator or "",
        "draining": node.draining,
        "reachable": node.reachable,
    }


def read_act(record: Record) -> Act:
    """Raises InvalidRecord."""
    if headers.Envelope(record.headers).version() > VERSION:
        raise InvalidRecord("the act's version is newer than this service")
    try:
        return Act.model_validate_json(record.value or b"")
    except ValidationError as error:
        raise InvalidRecord(explain(error, "act")) from None


def keep_act(record: Record, writes: Writes, days: int) -> None:
    """By where its record lies, so that reading it again changes nothing; a topic made anew has other times. Raises InvalidRecord."""
    act = read_act(record)
    upsert = writes.upsert(ACTS, f"{record.offset}/{record.timestamp}")
    upsert.fields.update(act.model_dump(mode="json", exclude_none=True), at=max(0, record.timestamp) / 1000, said_at=act.at)
    upsert.most["expires_at"] = _until(record, days)


def _until(record: Record, days: int) -> datetime:
    """Of the record's arrival, by the day."""
    return day_of(record.timestamp) + timedelta(days=days)
