"""Reads `nodes` whole and `credits` from now on: who owns which mailbox, which routers live."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from services.worker.credits import Routers
from services.worker.mailbox import MailboxRegistry
from services.worker.wiring import WorkerContext
from shared.contracts import headers
from shared.contracts.credits import RouterPresence
from shared.contracts.node import Node
from shared.kafka.port import Log, Record, TopicPartition
from shared.processing.folding import fold_each
from shared.processing.node_table import read_node
from shared.processing.tail import Tail

PAUSE_SECONDS = 0.05
"""After records: most of `credits` is other nodes' business, and a router's presence may be heard this much later."""
_PRESENCE = b"router"


class Watch:
    """A fold that never ends. `on_node`: a record about this very node was read."""

    def __init__(self, here: WorkerContext, routers: Routers, log: Log, client_id: str) -> None:
        self.registry = MailboxRegistry()
        self.incarnation: int | None = None
        """The offset of this boot's first record in `nodes`, once it is read."""
        self._node, self._boot, self._clock = here.node, here.boot, here.clock
        self._routers, self._on_router = routers, here.places_changed.set
        self.on_node: Callable[[Node | None], None] = lambda _: None
        self.on_credits: Callable[[Record], None] = lambda _: None
        """A record of some node's credits."""
        self._nodes = TopicPartition(here.topics.nodes, 0)
        self._tail = Tail(
            log,
            here.clock,
            [self._nodes, TopicPartition(here.topics.credits, 0)],
            client_id=client_id,
            begin=lambda partition, first, end: first if partition == self._nodes else end,
            handle=self._on_records,
            pause_seconds=PAUSE_SECONDS,
        )

    async def run(self) -> None:
        """Fold for ever; Kafka's absence is waited out."""
        await self._tail.run()

    async def read_to(self, offset: int) -> None:
        """Return when everything before `offset` of `nodes` is folded."""
        await self._tail.read_to({self._nodes: offset})

    async def caught_up(self) -> None:
        """Return when everything that lies in `nodes` now is folded. Raises LogError."""
        await self._tail.read_to_end(self._nodes)

    def _on_records(self, partition: TopicPartition, records: Sequence[Record]) -> None:
        fold_each("worker", records, self._on_node_record if partition == self._nodes else self._on_credits_record)

    def _on_credits_record(self, record: Record) -> None:
        """Only presence is decoded: other nodes' credits are most of this topic."""
        if record.value is None or headers.find(record.headers, headers.TYPE) != _PRESENCE:
            self.on_credits(record)
            return
        presence = RouterPresence.model_validate_json(record.value)
        if self._routers.on_presence(presence.router, presence.backlog, self._clock.monotonic(), leaving=presence.leaving):
            self._on_router()

    def _on_node_record(self, record: Record) -> None:
        name, node = read_node(record)
        if node is None:
            self.registry.on_gone(name)
        else:
            self.registry.on_node(node, self._clock.monotonic())
        if name == self._node:
            if node is not None and node.boot == self._boot and self.incarnation is None:
                self.incarnation = record.offset
            self.on_node(node)
