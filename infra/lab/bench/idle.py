"""What the cluster costs while nothing is asked of it, in CPU milliseconds a second, by process.

Five services as processes and a worker's own backend without a model. A Kafka that is started for it is counted too, and is a new one for
each run. /proc is read at both ends of the measured time.
"""

from __future__ import annotations

import time
from contextlib import nullcontext

import click

from infra.lab.bench import machine
from infra.lab.bench.figures import MS, Budget, Figures, median_of
from infra.lab.bench.runner import IN_PROCESS, Bench, Lab, cluster_on, option, own_broker


def measure(lab: Lab, repeat: int, *, settle: float, seconds: float) -> Figures:
    """CPU of the cluster while nothing is asked of it."""
    with nullcontext() if lab.servers_given else own_broker() as broker:
        servers, own = (lab.servers, {}) if broker is None else (broker.servers, {"broker": broker.daemon.pid()})
        with cluster_on(servers, "idle", nodes=[IN_PROCESS]) as cluster:
            time.sleep(settle)
            used = machine.cpu_since({**cluster.pids(), **own})
            time.sleep(seconds)
            figures = {name: MS * value / seconds for name, value in used().items()}
    return {**figures, "sum": sum(figures.values())}


BENCH = Bench(
    measure,
    "the worker answers without a model; nothing is asked",
    (Budget("CPU of the idle cluster", "ms/s", median_of("sum"), at_most=75.0),),  # 60 % of what it was at commit ba90c86 (decision 0028)
    (
        # before that the broker's compiler takes as much as all else (decision 0036)
        option("settle", 120.0, "Seconds before it is looked at.", type=click.FloatRange(0)),
        option("seconds", 40.0, "So long it is looked at.", type=click.FloatRange(1)),
    ),
    quick={"settle": 2.0, "seconds": 2.0},
    strict=True,
)
