"""`python -m infra.lab.bench.idle`: what the cluster costs while nothing is asked of it, in CPU milliseconds a second, by process.

Five services as processes and a worker's own backend without a model. A Kafka that is started for it is counted too. Wait SETTLE_SECONDS,
then read /proc at both ends of MEASURED_SECONDS. Medians of repeats. Exit code 1 when the budget is missed.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import click

from infra.lab.bench import machine
from infra.lab.bench.figures import Budget, Figures, Spreads, median_of
from infra.lab.bench.local import IN_PROCESS, local_cluster, own_broker
from infra.lab.bench.outcome import Outcome, bench_options
from infra.lab.bench.processes import CpuMark
from infra.native.errors import NativeError
from infra.native.paths import StackHome

SETTLE_SECONDS = 120.0
"""Before that the broker's compiler takes as much as all else (decision 0036)."""
MEASURED_SECONDS = 40.0
BUDGETS: tuple[Budget[Spreads], ...] = (Budget("CPU of the idle cluster", "ms/s", median_of("sum"), at_most=75.0),)
"""60 % of what it was at commit ba90c86 (decision 0028)."""


def _run(servers: str | None) -> Figures:
    if servers is not None:
        return _measure(servers, None)
    with tempfile.TemporaryDirectory(prefix="tutti-kafka-") as made, own_broker(StackHome(Path(made))) as broker:
        return _measure(broker.servers, broker.daemon.pid())


def _measure(servers: str, broker: int | None) -> Figures:
    with local_cluster("idle", servers, nodes=[IN_PROCESS]) as cluster:
        found = {**cluster.pids(), "broker": broker}
        pids = {name: pid for name, pid in found.items() if pid is not None}
        time.sleep(SETTLE_SECONDS)
        before = CpuMark.now(pids)
        time.sleep(MEASURED_SECONDS)
        used = CpuMark.now(pids).since(before)
    figures = {name: 1_000 * seconds / MEASURED_SECONDS for name, seconds in used.items()}
    click.echo("  " + ", ".join(f"{name} {value:.3g}" for name, value in figures.items()), err=True)
    return {**figures, "sum": sum(figures.values())}


@click.command(context_settings={"show_default": True})
@bench_options("Of the whole.")
def main(*, repeats: int, servers: str | None, json_file: Path | None) -> None:
    """What the cluster costs while nothing is asked of it."""
    facts = machine.facts()
    try:
        runs = [_run(servers) for _ in range(repeats)]
    except NativeError as error:
        raise click.ClickException(str(error)) from error
    options = {"settle_seconds": SETTLE_SECONDS, "measured_seconds": MEASURED_SECONDS, "repeats": repeats}
    Outcome("idle", "the worker answers without a model; nothing is asked", facts, options, runs, BUDGETS).end(json_file)


if __name__ == "__main__":
    main()
