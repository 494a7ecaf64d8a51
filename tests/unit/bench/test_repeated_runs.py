"""What every bench says of repeated runs: medians and their spread, verdicts, one form of JSON, the exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from infra.lab.bench import backlog, cancel, delays, machine, priority, recovery, takeover
from infra.lab.bench.figures import Budget, Spread, Spreads, Verdict, cell, median_of, most_of, spreads
from infra.lab.bench.outcome import Outcome, bench_options

FACTS = machine.facts()
RUNS = [{"p50_ms": 1.0, "lost": 0.0}, {"p50_ms": 9.0, "lost": 1.0}, {"p50_ms": 2.0, "lost": 0.0}]
FAST: Budget[Spreads] = Budget("p50", "ms", median_of("p50_ms"), at_most=2.0)
WHOLE: Budget[Spreads] = Budget("lost", "jobs", most_of("lost"), at_most=0.0)
ABSENT: Budget[Spreads] = Budget("not there", "ms", median_of("p99_ms"), at_most=2.0)


def outcome(*budgets: Budget[Spreads]) -> Outcome:
    return Outcome("some", "nothing is simulated", FACTS, {"jobs": 7, "repeats": 3}, RUNS, budgets, {"samples": [1, 2]})


def test_medians_and_spread_are_taken_figure_by_figure() -> None:
    """One bad run moves no median and shows in the spread; a figure that a run lacks is of the others."""
    assert spreads([{"a": 1.0, "b": 9.0}, {"a": 100.0}, {"a": 3.0, "b": 3.0}]) == {"a": Spread(3.0, 1.0, 100.0), "b": Spread(6.0, 3.0, 9.0)}


def test_times_are_judged_by_their_median_and_losses_by_the_worst_run() -> None:
    """What was not measured is neither met nor missed."""
    assert [verdict.met for verdict in outcome(FAST, WHOLE, ABSENT).verdicts] == [True, False, None]
    assert [verdict.measured for verdict in outcome(FAST, WHOLE, ABSENT).verdicts] == [2.0, 1.0, None]


def test_the_lines_show_median_spread_and_verdict() -> None:
    text = "\n".join(outcome(FAST, WHOLE, ABSENT).lines())
    figures = next(line for line in text.splitlines() if line.startswith("p50_ms"))
    assert figures.split() == ["p50_ms", "2", "1", "9"]
    assert all(word in text for word in ("3 run(s)", "jobs 7", "nothing is simulated", "met", "MISSED", "not measured", FACTS["date"]))


def test_the_json_holds_machine_date_commit_options_and_all_runs(tmp_path: Path) -> None:
    """It is written even when a budget is missed, and the command fails then."""
    file = tmp_path / "new" / "some.json"
    with pytest.raises(click.ClickException, match="lost"):
        outcome(FAST, WHOLE).end(file)
    written = json.loads(file.read_text())
    assert {"date", "commit", "cpu", "cores"} <= set(written["machine"])
    assert written["options"] == {"jobs": 7, "repeats": 3}
    assert written["runs"] == RUNS
    assert written["summary"]["p50_ms"] == {"median": 2.0, "least": 1.0, "most": 9.0}
    assert [budget["met"] for budget in written["budgets"]] == [True, False]
    assert written["samples"] == [1, 2]


def test_a_missed_budget_is_forgiven_when_asked(tmp_path: Path) -> None:
    outcome(WHOLE).end(tmp_path / "some.json", strict=False)


@pytest.mark.parametrize("command", [recovery.main, takeover.main, priority.main, cancel.main, delays.main, backlog.main])
def test_every_bench_repeats_and_writes_json(command: click.Command) -> None:
    """By the same options, three times unless told otherwise."""
    options = {option.name: option.default for option in command.params}
    assert options["repeats"] == 3
    assert {"servers", "json_file"} <= set(options)


def test_the_common_options_follow_the_own_ones() -> None:
    @click.command
    @bench_options("Of everything.")
    def main(**options: object) -> None:
        click.echo(options["repeats"])

    assert CliRunner().invoke(main, ["--repeats", "5"]).output == "5\n"
    assert CliRunner().invoke(main, ["--repeats", "0"]).exit_code == 2


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
    ("measured", "budgets"),
    [
        (lambda: cancel.figures({way: [1.0, 2.0] for way in cancel.WAYS}), cancel.BUDGETS),
        (backlog_figures, backlog.BUDGETS),
        (delay_figures, delays.BUDGETS),
    ],
)
def test_every_budget_names_a_figure_of_its_bench(measured: Callable[[], dict[str, float]], budgets: tuple[Budget[Spreads], ...]) -> None:
    """A misspelt name would never be measured and never be missed."""
    found = spreads([measured()])
    assert [budget.name for budget in budgets if budget.judge(found).met is None] == []


def test_cells_are_short_and_verdicts_line_up() -> None:
    assert [cell(figure) for figure in (None, 0.0, 1.234, 123.4, 5_000.0)] == ["-", "0", "1.23", "123", "5000"]
    lines = [str(Verdict("a", "ms", "<= 2", 1.5, met)) for met in (True, False, None)]
    assert all(a[:66] == b[:66] for a, b in pairwise(lines))
