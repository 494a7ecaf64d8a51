"""What every bench says of repeated runs: medians and their spread, tables, verdicts, one form of JSON, the record, the exit code."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from infra.lab.bench import backlog, cancel, delays, machine, runner
from infra.lab.bench.__main__ import BENCHES, main
from infra.lab.bench.figures import Budget, Figures, Spread, Verdict, by_figure, cell, median_of, most_of
from infra.lab.bench.report import FORMAT, RECORDS, Report, Table, comparison
from infra.lab.bench.runner import Bench, Lab, Unmeasured, command, option
from infra.lab.chaos import chaos
from infra.native.errors import StartFailed

FACTS = machine.facts() | {"load_before": 0.0, "cores": 2, "cpu": "a processor", "commit": "abc", "date": "2026-01-31"}
RUNS = [{"p50_ms": 1.0, "lost": 0.0}, {"p50_ms": 9.0, "lost": 1.0}, {"p50_ms": 2.0, "lost": 0.0}]
FAST = Budget("p50", "ms", median_of("p50_ms"), at_most=2.0)
WHOLE = Budget("lost", "jobs", most_of("lost"), at_most=0.0)
ABSENT = Budget("not there", "ms", median_of("p99_ms"), at_most=2.0)


def report(*budgets: Budget, runs: list[dict[str, float]] = RUNS, **more: Any) -> Report:
    return Report("some", "nothing is simulated", FACTS, {"jobs": 7, "repeats": 3}, runs, budgets, details={"samples": [1, 2]}, **more)


def test_medians_and_spread_are_taken_figure_by_figure() -> None:
    """One bad run moves no median and shows in the spread; a figure that a run lacks is of the others."""
    found = by_figure([{"a": 1.0, "b": 9.0}, {"a": 100.0}, {"a": 3.0, "b": 3.0}])
    assert {name: Spread.of(values) for name, values in found.items()} == {"a": Spread(3.0, 1.0, 100.0), "b": Spread(6.0, 3.0, 9.0)}


def test_times_are_judged_by_their_median_and_losses_by_the_worst_run() -> None:
    """At the limit is met; what was not measured is neither met nor missed."""
    assert [verdict.met for verdict in report(FAST, WHOLE, ABSENT).verdicts] == [True, False, None]
    assert [verdict.measured for verdict in report(FAST, WHOLE, ABSENT).verdicts] == [2.0, 1.0, None]
    least = Budget("", "", median_of("p50_ms"), at_least=2.1)
    assert report(least).verdicts[0].met is False


def test_the_lines_show_median_spread_and_verdict() -> None:
    text = "\n".join(report(FAST, WHOLE, ABSENT).lines())
    figures = next(line for line in text.splitlines() if line.startswith("p50_ms"))
    assert figures.split() == ["p50_ms", "2", "1", "9"]
    assert all(word in text for word in ("3 run(s)", "jobs 7", "nothing is simulated", "met", "MISSED", "not measured", FACTS["date"]))
    assert "busy" not in text
    assert any("busy" in line for line in Report("some", "", {**FACTS, "load_before": 3.0}, {}, RUNS).lines())


def test_a_table_shows_its_figures_side_by_side_and_the_rest_stands_alone() -> None:
    """Medians, below them least and most; columns in the order that is asked for."""
    runs = [{"x/a": 1.0, "x/b": 5.0, "y/a": 2.0, "alone": 7.0}, {"x/a": 3.0, "x/b": 5.0, "y/a": 2.0, "alone": 7.0}]
    table = Table(lambda name: (name[0], name[2]) if "/" in name else None, ("b", "a"))
    lines = [line.split() for line in report(runs=runs, tables=(table,)).lines()]
    start = lines.index(["b", "a"])
    assert lines[start + 1 : start + 4] == [["x", "5", "2"], ["5-5", "1-3"], ["y", "-", "2"]]
    assert ["alone", "7", "7", "7"] in lines


def test_the_json_holds_machine_date_commit_options_and_all_runs(tmp_path: Path) -> None:
    """It is written even when a budget is missed, and the command fails then."""
    file = tmp_path / "new" / "some.json"
    with pytest.raises(click.ClickException, match="lost"):
        report(FAST, WHOLE).end(file)
    written = json.loads(file.read_text())
    assert {"date", "commit", "cpu", "cores"} <= set(written["machine"])
    assert written["options"] == {"jobs": 7, "repeats": 3}
    assert written["runs"] == RUNS
    assert written["summary"]["p50_ms"] == {"median": 2.0, "least": 1.0, "most": 9.0}
    assert [budget["met"] for budget in written["budgets"]] == [True, False]
    assert written["samples"] == [1, 2]
    report(WHOLE).end(strict=False)
    with pytest.raises(click.ClickException, match="a law was broken"):
        report(WHOLE).end(strict=False, wrong=["a law was broken"])


def test_a_later_run_is_compared_with_the_json() -> None:
    """Only noticeable changes are shown, and other options; another format is refused in words."""
    old = report().document()
    head = "against abc of 2026-01-31 on a processor, 2 cores:"
    assert list(comparison(old, old)) == [head]
    slower = report(runs=[{**run, "p50_ms": 2 * run["p50_ms"]} for run in RUNS]).document()
    assert list(comparison(old, slower)) == [head, "  p50_ms: 2 -> 4 (+100%)"]
    assert list(comparison(old, {**old, "options": {"jobs": 8, "repeats": 3}}))[1] == "  with other options: jobs 7 -> 8"
    elsewhere = {**old, "options": {**old["options"], "servers": "given"}}
    assert list(comparison(old, elsewhere))[1] == "  with other options: servers None -> given"
    assert list(comparison(elsewhere, old))[1] == "  with other options: servers given -> None"
    assert "not compared" in next(comparison({**old, "format": FORMAT + 97}, old))


def test_every_record_is_read_and_is_of_a_bench() -> None:
    """Of the kept form, so that the next run can be compared with it; its options are those that the bench has."""
    for path in RECORDS.glob("*.json"):
        kept = json.loads(path.read_text())
        assert kept["bench"] == path.stem
        assert list(comparison(kept, kept))[1:] == []
        options = {parameter.opts[0].lstrip("-").replace("-", "_") for parameter in bench(path.stem).options}
        assert set(kept["options"]) <= options | {"repeats", "partitions"}, path.stem


@pytest.mark.parametrize(("name", "said"), [("calibrate", "requests 25 -> 40"), ("idle", "settle 25.0 -> 120.0")])
def test_a_record_of_other_options_than_todays_is_said_to_be_one(name: str, said: str, tmp_path: Path) -> None:
    """These two were made with other values than the defaults; nothing else is said to differ. What is only written is no option."""
    kept, file = json.loads((RECORDS / f"{name}.json").read_text()), tmp_path / "it.json"
    runs = iter(kept["runs"])
    written = ["--spec", str(tmp_path / "measured.yaml")] if name == "calibrate" else []
    one = command(name, replace(bench(name), measure=lambda *_, **__: next(runs)))
    ended = CliRunner().invoke(one, ["--lenient", "--json", str(file), *written])
    assert ended.exit_code == 0, ended.output
    assert [line for line in ended.stdout.splitlines() if "other options" in line] == [f"  with other options: {said}"]


@pytest.mark.parametrize("name", BENCHES)
def test_what_a_bench_needs_is_installed_first(name: str) -> None:
    """By every target that starts a Kafka, and by no other one."""
    target = name if name in ("bench", "chaos") else f"bench-{name}"
    steps = subprocess.run(["make", "-n", target], capture_output=True, text=True, check=True, cwd=RECORDS.parents[2]).stdout
    wanted = "tests" if name == "patterns" else "kafka"  # the small model runs on libgomp
    assert (f"--packages --before {wanted}" in steps) is (bench(name).needs_kafka or name == "chaos")


def test_what_is_missing_is_told_before_what_takes_minutes() -> None:
    steps = subprocess.run(["make", "-n", "test"], capture_output=True, text=True, check=True, cwd=RECORDS.parents[2]).stdout
    assert steps.index("--packages --before tests") < steps.index("infra.native.fetch\n") < steps.index("ruff")


def bench(name: str) -> Bench:
    found: Bench = import_module(BENCHES[name]).BENCH
    return found


@pytest.mark.parametrize("name", BENCHES)
def test_every_bench_is_a_command_with_the_same_options(name: str) -> None:
    """What its short run changes exists; its function is described."""
    one = bench(name)
    options = {parameter.name: parameter for parameter in command(name, one).params}
    assert {"repeats", "quick", "json_file", "compare", "strict", *one.quick} <= set(options)
    assert ("servers" in options) is one.needs_kafka
    assert one.measure.__doc__
    assert CliRunner().invoke(main, [name, "--repeats", "0"]).exit_code == 2


def test_a_bench_is_repeated_on_what_it_keeps_and_its_end_ends_that(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One loop for all runs, what is kept is started once, quick makes the unchosen options small, what fails to be measured is told."""
    seen: list[Any] = []

    @contextmanager
    def started() -> Any:
        seen.append("started")
        yield "it"
        seen.append("ended")

    def measure(lab: Lab, repeat: int, *, jobs: int) -> Figures:
        """What it measures."""
        if jobs == 13:
            raise Unmeasured("nothing came")

        async def work() -> float:
            return float(jobs)

        seen.append((lab.kept(started), repeat))
        return {"jobs": lab.run(work())}

    one = command("some", Bench(measure, "nothing", options=(option("jobs", 7),), quick={"jobs": 1}, needs_kafka=False))
    file = tmp_path / "it.json"
    assert CliRunner().invoke(one, ["--repeats", "2", "--json", str(file)]).exit_code == 0
    assert seen == ["started", ("it", 0), ("it", 1), "ended"]
    assert json.loads(file.read_text())["runs"] == [{"jobs": 7.0}] * 2
    assert CliRunner().invoke(one, ["--quick", "--json", str(file)]).exit_code == 0
    assert json.loads(file.read_text())["options"] == {"jobs": 1, "repeats": 1, "quick": True}
    monkeypatch.setattr(runner, "RECORDS", tmp_path / "records")
    record = tmp_path / "records" / "some.json"
    refused = CliRunner().invoke(one, ["--quick", "--json", str(record)])
    assert (refused.exit_code, "no record is made" in refused.output, record.exists()) == (2, True, False)
    failed = CliRunner().invoke(one, ["--quick", "--jobs", "13"])
    assert (failed.exit_code, "nothing came" in failed.output) == (1, True)


