"""Brokers: several of them as one Kafka, each a controller, too, so that any one may be lost; a copy of everything at each.

    with Brokers.beside(directory, cache, 3) as kafka:
        clients of kafka.servers; kafka.one["2"].kill(); kafka.start(); kafka.await_in_sync(60)

Two of three hold a majority of the controllers and `min.insync.replicas`; of one alone nobody gets an acknowledgement.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from infra.native import ports
from infra.native.errors import StartFailed
from infra.native.kafka import PROBE_SECONDS, START_SECONDS, STOP_SECONDS, Kafka, new_cluster_id
from infra.native.paths import StackHome
from infra.native.waiting import wait_until

HEAP_MB = 384
"""Of each: three of them share a machine with all else."""


class Copies(NamedTuple):
    """How partitions stand: broker → of how many it is the leader; how many lack a copy in sync."""

    leads: Mapping[str, int]
    lacking: int


@dataclass(slots=True)
class Brokers:
    """By number, "1" to "n"."""

    one: Mapping[str, Kafka]

    @classmethod
    def beside(cls, directory: Path, cache: Path, count: int, *, session_timeout_ms: int = 6_000) -> Self:
        """So many on free ports, each with a directory below this one; they end with this process."""
        found = iter(ports.free_ports(2 * count))
        clients = {number: next(found) for number in range(1, count + 1)}
        quorum, cluster = dict(zip(clients, found, strict=True)), new_cluster_id()
        return cls(
            {
                str(number): Kafka(
                    StackHome(directory / str(number)),
                    cache,
                    port=port,
                    controller_port=quorum[number],
                    heap_mb=HEAP_MB,
                    session_timeout_ms=session_timeout_ms,
                    dies_with_parent=True,
                    number=number,
                    quorum=quorum,
                    cluster_id=cluster,
                )
                for number, port in clients.items()
            }
        )

    @property
    def servers(self) -> str:
        """Bootstrap servers for clients."""
        return ",".join(broker.servers for broker in self.one.values())

    def start(self, *, timeout_seconds: float = START_SECONDS) -> None:
        """Bring up all that do not run; returns when each serves clients. Raises NativeError kinds."""
        for broker in self.one.values():
            broker.launch()
        for broker in self.one.values():
            broker.await_healthy(timeout_seconds)

    def stop(self, *, grace_seconds: float = STOP_SECONDS) -> None:
        """Shut down, one after the other; data stays. The last ones have no majority any more, and end when their time is up."""
        for broker in self.one.values():
            broker.stop(grace_seconds=grace_seconds)

    def kill(self) -> None:
        """SIGKILL to all."""
        for broker in self.one.values():
            broker.kill()

    def await_in_sync(self, timeout_seconds: float) -> None:
        """Return when each partition has all its copies. Raises StartFailed."""
        if not wait_until(lambda: (found := self.copies()) is not None and not found.lacking, timeout_seconds, every_seconds=0.5):
            raise StartFailed(f"after {timeout_seconds:.0f} s partitions still lack a copy: {self.copies()}")

    def copies(self) -> Copies | None:
        """As one of them tells; None when nobody does. Blocks."""
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:  # leaves the caller's current loop alone
            return runner.run(_copies(self.servers))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()


async def _copies(servers: str) -> Copies | None:
    admin: Any = AIOKafkaAdminClient(bootstrap_servers=servers.split(","), request_timeout_ms=int(PROBE_SECONDS * 1000))
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await admin.start()
            partitions = [partition for topic in await admin.describe_topics() for partition in topic["partitions"]]
    except (KafkaError, OSError, TimeoutError):
        return None
    finally:
        await admin.close()
    leads = Counter(str(partition["leader"]) for partition in partitions)
    return Copies(leads, sum(len(partition["isr"]) < len(partition["replicas"]) for partition in partitions))
