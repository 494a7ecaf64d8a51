"""Nodes as people are shown them: what each registered, whether it is heard, what is wrong with it. Command and API show the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field, ValidationError

from shared.contracts.base import Count, NodeId, Seconds
from shared.contracts.credits import CREDITS, Credits
from shared.contracts.node import Advice, Node
from shared.kafka.port import Log, Record, TopicPartition
from shared.placement.advice import SILENT_SECONDS, advice
from shared.processing.tail import stretches
from shared.topics import Topics

RECORDS_BACK = 4_096
"""Of `credits`, which are looked at for who is alive: each node writes at least one a second."""
STALE_SECONDS = 150.0
"""A worker registers on change and at least every 60 s: two missed and a half. Where `credits` say nothing."""

State = Literal["live", "silent", "asleep", "unreachable", "maintenance", "yields", "draining", "paused"]


class ShownNode(Node):
    """A node with its state in one word, and all advice."""

    state: State = "live"
    silent_seconds: Seconds = 0.0
    """Since its worker last told of its places, as far as is known."""
    running: Count = 0
    queued_tokens: Count = 0
    advice: tuple[Advice, ...] = Field(default=(), max_length=64)


@dataclass(frozen=True, slots=True)
class LastHeard:
    """The newest credits of each node, and how many seconds before the newest record of all they were written, by the brokers' clock."""

    credits: Mapping[NodeId, tuple[Credits, float]] = field(default_factory=dict)
    span: float = 0.0
    """Seconds that were looked at: who is not among them has been silent for longer."""

    def of(self, node: Node) -> tuple[Credits, float] | None:
        """The node's newest credits and their age; None where there are none of this very boot."""
        found = self.credits.get(node.id)
        return found if found is not None and found[0].boot == node.boot else None


async def heard(log: Log, topics: Topics, client_id: str) -> LastHeard:
    """Who told of its places of late. Reads a bounded end of `credits`, without a group. Raises LogError."""
    tp = TopicPartition(topics.credits, 0)
    consumer = await log.consumer(client_id=client_id, fetch_max_wait_ms=50)
    newest: dict[bytes | None, Record] = {}
    try:
        end = (await consumer.end_offsets([tp]))[tp]
        times: list[float] = []
        async for records in stretches(consumer, {tp: (max(0, end - RECORDS_BACK), end)}):
            newest |= {record.key: record for record in records}
            times += [record.timestamp / 1e3 for record in records[:1]] + [record.timestamp / 1e3 for record in records[-1:]]
    finally:
        await consumer.close()
    latest = max(times, default=0.0)
    told = [(read, latest - record.timestamp / 1e3) for record in newest.values() if (read := _credits(record)) is not None]
    return LastHeard({one.node: (one, max(0.0, age)) for one, age in told}, latest - min(times, default=0.0))


def _credits(record: Record) -> Credits | None:
    """None: of a router or a planner, or of a form that is not known here."""
    try:
        found = CREDITS.validate_json(record.value or b"")
    except ValidationError:
        return None
    return found if isinstance(found, Credits) else None


def shown(node: Node, heard_of: LastHeard, now: float) -> ShownNode:
    """`now`: this machine's clock, seconds since 1970: the registration's age by it is a hint, nothing is decided by it."""
    announced, told = max(0.0, now - node.at), heard_of.of(node)
    own, silent = told or (None, max(heard_of.span, announced if announced > STALE_SECONDS else 0.0))
    if own is not None and own.resident:
        models = tuple(model.model_copy(update={"resident": model.name in own.resident}) for model in node.models)
        node = node.model_copy(update={"models": models})
    return ShownNode(
        **{**dict(node), "advice": tuple(advice(node, silent, announced))},
        state=state(node, silent, announced),
        silent_seconds=silent,
        running=own.running if own is not None else 0,
        queued_tokens=own.queued_tokens if own is not None else 0,
    )


def state(node: Node, silent_seconds: float, announced_seconds: float) -> State:
    """What keeps it from work, the strongest first."""
    if node.asleep:
        return "asleep"
    if silent_seconds > SILENT_SECONDS:
        return "silent"
    if not node.reachable:
        return "unreachable"
    if node.maintenance:
        return "maintenance"
    if node.yields:
        return "yields"
    if node.draining:
        return "draining"
    return "paused" if node.pause_seconds > announced_seconds else "live"
