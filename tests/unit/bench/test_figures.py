"""The bench's arithmetic: percentiles, medians, ratios, budgets, comparison, and the order of runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.lab.bench import outcome, records, report
from infra.lab.bench.budgets import BUDGETS, at, judge_all
from infra.lab.bench.cluster import Bench, System
from infra.lab.bench.figures import Budget, percentile
from infra.lab.bench.load import QueueTarget
from infra.lab.bench.processes import CpuMark, cpu_seconds, resident_bytes
from infra.lab.bench.scenarios import QUICK, Run, Sizes, plan
from infra.lab.bench.summary import summarise, value
from infra.native.waiting import wait_until

FACTS = {
    "date": "2026-01-31",
    "cpu": "a processor",
    "cores": 2,
    "load_before": 0.1,
    "python": "3",
    "commit": "abc",
    "uncommitted_changes": False,
}

TARGET = QueueTarget("", "", 1, bool)


def rest(system: str, repeat: int, per_second: float, p50_ms: float) -> Run:
    return Run("rest_64", system, repeat, {"per_second": per_second, "p50_ms": p50_ms})


RUNS = [
    *(rest("bare", number, rate, 10) for number, rate in enumerate((1_900, 2_100, 2_000))),
    *(rest("tutti", number, rate, 15) for number, rate in enumerate((900, 5_000, 1_200))),
    rest("bare_node", 0, 1_500, 12),
]


def test_percentiles_are_those_of_the_sample() -> None:
    """Of 1 to 100: the median lies between 50 and 51, the 99th percentile at 99; one value is its own percentile."""
    values = [float(number) for number in range(1, 101)]
    assert percentile(values, 0.5) == pytest.approx(50.5, abs=0.1)
    assert percentile(values, 0.99) == pytest.approx(99, abs=0.1)
    assert (percentile([7.0], 0.99), percentile([], 0.5)) == (7.0, 0.0)


def test_a_summary_holds_medians_and_ratios_to_bare() -> None:
    """One outlier does not move the median; the ratio is of medians; bare has none to itself."""
    summary = summarise(RUNS)
    assert value(summary, "rest_64/tutti/per_second") == 1_200
    assert value(summary, "rest_64/tutti/per_second_to_bare") == pytest.approx(0.6)
    assert value(summary, "rest_64/tutti/p50_ms_to_bare") == pytest.approx(1.5)
    assert value(summary, "rest_64/bare/per_second_to_bare") is None


def test_budgets_are_met_missed_or_not_measured() -> None:
    """At the limit is met; what was not measured is neither."""
    summary = summarise(RUNS)
    verdicts = {verdict.name: verdict.met for verdict in judge_all(summary)}
    assert verdicts["REST, 64 in flight over a node, to its floor"] is True
    assert verdicts["queued jobs to results"] is None
    rate = at("rest_64/tutti/per_second")
    assert Budget("", "", rate, at_least=1_200).judge(summary).met is True
    assert Budget("", "", rate, at_least=1_201).judge(summary).met is False
    assert Budget("", "", rate, at_most=1_199).judge(summary).met is False


def test_every_budget_names_figures_that_a_run_yields() -> None:
    """A misspelt path would never be measured and never be missed."""
    scenarios = {task.scenario for task in plan(QUICK, only_bare=False)}
    names = ("per_second", "p50_ms", "p99_ms", "first_token_p50_ms", "cpu_us_per_job", "cpu_us_per_job.planner", "cpu_us_per_chunk")
    systems = ("bare", "bare_node", "direct", "tutti", "tutti_in_process")
    runs = [
        Run(scenario, system, 0, {**dict.fromkeys(names, 1.0), "resident_mb.planner": 1.0}) for scenario in scenarios for system in systems
    ]
    assert [verdict.name for verdict in judge_all(summarise(runs)) if verdict.measured is None] == []
    assert len(BUDGETS) == len({budget.name for budget in BUDGETS})


def test_systems_take_turns_and_who_is_first_alternates() -> None:
    """Drift of the machine hits all systems alike; every scenario is repeated as often as asked."""
    sizes = Sizes(repeats=2, rest={1: 1, 10: 1, 64: 1, 256: 1}, queued=1, first_tokens=1, streams=1, streams_in_flight=1)
    tasks = [task for task in plan(sizes, only_bare=False) if task.scenario == "queue"]
    assert [(task.system, task.repeat) for task in tasks] == [("bare", 0), ("tutti_in_process", 0), ("tutti_in_process", 1), ("bare", 1)]
    assert {task.system for task in plan(sizes, only_bare=True)} == {"bare", "bare_node", "direct"}


def test_the_json_can_be_compared_with_by_a_later_run(tmp_path: Path) -> None:
    """What was written is read back; only noticeable changes are shown, and other options; another format is refused in words."""
    path = tmp_path / "old.json"
    outcome.write(path, document(RUNS))
    old = json.loads(path.read_text())
    head = "against abc of 2026-01-31 on a processor, 2 cores:"
    assert list(records.comparison(old, document(RUNS))) == [head]
    faster = document([*RUNS[:3], RUNS[-1], *(rest("tutti", number, 2_400, 15) for number in range(3))])
    assert list(records.comparison(old, faster)) == [
        head,
        "  rest_64/tutti/per_second: 1200 -> 2400 (+100%)",
        "  rest_64/tutti/per_second_to_bare: 0.6 -> 1.2 (+100%)",
        "  rest_64/tutti/per_second_to_bare_node: 0.8 -> 1.6 (+100%)",
    ]
    assert list(records.comparison(old, document(RUNS, quick=True)))[1] == "  with other options: quick False -> True"
    assert "not compared" in next(records.comparison({**old, "format": 99}, old))
    single = {name: value for name, value in old.items() if name != "summary"} | {"lost": 0, "longest_silence_seconds": 4.0}
    assert list(records.comparison(single, single | {"longest_silence_seconds": 6.0}))[1:] == ["  longest_silence_seconds: 4 -> 6 (+50%)"]


def document(runs: list[Run], *, quick: bool = False) -> dict[str, Any]:
    summary = summarise(runs)
    return report.document(FACTS, {"quick": quick}, runs, summary, judge_all(summary))


def test_what_goes_over_a_node_has_a_floor_of_its_own() -> None:
    """The ratio to the bare that calls the node stands beside the one to bare; a floor has none."""
    summary = summarise(RUNS)
    assert value(summary, "rest_64/tutti/per_second_to_bare") == pytest.approx(0.6)
    assert value(summary, "rest_64/tutti/per_second_to_bare_node") == pytest.approx(0.8)
    assert value(summary, "rest_64/bare_node/per_second_to_bare") is None


def test_every_record_is_read_and_is_of_a_bench() -> None:
    """Of the kept form, so that the next run can be compared with it."""
    for path in records.FOLDER.glob("*.json"):
        kept = records.recorded(path.stem)
        assert kept is not None
        assert kept["bench"] == path.stem
        assert list(records.comparison(kept, kept))[1:] == []


def test_a_system_is_stopped_while_another_is_measured() -> None:
    """A stopped process uses no CPU; the one that is wanted goes on, and says that it had been away."""
    command = [sys.executable, "-c", "while True: pass"]
    with subprocess.Popen(command) as one, subprocess.Popen(command) as two:
        try:
            systems = [System(name, "", TARGET, {name: process.pid}) for name, process in (("bare", one), ("tutti", two))]
            bench = Bench("", systems[0], systems[1], "")
            assert not bench.only(systems[0])
            assert wait_until(lambda: (stopped(one), stopped(two)) == (False, True), 10)
            assert bench.only(systems[1])
            assert wait_until(lambda: (stopped(one), stopped(two)) == (True, False), 10)
            bench.only(None)
            assert wait_until(lambda: (stopped(one), stopped(two)) == (True, True), 10)
        finally:
            one.kill()
            two.kill()


def stopped(process: subprocess.Popen[bytes]) -> bool:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_the_table_shows_every_system_and_every_budget() -> None:
    """With the machine's facts, the word simulated, and the spread of what was repeated."""
    summary = summarise(RUNS)
    text = "\n".join(report.tables(FACTS, RUNS, summary, judge_all(summary)))
    assert all(budget.name in text for budget in BUDGETS)
    assert all(word in text for word in ("a processor", "simulated", "tutti", "bare", "not measured", "met"))
    assert "900-5000" in text
    assert "busy" not in text
    assert any("busy" in line for line in report.tables({**FACTS, "load_before": 3.0}, RUNS, summary, []))


def test_cpu_and_memory_of_a_process_are_read_from_proc() -> None:
    """This process has used both; work adds CPU; a process that does not exist has used nothing."""
    before = CpuMark.now({"me": os.getpid()})
    sum(number * number for number in range(2_000_000))
    assert CpuMark.now({"me": os.getpid()}).since(before)["me"] > 0
    assert resident_bytes(os.getpid()) > 10_000_000
    assert (cpu_seconds(2**30), resident_bytes(2**30)) == (0.0, 0)
