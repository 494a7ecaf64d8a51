"""Facts: reads `nodes` from the beginning and `credits` from near the end, without a group, into registry and ledger."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from services.router.handlers import read_credits, read_node
from services.router.ledger import CreditLedger
from services.router.registry import NodeRegistry
from shared.clock import Clock
from shared.contracts.credits import Credits
from shared.errors import LogError
from shared.kafka.port import Consumer, Record, TopicPartition
from shared.processing.folding import fold_each
from shared.telemetry import logs
from shared.topics import Topics

log = logs.get(__name__)

T = TypeVar("T")

POLL_SECONDS = 1.0
RETRY_SECONDS = 0.5
CREDITS_BACK = 256
"""Records of `credits` that are read again at start: who is alive is known a second earlier."""


class Facts:
    """`changed(afresh)` is called after every poll that told something; `afresh`: a node came, went or is another."""

    def __init__(
        self,
        consumer: Consumer,
        topics: Topics,
        *,
        registry: NodeRegistry,
        ledger: CreditLedger,
        clock: Clock,
        changed: Callable[[bool], None],
    ) -> None:
        self._consumer = consumer
        self._nodes = TopicPartition(topics.nodes, 0)
        self._credits = TopicPartition(topics.credits, 0)
        self._topics = topics
        self._registry = registry
        self._ledger = ledger
        self._clock = clock
        self._changed = changed
        self.heard_at: float | None = None
        """Monotonic seconds of the last record on `credits`: this router's own presence is among them."""

    async def catch_up(self) -> None:
        """Begin to read, and return when every node registered so far is known. Waits for Kafka as long as it takes."""
        self._consumer.assign([self._nodes, self._credits])
        end = await self._patiently(self._begin)
        while await self._patiently(self._position) < end:
            await self._patiently(self._poll)

    async def _begin(self) -> int:
        both = (self._nodes, self._credits)
        first, last = await self._consumer.beginning_offsets(both), await self._consumer.end_offsets(both)
        self._consumer.seek(self._nodes, first[self._nodes])
        self._consumer.seek(self._credits, max(first[self._credits], last[self._credits] - CREDITS_BACK))
        return last[self._nodes]

    async def _position(self) -> int:
        return await self._consumer.position(self._nodes)

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            await self._patiently(self._poll)

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await call()
            except LogError as error:
                log.warning("facts_not_read", code=error.code, message=error.message)
                await self._clock.sleep(RETRY_SECONDS)

    async def _poll(self) -> None:
        batches = await self._consumer.poll(timeout_seconds=POLL_SECONDS)
        before = self._registry.version
        now = self._clock.monotonic()
        fold_each("router", batches.get(self._nodes, ()), lambda record: self._on_node(record, now))
        afresh = self._on_credits(batches.get(self._credits, ()), now)
        if batches:
            self._changed(afresh or self._registry.version != before)

    def _on_node(self, record: Record, now: float) -> None:
        if record.value is None:
            self._registry.on_tombstone((record.key or b"").decode(errors="replace"))
        else:
            self._registry.on_node(read_node(record), now)

    def _on_credits(self, records: Sequence[Record], now: float) -> bool:
        """Of each writer only the newest record counts: the others are void."""
        if records:
            self.heard_at = now
        told: list[str] = []

        def fold(record: Record) -> None:
            message = read_credits(record, self._topics.mailboxes)
            if isinstance(message, Credits) and self._ledger.on_credits(message, now):
                told.append(message.node)

        fold_each("router", {record.key: record for record in records}.values(), fold)
        return bool(told)
