"""What every bench gives, in one form: lines for people, JSON with the machine's facts, options and all runs, and the exit code."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click

from infra.lab.bench.figures import Budget, Figures, Spreads, Verdict, spreads
from infra.lab.bench.records import FORMAT, comparison, recorded

BUSY = 0.25
"""Runnable processes a core before the start, above which absolute figures are not worth keeping."""

Command = TypeVar("Command", bound=Callable[..., Any])


def bench_options(repeats: str) -> Callable[[Command], Command]:
    """The options that every bench has; `repeats` says of what."""
    wanted = (
        click.option("--repeats", type=click.IntRange(1, 1_000), default=3, help=repeats),
        click.option("--servers", metavar="HOST:PORT", help="Use this Kafka instead of starting one."),
        click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write everything here."),
    )

    def decorate(command: Command) -> Command:
        for option in reversed(wanted):
            command = option(command)
        return command

    return decorate


@dataclass(frozen=True, slots=True)
class Outcome:
    """One bench, ended. `runs` are its repeats; `details` is what is no figure, for the JSON alone."""

    bench: str
    simulated: str
    facts: Mapping[str, Any]
    options: Mapping[str, Any]
    runs: Sequence[Figures]
    budgets: Sequence[Budget[Spreads]]
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verdicts(self) -> list[Verdict]:
        found = spreads(self.runs)
        return [budget.judge(found) for budget in self.budgets]

    def lines(self) -> Iterator[str]:
        """For the terminal."""
        yield from heading(self.facts)
        yield f"{self.bench}: {', '.join(f'{name} {value}' for name, value in self.options.items())}; {self.simulated}"
        yield ""
        yield f"{'figure, of ' + str(len(self.runs)) + ' run(s)':<44}{'median':>12}{'least':>12}{'most':>12}"
        for name, found in spreads(self.runs).items():
            yield f"{name:<44}{found.median:>12.4g}{found.least:>12.4g}{found.most:>12.4g}"
        yield ""
        yield from verdict_lines(self.verdicts)

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **envelope(self.bench, self.simulated, self.facts, self.options),
            "summary": {name: asdict(found) for name, found in spreads(self.runs).items()},
            "budgets": [asdict(verdict) for verdict in self.verdicts],
            "runs": [dict(run) for run in self.runs],
            **self.details,
        }

    def end(self, json_file: Path | None, *, strict: bool = True) -> None:
        """Say it, write it. Raises click.ClickException when a budget is missed, unless `strict` is off."""
        click.echo("\n".join(self.lines()))
        keep(self.document(), json_file)
        refuse_missed(self.verdicts, strict=strict)


def heading(facts: Mapping[str, Any]) -> Iterator[str]:
    """Where and when; and a warning when the machine was not quiet."""
    yield (
        f"{facts['cpu']}, {facts['cores']} cores, load before {facts['load_before']}, python {facts['python']}, "
        f"commit {facts['commit']}{' and uncommitted changes' if facts['uncommitted_changes'] else ''}, {facts['date']}"
    )
    if facts["load_before"] > BUSY * facts["cores"]:
        yield "the machine was busy before the bench began: absolute figures mean little"


def verdict_lines(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """One a budget."""
    if verdicts:
        yield f"{'budget':<44}{'limit':>10}{'measured':>12}"
    yield from map(str, verdicts)


def envelope(bench: str, simulated: str, facts: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """How every bench's JSON begins."""
    return {"format": FORMAT, "bench": bench, "simulated": simulated, "machine": dict(facts), "options": dict(options)}


def keep(document: Mapping[str, Any], json_file: Path | None) -> None:
    """Say how it differs from the record of its bench, and write it."""
    old = recorded(document["bench"])
    if old is not None:
        click.echo("\n".join(["", *comparison(old, document)]))
    if json_file is not None:
        write(json_file, document)


def refuse_missed(verdicts: Sequence[Verdict], *, strict: bool = True) -> None:
    """Raises click.ClickException when a budget is missed."""
    missed = [verdict.name for verdict in verdicts if verdict.met is False]
    if missed and strict:
        raise click.ClickException(f"missed: {', '.join(missed)}")


def write(path: Path, content: Any) -> None:
    """As JSON, for people too; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, default=str) + "\n")
