"""`python -m infra.lab.chaos`: see the package's card. Exit code 1 when a law was broken, or when a process ended by itself and the
broker had not been away beyond its patience.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from random import Random

import click
import uvloop

from infra.lab.bench import machine
from infra.lab.bench.outcome import keep
from infra.lab.chaos import report
from infra.lab.chaos.plan import QUICK, Durations, FaultKind
from infra.lab.chaos.run import Options, Run
from infra.lab.chaos.stage import QUICK_ENVIRONMENT, running
from infra.native.errors import NativeError
from shared.clock import SystemClock

RATE = 200.0
"""Two cores that broker, services, nodes and load share serve about twice as much: at more a run measures its own backlog."""


@click.command(context_settings={"show_default": True})
@click.option("--jobs", default=100_000, type=click.IntRange(100, 10_000_000), help="At least so many.")
@click.option("--seed", type=int, help="Of faults and jobs.  [default: drawn and printed]")
@click.option("--rate", default=RATE, type=click.FloatRange(1), help="Jobs a second, at most; well below what the machine serves.")
@click.option("--quick", is_flag=True, help="Each fault once, striking one process of every service together; short leases.")
@click.option("--brokers", default=1, type=click.IntRange(1, 5), help="Of Kafka; three lose each leader, and min.insync.replicas.")
@click.option("--fault", "only", multiple=True, type=click.Choice([kind.value for kind in FaultKind]), help="Only these kinds; repeatable.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write everything here.")
@click.option("--logs", type=click.Path(path_type=Path), help="Keep logs here.  [default: a temporary directory, kept on failure]")
def main(
    *,
    jobs: int,
    seed: int | None,
    rate: float,
    quick: bool,
    brokers: int,
    only: tuple[str, ...],
    json_file: Path | None,
    logs: Path | None,
) -> None:
    """Break a real cluster while it works, and check that nothing was lost or accepted twice."""
    seed = Random().getrandbits(31) if seed is None else seed
    directory = logs or Path(tempfile.mkdtemp(prefix="tutti-chaos-"))
    directory.mkdir(parents=True, exist_ok=True)
    more = f" --brokers {brokers}" * (brokers > 1) + "".join(f" --fault {kind}" for kind in only) + " --quick" * quick
    again = f"python -m infra.lab.chaos --jobs {jobs} --seed {seed} --rate {rate:g}{more}"
    click.echo(f"seed {seed}; again with: {again}; logs, kept on failure: {directory}", err=True)
    kinds = tuple(map(FaultKind, only))
    options = Options(jobs, seed, rate, together=quick, durations=QUICK if quick else Durations(), brokers=brokers, only=kinds)
    facts = machine.facts()
    try:
        with running(directory, QUICK_ENVIRONMENT if quick else {}, brokers) as stage:
            run = Run(stage, options, SystemClock(), lambda text: click.echo(f"  {text}", err=True))
            outcome = uvloop.run(run.run())
    except NativeError as error:
        raise click.ClickException(f"{error}\nlogs: {directory}") from error
    found = report.document(facts, options, outcome)
    click.echo("\n".join(report.lines(found)))
    keep(found, json_file)
    if wrong := outcome.wrong:
        raise click.ClickException(f"{'; '.join(wrong)}; logs and the broker's data: {directory}; again with: {again}")
    if logs is None:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
