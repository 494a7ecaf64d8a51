"""RegistryReader: follows the `registry` topic from its beginning, so that a service always holds what administrators declared.

Keys are `kind/name`. The newest entry of a key counts; one without a value removes it. Each service folds the kinds that it knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from shared.clock import Clock
from shared.errors import TooLarge
from shared.kafka.port import Log, Record, TopicPartition
from shared.processing.folding import fold_each
from shared.processing.tail import Tail
from shared.topics import Topics

ENTRY_BYTES = 64 * 1024
"""Largest entry."""

OnEntry = Callable[[str, str, bytes | None], None]
"""(kind, name, value): called in log order. When it raises, the entry is passed over."""


def registry_key(kind: str, name: str) -> bytes:
    """The key of an entry."""
    return f"{kind}/{name}".encode()


class RegistryReader:
    """Run `run` as a task; entries of kinds that nobody asked for are passed over."""

    def __init__(self, log_: Log, clock: Clock, topics: Topics, *, client_id: str, service: str, kinds: Mapping[str, OnEntry]) -> None:
        self._kinds, self._service = kinds, service
        self._tail = Tail(
            log_,
            clock,
            [TopicPartition(topics.registry, 0)],
            client_id=client_id,
            handle=self._on_records,
        )

    async def run(self) -> None:
        """Read until cancelled."""
        await self._tail.run()

    def caught_up(self) -> bool:
        """Whether everything that was declared when reading began is known."""
        return self._tail.caught_up()

    def _on_records(self, _partition: TopicPartition, records: Sequence[Record]) -> None:
        fold_each(self._service, records, self._on_record)

    def _on_record(self, record: Record) -> None:
        kind, separator, name = (record.key or b"").decode(errors="replace").partition("/")
        on_entry = self._kinds.get(kind)
        if on_entry is None or not separator or not name:
            return
        if record.value is not None and len(record.value) > ENTRY_BYTES:
            raise TooLarge(f"the entry has {len(record.value)} bytes; at most {ENTRY_BYTES} are allowed")
        on_entry(kind, name, record.value)
