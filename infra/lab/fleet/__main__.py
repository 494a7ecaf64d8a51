"""`python -m infra.lab.fleet`: the fleet's figures (`make bench-fleet`): every policy on every scenario, over seeds, in virtual time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from time import process_time

import click

from infra.lab.bench import machine
from infra.lab.bench.figures import Budget, Figures, Spreads, median_of, most_of
from infra.lab.bench.outcome import Outcome
from infra.lab.bench.sizing import choice_seconds
from infra.lab.fleet.play import Play
from infra.lab.fleet.scenarios import SCENARIOS, interactive, machines, told
from infra.lab.fleet.scenarios import trace as whole
from infra.lab.fleet.spec import Fleet, Request, at_load, fleet_options, requests
from shared.placement.policies import POLICIES

OURS, PLAIN = "hybrid", tuple(name for name in POLICIES if name != "hybrid")
ROUTERS = (1, 2, 4, 8)
FELT = ("first p50, s", "first p95, s", "makespan, s")
T95 = (0.0, 12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 1.96)
"""Student's t of 95 %, by the number of seeds from one on; the last for all that are more."""
_FIRST = "interactive/{}/first p95, s"


def whole_trace() -> float:
    """Seconds of this machine for all of the trace on eight machines."""
    fleet = machines((2, 2, 4, 4, 8, 8, 16, 16), ["m"], slots=4)
    arrivals = at_load(whole(), lambda one: one.output * 4.9 / 50.0 / 4**0.7 / 60.0, 0.8)
    begun = process_time()
    Play(fleet, [Request(one.at, one.prompt, one.output, "m") for one in arrivals], policy=OURS, seed=0).run()
    return process_time() - begun


def one_run(seed: int) -> Figures:
    """All scenarios and policies with one seed; ratios within the run."""
    found: dict[str, float] = {}
    for name, policy in product(SCENARIOS, POLICIES):
        found |= {f"{name}/{policy}/{figure}": value for figure, value in SCENARIOS[name](policy, seed).items()}
    for count in ROUTERS:
        shown = interactive(OURS, seed, routers=count)
        found |= {f"routers/{count}/{figure}": shown[figure] for figure in FELT}
        found |= {f"routers/{count}/{figure[:-3]} to one router's, x": shown[figure] / found[f"routers/1/{figure}"] for figure in FELT}
    return {**found, **_ratios(found)}


def _ratios(found: Mapping[str, float]) -> Figures:
    first, least = found[_FIRST.format(OURS)], found[_FIRST.format("least_active")]
    return {
        "first p95 to least active, x": first / least,
        "first p95 to the best plain policy, x": first / min(found[_FIRST.format(name)] for name in PLAIN),
        "loads to least active, x": found[f"swaps/{OURS}/loads"] / found["swaps/least_active/loads"],
    }


BUDGETS: tuple[Budget[Spreads], ...] = (
    Budget("batch, makespan to its lower bound", "x", median_of(f"batch/{OURS}/makespan to lower bound, x"), at_most=1.05),
    Budget("interactive at 80 %, first p95 to least active", "x", median_of("first p95 to least active, x"), at_most=0.7),
    Budget("the same, to the best plain policy", "x", median_of("first p95 to the best plain policy, x"), at_most=1.0),
    Budget("six models for three places, loads", "x", median_of("loads to least active, x"), at_most=0.5),
    Budget("A B A A C A B C on one place, loads", "", most_of(f"one_place/{OURS}/loads"), at_most=3),
    Budget("start predicted wrong by, median", "", median_of(f"interactive/{OURS}/start predicted wrong by, median"), at_most=0.2),
    *(
        Budget(
            f"{count} routers, {figure[:-3]} to one's", "x", median_of(f"routers/{count}/{figure[:-3]} to one router's, x"), at_most=1.05
        )
        for count in ROUTERS[1:]
        for figure in FELT
    ),
    Budget("a machine dies: jobs failed", "", most_of(f"death/{OURS}/failed"), at_most=0),
    Budget("the same: steps it is given after", "", most_of(f"death/{OURS}/steps it was given after"), at_most=3),
    Budget(
        "the same: p99 after 30 s to that of the others",
        "x",
        median_of(f"death/{OURS}/first p99 from 30 s on to that of seven, x"),
        at_most=1.05,
    ),
    Budget("a machine that fails fast: steps it is given", "", most_of(f"fails_fast/{OURS}/steps it was given meanwhile"), at_most=6),
    Budget("the same: jobs failed", "", most_of(f"fails_fast/{OURS}/failed"), at_most=0),
    Budget("19,366 requests on 8 machines", "s", median_of("whole trace, s of CPU"), at_most=60),
    Budget("a choice among 100 nodes", "us", median_of("choice among 100 nodes, us"), at_most=200),
    Budget("a choice among 1,000 nodes", "us", median_of("choice among 1000 nodes, us"), at_most=2_000),
)