@pytest.mark.parametrize(("quick", "limit", "code"), [(False, 0.5, 1), (True, 0.5, 0), (True, 0, 1)])
def test_a_quick_run_is_judged_by_what_must_never_be(*, quick: bool, limit: float, code: int) -> None:
    """It is too small for times and shares; what is lost is lost."""

    def measure(lab: Lab, repeat: int) -> Figures:
        """What it measures."""
        return {"lost": 1.0}

    one = command("some", Bench(measure, "nothing", budgets=(Budget("lost", "jobs", most_of("lost"), at_most=limit),), needs_kafka=False))
    ended = CliRunner().invoke(one, ["--quick"] if quick else [])
    assert (ended.exit_code, "MISSED" in ended.output) == (code, True)


def test_what_a_run_stands_on_is_told_with_its_options(tmp_path: Path) -> None:
    """A Kafka that was given, and what the bench found in settings."""

    def measure(lab: Lab, repeat: int) -> Figures:
        """What it measures."""
        lab.options["partitions"] = {"home_partitions": 6}
        return {"one": 1.0}

    file = tmp_path / "it.json"
    assert CliRunner().invoke(command("some", Bench(measure, "nothing")), ["--servers", "x:1", "--json", str(file)]).exit_code == 0
    assert json.loads(file.read_text())["options"] == {"repeats": 3, "servers": "given", "partitions": {"home_partitions": 6}}


