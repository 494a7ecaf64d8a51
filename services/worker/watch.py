"""Reads `nodes` and `credits` whole, without a group: who owns which mailbox, which routers live."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from services.worker.context import WorkerContext
from services.worker.credits import Routers
from services.worker.mailbox import MailboxRegistry
from shared.contracts import headers
from shared.contracts.credits import RouterPresence
from shared.contracts.node import Node
from shared.errors import LogError
from shared.kafka.port import Consumer, Log, Record, TopicPartition
from shared.processing.folding import fold_each
from shared.telemetry import logs

log = logs.get(__name__)

POLL_SECONDS = 1.0
PAUSE_SECONDS = 0.05
"""After records: most of `credits` is other nodes' business, and a router's presence may be heard this much later."""
RETRY_SECONDS = 0.5
_PRESENCE = b"router"


class Watch:
    """A fold that never ends. `on_node`: a record about this very node was read."""

    def __init__(self, here: WorkerContext, routers: Routers) -> None:
        self.registry = MailboxRegistry()
        self._node, self._clock, self._routers, self._on_router = here.node, here.clock, routers, here.places_changed.set
        self.on_node: Callable[[Node | None], None] = lambda _: None
        self._nodes, self._credits = TopicPartition(here.topics.nodes, 0), TopicPartition(here.topics.credits, 0)
        self._next = 0
        self._waiters = 0
        self._moved = asyncio.Event()
        self._consumer: Consumer | None = None

    async def start(self, log_: Log, client_id: str) -> None:
        """Begin at the first Node record and at the newest credits. Waits for Kafka."""
        self._consumer = await log_.consumer(client_id=client_id, reset="earliest")
        self._consumer.assign([self._nodes, self._credits])
        starts = await self._until_answered()
        self._consumer.seek(self._nodes, starts[0])
        self._consumer.seek(self._credits, starts[1])
        self._next = starts[0]

    async def _until_answered(self) -> tuple[int, int]:
        assert self._consumer is not None
        while True:
            try:
                first = await self._consumer.beginning_offsets([self._nodes])
                last = await self._consumer.end_offsets([self._credits])
                return first[self._nodes], last[self._credits]
            except LogError as error:
                log.warning("watch_waits", code=error.code)
                await self._clock.sleep(RETRY_SECONDS)

    async def run(self) -> None:
        """Fold for ever; Kafka's absence is waited out."""
        assert self._consumer is not None
        while True:
            try:
                found = await self._consumer.poll(timeout_seconds=POLL_SECONDS)
                fold_each("worker", found.get(self._credits, ()), self._on_credits_record)
                await self._on_node_records(found.get(self._nodes, ()))
                if found:
                    await self._clock.sleep(PAUSE_SECONDS)
            except LogError as error:
                log.warning("watch_failed", code=error.code)
                await self._clock.sleep(RETRY_SECONDS)

    async def _on_node_records(self, records: Sequence[Record]) -> None:
        assert self._consumer is not None
        fold_each("worker", records, self._on_node_record)
        if not records and not self._waiters:
            return
        # Compaction leaves holes and may take the last record away: only the position tells how far was read.
        self._next = await self._consumer.position(self._nodes)
        self._moved.set()
        self._moved.clear()

    async def read_to(self, offset: int) -> None:
        """Return when everything before `offset` of `nodes` is folded."""
        self._waiters += 1
        try:
            while self._next < offset:
                await self._moved.wait()
        finally:
            self._waiters -= 1

    async def caught_up(self) -> None:
        """Return when everything that lies in `nodes` now is folded. Raises LogError."""
        assert self._consumer is not None
        ends = await self._consumer.end_offsets([self._nodes])
        await self.read_to(ends[self._nodes])

    def _on_credits_record(self, record: Record) -> None:
        """Only presence is decoded: other nodes' credits are most of this topic."""
        if record.value is None or headers.find(record.headers, headers.TYPE) != _PRESENCE:
            return
        presence = RouterPresence.model_validate_json(record.value)
        if self._routers.on_presence(presence.router, presence.backlog, self._clock.monotonic(), leaving=presence.leaving):
            self._on_router()

    def _on_node_record(self, record: Record) -> None:
        name = (record.key or b"").decode("utf-8", "replace")
        if record.value is None:
            self.registry.on_gone(name)
            if name == self._node:
                self.on_node(None)
            return
        node = Node.model_validate_json(record.value)
        self.registry.on_node(node.id, node.boot, node.mailbox, self._clock.monotonic())
        if node.id == self._node:
            self.on_node(node)

    async def close(self) -> None:
        if self._consumer is not None:
            await self._consumer.close()
