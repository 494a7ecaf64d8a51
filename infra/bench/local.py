"""A cluster of real processes for one bench: on the Kafka that is given, else on one of its own that ends with it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.native import ports
from infra.native.cluster import LocalCluster
from infra.native.kafka import Kafka
from infra.native.paths import Home
from infra.native.settings import NativeSettings

STOP_SECONDS = 5.0

IN_PROCESS: Mapping[str, str] = {
    "TUTTI_WORKER__BACKEND": "in_process",
    "TUTTI_WORKER__MODELS": "in-process",
    "TUTTI_WORKER__SLOTS": "64",
}
"""A node without a model: its answers are simulated, at once. For `nodes` of a LocalCluster."""


@contextmanager
def started_broker(home: Home, servers: str | None) -> Iterator[str]:
    """Addresses of the given Kafka, else of one under `home` that ends with this. Raises NativeError kinds."""
    if servers is not None:
        yield servers
        return
    port, controller = ports.free_ports(2)
    broker = Kafka(home, NativeSettings().cache_directory, port=port, controller_port=controller, dies_with_parent=True)
    try:
        broker.start()
        yield broker.servers
    finally:
        broker.stop(grace_seconds=STOP_SECONDS)


@contextmanager
def local_cluster(name: str, servers: str | None, **options: Any) -> Iterator[LocalCluster]:
    """A LocalCluster with these options. Raises NativeError kinds."""
    options["environment"] = {"TUTTI_LOG_LEVEL": "warning", **options.get("environment", {})}
    with (
        tempfile.TemporaryDirectory(prefix=f"tutti-{name}-") as made,
        started_broker(Home(Path(made)), servers) as found,
        LocalCluster(found, f"{name}-{os.getpid()}", Path(made), **options) as cluster,
    ):
        yield cluster
