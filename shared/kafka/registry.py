"""RegistryReader: follows the `registry` topic from its beginning, so that a service always holds what administrators declared.

Keys are `kind/name`. The newest entry of a key counts; one without a value removes it. Each service folds the kinds that it knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from shared.clock import Clock
from shared.kafka.port import Consumer, Log, Record, TopicPartition
from shared.kafka.tail import Tail
from shared.telemetry import logs
from shared.topics import Topics

log = logs.get(__name__)

ENTRY_BYTES = 64 * 1024
"""Largest entry."""

OnEntry = Callable[[str, str, bytes | None], None]
"""(kind, name, value): called in log order. What it raises as ValueError (a pydantic error is one) is logged, and the entry ignored."""


def registry_key(kind: str, name: str) -> bytes:
    """The key of an entry."""
    return f"{kind}/{name}".encode()


class RegistryReader:
    """Run `run` as a task; entries of kinds that nobody asked for are passed over."""

    def __init__(self, log_: Log, clock: Clock, topics: Topics, *, client_id: str, service: str, kinds: Mapping[str, OnEntry]) -> None:
        self._kinds = kinds
        self._tail = Tail(
            log_,
            clock,
            [TopicPartition(topics.registry, 0)],
            client_id=client_id,
            service=service,
            start=_beginning,
            handle=self._on_records,
        )

    async def run(self) -> None:
        """Read until cancelled."""
        await self._tail.run()

    def caught_up(self) -> bool:
        """Whether everything that was declared when reading began is known."""
        return self._tail.caught_up()

    def _on_records(self, partition: TopicPartition, records: Sequence[Record]) -> None:
        for record in records:
            kind, separator, name = (record.key or b"").decode(errors="replace").partition("/")
            on_entry = self._kinds.get(kind)
            if on_entry is None or not separator or not name:
                continue
            if record.value is not None and len(record.value) > ENTRY_BYTES:
                log.warning("registry_entry_ignored", kind=kind, offset=record.offset, reason="too large")
                continue
            try:
                on_entry(kind, name, record.value)
            except ValueError:
                log.warning("registry_entry_ignored", kind=kind, offset=record.offset, reason="not valid")


async def _beginning(consumer: Consumer) -> Mapping[TopicPartition, int]:
    return await consumer.beginning_offsets(list(consumer.assignment()))