def intervals(runs: Sequence[Figures], columns: Sequence[str] = tuple(POLICIES)) -> Iterator[str]:
    """Mean and 95 % interval over seeds, a line for each scenario's figure, a column for each policy, or count of routers."""
    rows: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for name in dict.fromkeys(name for run in runs for name in run):
        scenario, _, rest = name.partition("/")
        column, _, figure = rest.partition("/")
        if column in columns:
            values = [run[name] for run in runs if name in run]
            width = T95[min(len(values), len(T95)) - 1] * stdev(values) / sqrt(len(values)) if len(values) > 1 else 0.0
            rows[scenario, figure][column] = f"{fmean(values):.3g} ±{width:.2g}"
    yield f"{'mean and 95 % interval over seeds':<54}" + "".join(f"{column:>18}" for column in columns)
    for (scenario, figure), values_of in rows.items():
        yield f"{scenario + ': ' + figure:<54}" + "".join(f"{values_of.get(column, '-'):>18}" for column in columns)


def of_file(fleet: Fleet, name: str, asked: Sequence[Request], seed: int) -> dict[str, float]:
    """Every policy on a fleet of one's own."""
    found = {policy: told(Play(fleet, asked, policy=policy, seed=seed).run()) for policy in POLICIES}
    return {f"{name}/{policy}/{figure}": value for policy, figures in found.items() for figure, value in figures.items()}


@click.command(context_settings={"show_default": True})
@fleet_options
@click.option("--repeats", type=click.IntRange(1, 100), default=6, help="Seeds.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write everything here.")
def main(*, fleet_file: Path | None, trace: Path, rows: int, faster: float, repeats: int, json_file: Path | None) -> None:
    """Policies on a simulated fleet, in virtual time: all scenarios and their bars, or a fleet of yours."""
    facts, said = machine.facts(), "machines and the way between services are simulated; routers' and workers' policies are real"
    if fleet_file is not None:
        try:
            fleet = Fleet.read(fleet_file)
            asked = [requests(trace, fleet, seed, most=rows, faster=faster) for seed in range(repeats)]
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        own = [of_file(fleet, fleet_file.stem, each, seed) for seed, each in enumerate(asked)]
        click.echo("\n".join([*intervals(own), ""]))
        Outcome("fleet", said, facts, {"seeds": repeats, "fleet": fleet_file.name, "rows": rows, "faster": faster}, own, ()).end(json_file)
        return
    runs = [dict(one_run(seed)) for seed in range(repeats)]
    runs[0]["whole trace, s of CPU"] = whole_trace()
    for count in (100, 1_000):
        runs[0][f"choice among {count} nodes, us"] = 1e6 * choice_seconds(count)[1]
    click.echo("\n".join([*intervals(runs), "", *intervals(runs, tuple(map(str, ROUTERS))), ""]))
    Outcome("fleet", said, facts, {"seeds": repeats}, runs, BUDGETS).end(json_file)


if __name__ == "__main__":
    main()
