"""A record as it was read, for tests of what reads records."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Written:
    """Implements `shared.kafka.port.Record`."""

    value: bytes | None = b'{"prompt": "q"}'
    offset: int = 0
    topic: str = "jobs.standard"
    partition: int = 0
    timestamp: int = 1_700_000_000_000
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
