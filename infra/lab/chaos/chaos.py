"""The bench of chaos: see the package's card. It fails when a law was broken, or when a process ended by itself and the broker had not been
away beyond its patience.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from random import Random

import click

from infra.lab.bench.figures import Budget, Figures, most_of
from infra.lab.bench.runner import Bench, Lab, option
from infra.lab.chaos import report
from infra.lab.chaos.plan import QUICK, Durations, FaultKind
from infra.lab.chaos.run import Options, Run
from infra.lab.chaos.stage import QUICK_ENVIRONMENT, QUICK_RATE, running
from infra.native.errors import NativeError
from shared.clock import SystemClock

RATE = 40.0
"""Two cores that broker, services, nodes, load and a store's stand-in share serve about twice as much (decision 0069): at more a run
measures its own backlog."""


def measure(
    lab: Lab, repeat: int, *, jobs: int, seed: int | None, rate: float, brokers: int, only: tuple[str, ...], logs: Path | None
) -> Figures:
    """Break a real cluster while it works, and check that nothing was lost or accepted twice. --quick: each fault once, on one process of
    every service together; short leases.
    """
    seed = Random().getrandbits(31) if seed is None else seed + repeat
    directory = _directory(logs, repeat)
    more = f" --brokers {brokers}" * (brokers > 1) + "".join(f" --fault {kind}" for kind in only) + " --quick" * lab.quick
    again = f"python -m infra.lab.bench chaos --jobs {jobs} --seed {seed} --rate {rate:g}{more}"
    click.echo(f"seed {seed}; again with: {again}; logs, kept on failure: {directory}", err=True)
    durations = QUICK if lab.quick else Durations()
    options = Options(jobs, seed, rate, together=lab.quick, durations=durations, brokers=brokers, only=tuple(map(FaultKind, only)))
    try:
        with running(directory, QUICK_ENVIRONMENT if lab.quick else {}, brokers) as stage:
            outcome = lab.run(Run(stage, options, SystemClock(), lambda text: click.echo(f"  {text}", err=True)).run())
    except NativeError as error:
        raise click.ClickException(f"{error}\nlogs: {directory}") from error
    found = report.document(options, outcome)
    click.echo("\n".join(report.lines(found)))
    lab.detail("courses", found)
    if outcome.wrong:
        lab.wrong.append(f"{'; '.join(outcome.wrong)}; logs and the broker's data: {directory}; again with: {again}")
    elif logs is None:
        shutil.rmtree(directory, ignore_errors=True)
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float) and not isinstance(value, bool)}


def _directory(logs: Path | None, repeat: int) -> Path:
    """Of this run alone: what an earlier one left would be its broker's data."""
    if logs is None:
        return Path(tempfile.mkdtemp(prefix="tutti-chaos-"))
    found = logs / str(repeat + 1)
    try:
        found.mkdir(parents=True)
    except FileExistsError:
        raise click.UsageError(f"{found} is there already: name another directory for --logs") from None
    return found


BENCH = Bench(
    measure,
    report.SIMULATED,
    (
        Budget("jobs lost", "jobs", most_of("lost"), at_most=0),
        Budget("jobs doubly accepted", "jobs", most_of("doubly_accepted"), at_most=0),
    ),
    (
        option("jobs", 100_000, "At least so many.", type=click.IntRange(100, 10_000_000)),
        option("seed", None, "Of faults and jobs; the next run's is one higher.  [default: drawn and printed]", type=int),
        option("rate", RATE, "Jobs a second, at most; well below what the machine serves.", type=click.FloatRange(1)),
        option("brokers", 1, "Of Kafka; three lose each leader, and min.insync.replicas.", type=click.IntRange(1, 5)),
        click.Option(
            ["--fault", "only"], multiple=True, type=click.Choice([kind.value for kind in FaultKind]), help="Only these; repeatable."
        ),
        option(
            "logs",
            None,
            "Keep logs here, each run's in a directory with its number.  [default: a temporary one, kept on failure]",
            type=click.Path(path_type=Path),
        ),
    ),
    quick={"jobs": 3_000, "rate": QUICK_RATE},
    repeats=1,
    needs_kafka=False,
)
