"""NodesReader: the whole `nodes` topic into the registry."""

from __future__ import annotations

from collections.abc import Sequence

from services.ingress.registry import Registry
from shared.clock import Clock
from shared.contracts.node import Node
from shared.errors import InvalidRecord
from shared.kafka.port import Log, Record, TopicPartition
from shared.processing.folding import fold_each
from shared.processing.tail import Tail


class NodesReader:
    """One partition, from its beginning. An unreadable registration is skipped: the worker will register again."""

    def __init__(self, log: Log, clock: Clock, topic: str, instance: str, registry: Registry) -> None:
        self._clock = clock
        self._registry = registry
        self.tail = Tail(
            log,
            clock,
            [TopicPartition(topic, 0)],
            client_id=f"tutti-ingress-nodes-{instance}",
            handle=self._on_records,
        )

    def _on_records(self, _partition: TopicPartition, records: Sequence[Record]) -> None:
        now = self._clock.monotonic()
        fold_each("ingress", records, lambda record: self._on_record(record, now))
        self._registry.refresh(now)

    def _on_record(self, record: Record, now: float) -> None:
        if record.key is None:
            raise InvalidRecord("a registration needs the node's id as its key")
        node = None if record.value is None else Node.model_validate_json(record.value)
        self._registry.apply(record.key.decode("utf-8", "replace"), node, now)