def test_what_is_kept_is_kept_by_its_arguments() -> None:
    """Also by such that cannot be hashed."""
    begun: list[Any] = []

    @contextmanager
    def started(what: Any, *, more: int = 0) -> Any:
        begun.append((what, more))
        yield len(begun)

    with Lab() as lab:
        assert [lab.kept(started, what) for what in (1, 2, {"a": 1}, {"a": 1}, 2)] == [1, 2, 3, 3, 2]
        assert [lab.kept(started, 1, more=1), lab.kept(started, 1)] == [4, 1]


def test_each_chaos_run_has_a_directory_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Else the next one finds the broker's data of the last one; what an earlier command left is refused, too."""

    def running(directory: Path, *_: Any) -> Any:
        raise StartFailed(f"{directory.name} is empty: {not list(directory.iterdir())}")

    monkeypatch.setattr(chaos, "running", running)
    own: dict[str, Any] = {"jobs": 100, "seed": 1, "rate": 1.0, "brokers": 1, "only": (), "logs": tmp_path / "logs"}
    for repeat in (0, 1):
        with pytest.raises(click.ClickException, match=f"{repeat + 1} is empty: True\n"):
            chaos.measure(Lab(), repeat, **own)
    with pytest.raises(click.UsageError, match="is there already"):
        chaos.measure(Lab(), 0, **own)


