"""Reads `nodes` and `registry` whole and `presence` from now on: who owns which mailbox, what administrators say of this node, which
routers and planners live. `credits` only now and then: most of it is other nodes' business.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from math import inf
from typing import Any

from services.worker.health import Health
from services.worker.mailbox import MailboxRegistry
from services.worker.wiring import WorkerContext
from shared.contracts import headers
from shared.contracts.credits import PlannerPresence, RouterPresence
from shared.contracts.node import Node
from shared.kafka.port import Log, Record, TopicPartition
from shared.placement.facts import DEAF_SECONDS
from shared.placement.parties import MOST_PARTIES, Parties, name_of
from shared.processing.folding import fold_each
from shared.processing.node_table import read_node
from shared.processing.registry import OnEntry, told
from shared.processing.tail import ASKED_WAIT_MS, Tail, at_end

PAUSE_SECONDS = 0.9
"""Between two looks at `credits`: below the time after which a router is gone, and an earlier boot silent (`DEAF_SECONDS`); and below a
second without a poll, after which a reader asks anew which topic it reads.
"""
_PRESENCE: dict[bytes | None, type[RouterPresence | PlannerPresence]] = {b"router": RouterPresence, b"planner": PlannerPresence}


class Watch:
    """A fold that never ends. `on_node`: a record about this very node was read."""

    def __init__(self, here: WorkerContext, parties: Parties, log: Log, client_id: str, health: Health) -> None:
        self.registry = MailboxRegistry()
        self.incarnation: int | None = None
        """The offset of this boot's first record in `nodes`, once it is read."""
        self._node, self._boot, self._clock, self._topics = here.node, here.boot, here.clock, here.topics
        self._parties, self._on_party, self._health = parties, here.places_changed.set, health
        self._known_apart: set[str] = set()
        """Those that write to `presence`."""
        self.on_node: Callable[[Node | None], None] = lambda _: None
        self.on_credits: Callable[[Record], None] = lambda _: None
        """A record of some node's credits."""
        self.earlier: Node | None = None
        """What an earlier boot of this node has told of it, if it did not leave."""
        self.heard_at: dict[str, float] = {}
        """When each registered node last told of its places, monotonic seconds."""
        self.kinds: dict[str, OnEntry] = {}
        """Of the registry's entries, and who is told of them."""
        self._nodes, self._presence = TopicPartition(here.topics.nodes, 0), TopicPartition(here.topics.presence, 0)
        self._declared = TopicPartition(here.topics.registry, 0)
        self._partitions = [self._nodes]
        self._tail = Tail(
            log,
            here.clock,
            self._partitions,
            client_id=client_id,
            begin=lambda partition, first, end: end if partition == self._presence else first,
            handle=self._on_records,
            fetch_max_wait_ms=ASKED_WAIT_MS,
        )
        self._slow = Tail(
            log,
            here.clock,
            [TopicPartition(here.topics.credits, 0)],
            client_id=f"{client_id}-credits",
            begin=at_end,
            handle=self._on_credits,
            pause_seconds=PAUSE_SECONDS,
        )

    def parts(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """What folds for ever; Kafka's absence is waited out. A cluster of before has no `presence`."""
        self._partitions += [tp for tp in (self._presence, self._declared) if tp.topic not in self._topics.missing]
        return self._tail.run(), self._slow.run()

    def live(self, silent_seconds: float) -> list[Node]:
        """Nodes that were heard of late; none while this very node is not heard: then it is the reader who is deaf."""
        now = self._clock.monotonic()
        found = [node for node in self.registry.nodes() if now - self.heard_at.get(node.id, -inf) <= silent_seconds]
        return found if now - self.heard_at.get(self._node, -inf) <= DEAF_SECONDS else []

    async def read_to(self, offset: int) -> None:
        """Return when everything before `offset` of `nodes` is folded."""
        await self._tail.read_to({self._nodes: offset})

    async def caught_up(self) -> None:
        """Return when everything that lies in `nodes` now is folded, and what was declared before. Raises LogError."""
        await self._tail.read_to_end(*(tp for tp in self._partitions if tp != self._presence))

    def _on_records(self, partition: TopicPartition, records: Sequence[Record]) -> None:
        of = {self._nodes: self._on_node_record, self._presence: self._on_presence, self._declared: self._on_entry}
        fold_each("worker", records, of[partition])

    def _on_entry(self, record: Record) -> None:
        told(record, self.kinds)

    def _on_presence(self, record: Record) -> None:
        said = _presence(record)
        if said is not None:
            if len(self._known_apart) < MOST_PARTIES:
                self._known_apart.add(name_of(said))
            self._on_said(said)

    def _on_credits(self, _: TopicPartition, records: Sequence[Record]) -> None:
        """Only presence is decoded: credits are most of this topic."""
        fold_each("worker", records, self._on_credits_record)

    def _on_credits_record(self, record: Record) -> None:
        said = _presence(record)
        if said is None:
            self.on_credits(record)
            name = (record.key or b"").decode("utf-8", "replace")
            self._health.on_credits(name)
            if name in self.registry:
                self.heard_at[name] = self._clock.monotonic()
        elif name_of(said) not in self._known_apart:  # else this is older than what is known
            self._on_said(said)

    def _on_said(self, said: RouterPresence | PlannerPresence) -> None:
        if self._parties.on_presence(said, self._clock.monotonic()):
            self._on_party()

    def _on_node_record(self, record: Record) -> None:
        name, node = read_node(record)
        if node is None:
            self.registry.on_gone(name)
            self.heard_at.pop(name, None)
        else:
            self.registry.on_node(node, self._clock.monotonic())
        self._health.on_node(name, node, record.timestamp)
        if name == self._node:
            if node is not None and node.boot == self._boot and self.incarnation is None:
                self.incarnation = record.offset
            if node is None or node.boot != self._boot:
                self.earlier = node
            self.on_node(node)


def _presence(record: Record) -> RouterPresence | PlannerPresence | None:
    """None: it is a node's."""
    kind = _PRESENCE.get(headers.find(record.headers, headers.TYPE))
    return None if kind is None or record.value is None else kind.model_validate_json(record.value)
