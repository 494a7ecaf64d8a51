"""What benches and chaos run on: the Kafka that is given, else one of their own that ends with them, and a cluster of real processes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from infra.native import ports
from infra.native.cluster import LocalCluster
from infra.native.kafka import Kafka
from infra.native.paths import StackHome
from infra.native.settings import NativeSettings

STOP_SECONDS = 5.0

IN_PROCESS: Mapping[str, str] = {
    "TUTTI_WORKER__BACKEND": "in_process",
    "TUTTI_WORKER__MODELS": "in-process",
    "TUTTI_WORKER__SLOTS": "64",
}
"""A node without a model: its answers are simulated, at once. For `nodes` of a LocalCluster."""


_numbers = count(1)


@contextmanager
def own_broker(home: StackHome, session_timeout_ms: int | None = None) -> Iterator[Kafka]:
    """A started broker on free ports under `home`; it ends with this. Raises NativeError kinds."""
    port, controller = ports.free_ports(2)
    chosen: dict[str, Any] = {} if session_timeout_ms is None else {"session_timeout_ms": session_timeout_ms}
    broker = Kafka(home, NativeSettings().cache_directory, port=port, controller_port=controller, dies_with_parent=True, **chosen)
    try:
        broker.start()
        yield broker
    finally:
        broker.stop(grace_seconds=STOP_SECONDS)


@contextmanager
def started_broker(servers: str | None) -> Iterator[str]:
    """Addresses of the given Kafka, else of one of its own. Raises NativeError kinds."""
    if servers is not None:
        yield servers
        return
    with tempfile.TemporaryDirectory(prefix="tutti-kafka-") as made, own_broker(StackHome(Path(made))) as broker:
        yield broker.servers


@contextmanager
def local_cluster(name: str, servers: str, **options: Any) -> Iterator[LocalCluster]:
    """A LocalCluster with these options, under a namespace that no other has. Raises NativeError kinds."""
    options["environment"] = {"TUTTI_LOG_LEVEL": "warning", **options.get("environment", {})}
    namespace = f"{name}-{os.getpid()}-{next(_numbers)}"
    with (
        tempfile.TemporaryDirectory(prefix=f"tutti-{name}-") as made,
        LocalCluster(servers, namespace, Path(made), **options) as cluster,
    ):
        yield cluster
