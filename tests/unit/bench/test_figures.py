"""The pass-through bench: ratios, budgets, the order of runs; systems are stopped in turns; what processes have used."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.lab.bench import machine
from infra.lab.bench.figures import percentile
from infra.lab.bench.pass_through import BENCH, QUICK, plan
from infra.lab.bench.report import Report
from infra.lab.bench.systems import System, only
from infra.native.processes import cpu_seconds
from infra.native.waiting import wait_until

RUNS = [
    {
        "rest_64/bare/per_second": bare,
        "rest_64/bare/p50_ms": 10.0,
        "rest_64/tutti/per_second": rate,
        "rest_64/tutti/p50_ms": 15.0,
        "rest_64/bare_node/per_second": 1_500.0,
    }
    for bare, rate in ((1_900.0, 900.0), (2_100.0, 5_000.0), (2_000.0, 1_200.0))
]


def test_percentiles_are_those_of_the_sample() -> None:
    """Of 1 to 100: the median lies between 50 and 51, the 99th percentile at 99; one value is its own percentile."""
    values = [float(number) for number in range(1, 101)]
    assert percentile(values, 0.5) == pytest.approx(50.5, abs=0.1)
    assert percentile(values, 0.99) == pytest.approx(99, abs=0.1)
    assert (percentile([7.0], 0.99), percentile([], 0.5)) == (7.0, 0.0)


def test_ratios_are_of_medians_and_each_floor_has_its_own() -> None:
    """One outlier does not move them; a floor has none to itself."""
    found = Report("bench", "", {}, {}, RUNS, derived=BENCH.derived).values
    assert found["rest_64/tutti/per_second_to_bare"] == [pytest.approx(0.6)]
    assert found["rest_64/tutti/per_second_to_bare_node"] == [pytest.approx(0.8)]
    assert found["rest_64/tutti/p50_ms_to_bare"] == [pytest.approx(1.5)]
    assert not [name for name in found if name.startswith(("rest_64/bare/per_second_", "rest_64/bare_node/per_second_"))]


def test_every_budget_names_a_figure_that_a_run_yields() -> None:
    """A misspelt name would never be measured and never be missed."""
    names = ("per_second", "p50_ms", "p99_ms", "first_token_p50_ms", "cpu_us_per_job.planner", "cpu_us_per_chunk", "resident_mb.planner")
    run = {f"{task.scenario}/{task.system}/{name}": 1.0 for task in plan(QUICK, 0) for name in names}
    verdicts = Report("bench", "", {}, {}, [run], BENCH.budgets, derived=BENCH.derived).verdicts
    assert [verdict.name for verdict in verdicts if verdict.measured is None] == []
    assert len(BENCH.budgets) == len({budget.name for budget in BENCH.budgets})


def test_systems_take_turns_and_who_is_first_alternates() -> None:
    """Drift of the machine hits all systems alike."""
    turns = [[task.system for task in plan(QUICK, repeat) if task.scenario == "queue"] for repeat in range(3)]
    assert turns == [["bare", "tutti_in_process"], ["tutti_in_process", "bare"], ["bare", "tutti_in_process"]]


def test_a_system_is_stopped_while_another_is_measured() -> None:
    """A stopped process uses no CPU; the one that is wanted goes on."""
    command = [sys.executable, "-c", "while True: pass"]
    with subprocess.Popen(command) as one, subprocess.Popen(command) as two:
        systems = [System(name, "", {name: process.pid}, ()) for name, process in (("bare", one), ("tutti", two))]
        try:
            for wanted, expected in ((systems[0], (False, True)), (systems[1], (True, False)), (None, (True, True))):
                asyncio.run(only(wanted, systems))
                assert wait_until(lambda expected=expected: (stopped(one), stopped(two)) == expected, 10)  # type: ignore[misc]
        finally:
            one.kill()
            two.kill()


def stopped(process: subprocess.Popen[bytes]) -> bool:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_cpu_and_memory_of_a_process() -> None:
    """This process has used both; work adds CPU; a process that does not exist has used nothing."""
    used = machine.cpu_since({"me": os.getpid()})
    sum(number * number for number in range(2_000_000))
    assert used()["me"] > 0
    assert machine.resident_bytes(os.getpid()) > 10_000_000
    assert (cpu_seconds(2**30), machine.resident_bytes(None)) == (0.0, 0)
