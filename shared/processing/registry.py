"""Following the `registry` topic from its beginning, so that a service always holds what administrators declared.

Keys are `kind/name`. The newest entry of a key counts; one without a value removes it. Each service folds the kinds that it knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from shared.clock import Clock
from shared.contracts.budget import TenantLimits
from shared.errors import TooLarge
from shared.kafka.port import Log, Record, TopicPartition
from shared.processing.folding import fold_each
from shared.processing.tail import Tail
from shared.telemetry import logs
from shared.topics import Topics

log = logs.get(__name__)

ENTRY_BYTES = 64 * 1024
"""Largest entry."""
MOST_TENANTS = 10_000

OnEntry = Callable[[str, str, bytes | None], None]
"""(kind, name, value): called in log order. When it raises, the entry is passed over."""


def registry_key(kind: str, name: str) -> bytes:
    """The key of an entry."""
    return f"{kind}/{name}".encode()


def follow_registry(log_: Log, clock: Clock, topics: Topics, *, client_id: str, service: str, kinds: Mapping[str, OnEntry]) -> Tail:
    """The reader; entries of kinds that nobody asked for are passed over."""

    def on_records(_: TopicPartition, records: Sequence[Record]) -> None:
        fold_each(service, records, lambda record: told(record, kinds))

    return Tail(log_, clock, [TopicPartition(topics.registry, 0)], client_id=client_id, handle=on_records)


def told(record: Record, kinds: Mapping[str, OnEntry]) -> None:
    """Who asked for entries of this kind. Raises TooLarge, and what he raises."""
    kind, separator, name = (record.key or b"").decode(errors="replace").partition("/")
    on_entry = kinds.get(kind)
    if on_entry is None or not separator or not name:
        return
    if record.value is not None and len(record.value) > ENTRY_BYTES:
        raise TooLarge(f"the entry has {len(record.value)} bytes; at most {ENTRY_BYTES} are allowed")
    on_entry(kind, name, record.value)


class LimitsByTenant(dict[str, TenantLimits]):
    """The limits that administrators have declared: tenant → limits. Who is not in it has none. Bounded."""

    def on_entry(self, _kind: str, name: str, value: bytes | None) -> None:
        """An entry of the registry, in log order. Raises ValueError when it is not valid: the one before stands."""
        if value is None:
            self.pop(name, None)
        elif name in self or len(self) < MOST_TENANTS:
            self[name] = TenantLimits.model_validate_json(value)
        else:
            log.error("tenant_ignored", reason="too many tenants have limits")
