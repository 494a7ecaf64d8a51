"""Report: what every bench gives, in one form: lines for people, JSON with the machine's facts, options and all runs, how it differs from
the record, and the exit code.

A record is the JSON of a run that is kept, `infra/lab/records/<bench>.json`. Only ratios, counts and CPU are comparable between machines;
times and rates are so on one machine, when it is as quiet as it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import click

from infra.lab.bench.figures import Budget, Figures, Spread, Verdict, by_figure, cell

FORMAT = 2
RECORDS = Path(__file__).parents[1] / "records"
BUSY = 0.25
"""Runnable processes a core before the start, above which absolute figures are not worth keeping."""
NOTICEABLE = 0.1
"""Changes below this share are not shown: runs on shared machines differ by as much."""


def median_and_range(values: Sequence[float]) -> tuple[str, str]:
    """What stands in a cell, and below it."""
    return cell(median(values)), f"{cell(min(values))}-{cell(max(values))}"


@dataclass(frozen=True, slots=True)
class Table:
    """Figures side by side. `place` gives (row, column) of a figure's name, None for one that is not shown here; `columns`: only these, in
    this order, all where there are none; `cells`: what is said of a figure's values, and what below it where there are several runs.
    """

    place: Callable[[str], tuple[str, str] | None]
    columns: Sequence[str] = ()
    cells: Callable[[Sequence[float]], tuple[str, str]] = median_and_range

    def lines(self, values: Mapping[str, Sequence[float]]) -> Iterator[str]:
        rows: dict[str, dict[str, tuple[str, str]]] = {}
        for name, found in values.items():
            if (at := self.place(name)) is not None and (not self.columns or at[1] in self.columns):
                rows.setdefault(at[0], {})[at[1]] = self.cells(found)
        columns = self.columns or list(dict.fromkeys(column for cells in rows.values() for column in cells))
        repeated = any(len(found) > 1 for found in values.values())
        left = max(map(len, rows), default=0) + 2
        widths = [max([len(column), *(len(text) for cells in rows.values() for text in cells.get(column, ()))]) + 2 for column in columns]
        if rows:
            yield " " * left + "".join(f"{column:>{width}}" for column, width in zip(columns, widths, strict=True))
        for row, cells in rows.items():
            for line in (0, 1) if repeated else (0,):
                texts = [cells[column][line] if column in cells else ("-", "")[line] for column in columns]
                yield f"{'' if line else row:<{left}}" + "".join(f"{text:>{width}}" for text, width in zip(texts, widths, strict=True))
        yield ""


@dataclass(frozen=True)
class Report:
    """One bench, ended. `runs` are its repeats; `derived` what follows from their medians; `also` further lines; `details` what is no
    figure, for the JSON alone.
    """

    bench: str
    simulated: str
    facts: Mapping[str, Any]
    options: Mapping[str, Any]
    runs: Sequence[Figures]
    budgets: Sequence[Budget] = ()
    tables: Sequence[Table] = ()
    derived: Callable[[Figures], Figures] = lambda _: {}
    also: Callable[[Sequence[Figures]], Iterable[str]] = lambda _: ()
    details: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def values(self) -> dict[str, list[float]]:
        """Of each figure in all runs; of what is derived one."""
        found = by_figure(self.runs)
        return found | {name: [one] for name, one in self.derived({name: median(values) for name, values in found.items()}).items()}

    @cached_property
    def verdicts(self) -> list[Verdict]:
        found = {name: Spread.of(values) for name, values in self.values.items()}
        return [budget.judge(found) for budget in self.budgets]

    def lines(self) -> Iterator[str]:
        """For the terminal: tables, figures that stand in none, verdicts."""
        yield from heading(self.facts)
        yield f"{self.bench}: {', '.join(f'{name} {value}' for name, value in self.options.items())}; {self.simulated}"
        yield ""
        for table in self.tables:
            yield from table.lines(self.values)
        alone = {name: values for name, values in self.values.items() if not any(table.place(name) for table in self.tables)}
        if alone:
            width = max(44, *map(len, alone)) + 2
            yield f"{'figure, of ' + str(len(self.runs)) + ' run(s)':<{width}}{'median':>12}{'least':>12}{'most':>12}"
            yield from (f"{name:<{width}}{median(found):>12.4g}{min(found):>12.4g}{max(found):>12.4g}" for name, found in alone.items())
            yield ""
        if self.verdicts:
            yield f"{'budget':<50}{'limit':>10}{'measured':>12}"
        yield from map(str, self.verdicts)
        yield from self.also(self.runs)

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "format": FORMAT,
            "bench": self.bench,
            "simulated": self.simulated,
            "machine": dict(self.facts),
            "options": dict(self.options),
            "summary": {name: asdict(Spread.of(values)) for name, values in self.values.items()},
            "budgets": [asdict(verdict) for verdict in self.verdicts],
            "runs": [dict(run) for run in self.runs],
            **self.details,
        }

    def end(self, json_file: Path | None = None, compare: Path | None = None, *, strict: bool = True, wrong: Sequence[str] = ()) -> None:
        """Say it, and how it differs from the record and the file `compare`; write it. Raises click.ClickException of what went `wrong`
        and, unless `strict` is off, of missed budgets; of a quick run's only of what must never be: it is too small for times and shares.
        """
        click.echo("\n".join(self.lines()))
        document = json.loads(json.dumps(self.document(), default=str))  # as a reader of the file has it
        quick = self.options.get("quick")
        record = None if quick else RECORDS / f"{self.bench}.json"  # of a small run nothing of it would hold
        for path in (record, compare):
            if path is not None and path.is_file():
                click.echo("\n".join(["", *comparison(json.loads(path.read_text()), document)]))
        if json_file is not None:
            json_file.parent.mkdir(parents=True, exist_ok=True)
            json_file.write_text(json.dumps(document, indent=1) + "\n")
        judged = [verdict for budget, verdict in zip(self.budgets, self.verdicts, strict=True) if budget.at_most == 0 or not quick]
        missed = ", ".join(verdict.name for verdict in judged if verdict.met is False)
        if found := [*wrong, *([f"missed: {missed}"] if missed and strict else [])]:
            raise click.ClickException("; ".join(found))


def heading(facts: Mapping[str, Any]) -> Iterator[str]:
    """Where and when; and a warning when the machine was not quiet."""
    yield (
        f"{facts['cpu']}, {facts['cores']} cores, load before {facts['load_before']}, python {facts['python']}, "
        f"commit {facts['commit']}{' and uncommitted changes' if facts['uncommitted_changes'] else ''}, {facts['date']}"
    )
    if facts["load_before"] > BUSY * facts["cores"]:
        yield "the machine was busy before the bench began: absolute figures mean little"


def comparison(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """What differs noticeably between two documents of one bench."""
    if old.get("format") != FORMAT:
        yield f"the earlier file has format {old.get('format')}, not {FORMAT}: not compared"
        return
    machine = old["machine"]
    yield f"against {machine.get('commit')} of {machine.get('date')} on {machine.get('cpu')}, {machine.get('cores')} cores:"
    was, now = old["options"], new["options"]
    if others := [name for name in {**was, **now} if was.get(name) != now.get(name)]:
        yield "  with other options: " + ", ".join(f"{name} {was.get(name)} -> {now.get(name)}" for name in others)
    before = {name: spread["median"] for name, spread in old["summary"].items()}
    for name, spread in new["summary"].items():
        if before.get(name) and not _incidental(name) and abs(change := spread["median"] / before[name] - 1) >= NOTICEABLE:
            yield f"  {name}: {before[name]:.4g} -> {spread['median']:.4g} ({change:+.0%})"


def _incidental(name: str) -> bool:
    """What is large in number and says little of itself."""
    return name.endswith("/count") or "resident_mb." in name
