"""NodesReader: the whole `nodes` topic into the registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from services.ingress.registry import Registry
from shared.clock import Clock
from shared.contracts.node import Node
from shared.kafka.port import Consumer, Log, Record, TopicPartition
from shared.kafka.tail import Tail
from shared.telemetry import logs

_log = logs.get(__name__)


class NodesReader:
    """One partition, from its beginning. An unreadable registration is skipped: the worker will register again."""

    def __init__(self, log: Log, clock: Clock, topic: str, instance: str, registry: Registry) -> None:
        self._clock = clock
        self._registry = registry
        self._partition = TopicPartition(topic, 0)
        self.tail = Tail(
            log,
            clock,
            [self._partition],
            client_id=f"tutti-ingress-nodes-{instance}",
            service="ingress",
            start=self._from_beginning,
            handle=self._on_records,
        )

    async def _from_beginning(self, _consumer: Consumer) -> Mapping[TopicPartition, int]:
        return {self._partition: 0}

    def _on_records(self, _partition: TopicPartition, records: Sequence[Record]) -> None:
        now = self._clock.monotonic()
        for record in records:
            if record.key is None:
                continue
            try:
                node = None if record.value is None else Node.model_validate_json(record.value)
            except ValidationError:
                _log.warning("node_unreadable", offset=record.offset)
                continue
            self._registry.apply(record.key.decode("utf-8", "replace"), node, now)
        self._registry.refresh(now)