def backlog_figures() -> dict[str, float]:
    warm, seen = backlog.Samples(), backlog.Samples()
    for samples, memory in ((warm, (90.0, 95.0)), (seen, (94.0, 99.5))):
        samples.memory = {"planner": list(memory), "router": [50.0, 50.0]}
    return seen.memory_figures(warm)


def delay_figures() -> dict[str, float]:
    seen = delays.Seen([10.0, 20.0, 30.0])
    for number, at in ((0, 10.5), (0, 10.6), (1, 19.0)):
        seen.add(number, at)
    return seen.figures(25.0, 28.0)


def test_memory_is_compared_with_the_warm_up() -> None:
    """Growth counts from the warm-up's most, and never below nothing."""
    found = backlog_figures()
    assert (found["planner.growth_mib"], found["router.growth_mib"], found["largest_growth_mib"]) == (4.5, 0.0, 4.5)


def test_delays_count_lost_repeated_and_early() -> None:
    found = delay_figures()
    assert (found["records"], found["lost"], found["repeated"], found["early"]) == (3, 1, 1, 1)


@pytest.mark.parametrize(
    ("measured", "name"),
    [
        (lambda: cancel.figures({way: [1.0, 2.0] for way in cancel.WAYS}), "cancel"),
        (backlog_figures, "backlog"),
        (delay_figures, "delays"),
    ],
)
def test_every_budget_names_a_figure_of_its_bench(measured: Callable[[], dict[str, float]], name: str) -> None:
    """A misspelt name would never be measured and never be missed."""
    verdicts = report(*bench(name).budgets, runs=[measured()]).verdicts
    assert [verdict.name for verdict in verdicts if verdict.met is None] == []


def test_cells_are_short_and_verdicts_line_up() -> None:
    assert [cell(figure) for figure in (None, 0.0, 1.234, 123.4, 5_000.0)] == ["-", "0", "1.23", "123", "5000"]
    lines = [str(Verdict("a", "ms", "<= 2", 1.5, met)) for met in (True, False, None)]
    assert all(a[:66] == b[:66] for a, b in pairwise(lines))
