"""The fleet's figures: every policy on every scenario, over seeds, in virtual time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from time import process_time

import click

from infra.lab.bench.figures import Budget, Figures, cell, median_of, most_of
from infra.lab.bench.report import Table
from infra.lab.bench.runner import Bench, Lab
from infra.lab.bench.sizing import choice_seconds
from infra.lab.fleet.play import Play
from infra.lab.fleet.scenarios import SCENARIOS, interactive, machines, told
from infra.lab.fleet.scenarios import trace as whole
from infra.lab.fleet.spec import FLEET_OPTIONS, Fleet, Request, at_load, requests
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


def _own(fleet_file: Path, trace: Path, rows: int, faster: float, seed: int) -> Figures:
    """Every policy on a fleet of one's own."""
    try:
        fleet = Fleet.read(fleet_file)
        asked = requests(trace, fleet, seed, most=rows, faster=faster)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    found = {policy: told(Play(fleet, asked, policy=policy, seed=seed).run()) for policy in POLICIES}
    return {f"{fleet_file.stem}/{policy}/{figure}": value for policy, figures in found.items() for figure, value in figures.items()}


def measure(lab: Lab, repeat: int, *, fleet_file: Path | None, trace: Path, rows: int, faster: float) -> Figures:
    """Policies on a simulated fleet, in virtual time: all scenarios and their bars, or a fleet of yours. Each run is a seed."""
    if fleet_file is not None:
        return _own(fleet_file, trace, rows, faster, repeat)
    found = dict(one_run(repeat))
    if repeat == 0:
        found["whole trace, s of CPU"] = whole_trace()
        found |= {f"choice among {count} nodes, us": 1e6 * choice_seconds(count)[1] for count in (100, 1_000)}
    return found


def mean_and_interval(values: Sequence[float]) -> tuple[str, str]:
    """95 %, over seeds."""
    width = T95[min(len(values), len(T95)) - 1] * stdev(values) / sqrt(len(values)) if len(values) > 1 else 0.0
    return cell(fmean(values)), f"\u00b1{cell(width)}"


def _table(columns: Sequence[str]) -> Table:
    def place(name: str) -> tuple[str, str] | None:
        """A line for each scenario's figure."""
        scenario, _, rest = name.partition("/")
        column, _, figure = rest.partition("/")
        return (f"{scenario}: {figure}", column) if column in columns else None

    return Table(place, columns, mean_and_interval)


BENCH = Bench(
    measure,
    "machines and the way between services are simulated; routers' and workers' policies are real",
    (
        Budget("batch, makespan to its lower bound", "x", median_of(f"batch/{OURS}/makespan to lower bound, x"), at_most=1.05),
        Budget("interactive at 80 %, first p95 to least active", "x", median_of("first p95 to least active, x"), at_most=0.7),
        Budget("the same, to the best plain policy", "x", median_of("first p95 to the best plain policy, x"), at_most=1.0),
        Budget("six models for three places, loads", "x", median_of("loads to least active, x"), at_most=0.5),
        Budget("A B A A C A B C on one place, loads", "", most_of(f"one_place/{OURS}/loads"), at_most=3),
        Budget("start predicted wrong by, median", "", median_of(f"interactive/{OURS}/start predicted wrong by, median"), at_most=0.2),
        *(
            Budget(
                f"{count} routers, {figure[:-3]} to one's",
                "x",
                median_of(f"routers/{count}/{figure[:-3]} to one router's, x"),
                at_most=1.05,
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
    ),
    FLEET_OPTIONS,
    repeats=6,
    needs_kafka=False,
    tables=(_table(tuple(POLICIES)), _table(tuple(map(str, ROUTERS)))),
)
