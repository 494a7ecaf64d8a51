"""`python -m infra.lab.bench`: see the package's card.

Exit code 1 when something was lost or did not start, or with --strict when a budget is missed.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import click
import uvloop

from infra.lab.bench import budgets, machine, outcome, records, report
from infra.lab.bench.cluster import Bench, DidNotStart, running
from infra.lab.bench.load import LoadFailed
from infra.lab.bench.scenarios import FULL, QUICK, Run, Sizes, perform, plan, warm_up
from infra.lab.bench.summary import summarise
from infra.native.errors import NativeError
from shared.clock import Clock, SystemClock
from shared.settings import ClusterSettings


@click.command(context_settings={"show_default": True})
@click.option("--quick", is_flag=True, help="Small counts, once: a smoke test.")
@click.option("--repeats", type=click.IntRange(1, 50), help="Of everything.  [default: 5, quick: 1]")
@click.option("--scenario", "chosen", multiple=True, help="Only these, for example rest_64, queue, first_token, streams.")
@click.option("--only-bare", is_flag=True, help="The baseline alone.")
@click.option("--servers", help="Use this Kafka instead of starting one.", metavar="HOST:PORT")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write everything here.")
@click.option("--compare", type=click.Path(exists=True, path_type=Path), help="An earlier --json file, besides the record.")
@click.option("--strict", is_flag=True, help="A missed budget is a failure.")
def main(
    *,
    quick: bool,
    repeats: int | None,
    chosen: tuple[str, ...],
    only_bare: bool,
    servers: str | None,
    json_file: Path | None,
    compare: Path | None,
    strict: bool,
) -> None:
    """Measure tutti against the bare pass-through."""
    sizes = _sizes(quick, repeats)
    facts = machine.facts()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="tutti-bench-") as directory,
            running(Path(directory), servers, only_bare=only_bare) as bench,
        ):
            runs = uvloop.run(_measure(bench, sizes, chosen, SystemClock(), only_bare=only_bare))
    except (LoadFailed, DidNotStart, NativeError) as error:
        raise click.ClickException(str(error)) from error
    summary = summarise(runs)
    verdicts = budgets.judge_all(summary)
    click.echo("\n".join(report.tables(facts, runs, summary, verdicts)))
    options = {"quick": quick, "own_broker": servers is None, "only_bare": only_bare, "scenarios": list(chosen), **asdict(sizes)}
    options["partitions"] = {name: count for name, count in ClusterSettings().topics if name.endswith("_partitions")}
    document = json.loads(json.dumps(report.document(facts, options, runs, summary, verdicts)))  # as a reader of the file has it
    if compare is not None:
        click.echo("\n".join(["", *records.comparison(json.loads(compare.read_text()), document)]))
    outcome.keep(document, json_file)
    outcome.refuse_missed(verdicts, strict=strict)


def _sizes(quick: bool, repeats: int | None) -> Sizes:
    sizes = QUICK if quick else FULL
    return sizes if repeats is None else Sizes(**(asdict(sizes) | {"repeats": repeats}))


async def _measure(bench: Bench, sizes: Sizes, chosen: tuple[str, ...], clock: Clock, *, only_bare: bool) -> list[Run]:
    await warm_up(bench, clock)
    runs = []
    for task in plan(sizes, only_bare=only_bare):
        if chosen and task.scenario not in chosen:
            continue
        run = await perform(task, bench, sizes, clock)
        click.echo(f"  {run.scenario} {run.system} #{run.repeat + 1}: {run.values['per_second']:.0f}/s", err=True)
        runs.append(run)
    return runs


if __name__ == "__main__":
    main()
