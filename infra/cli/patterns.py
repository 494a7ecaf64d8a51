"""`tutti patterns report`: what patterns gain over their baselines (`shared/patterns/gain.py`)."""

from __future__ import annotations

from typing import Any

import click
from pydantic import ValidationError

from infra.cli.cluster import Cluster, with_cluster
from infra.cli.instants import instant
from infra.cli.output import AS_JSON, emit_json, emit_table
from shared.contracts.result import Result
from shared.patterns.compare import COMPARE
from shared.patterns.gain import FEWEST, Gain, gains

_MARK = f'"pattern":"{COMPARE.name}"'.encode()


@click.group()
def patterns() -> None:
    """What patterns gain."""


@patterns.command()
@click.option("--tenant", help="Only of this one.")
@click.option("--since", metavar="WHEN", help="Only comparisons that ended since: 30m, 2h, 7d ago, or ISO 8601 with an offset.")
@AS_JSON
@click.pass_context
def report(context: click.Context, *, tenant: str | None, since: str | None, as_json: bool) -> None:
    """Gain of each pattern over its baseline, with 95 % interval, and what it costs: medians of the ratios to the baseline.

    Out of what `results` holds, so of the last 7 days. Planners make comparisons where TUTTI_PLANNER__COMPARED_SHARE is above 0.
    """
    found, failed = with_cluster(context, lambda cluster: _read(cluster, tenant, since))
    if as_json:
        emit_json({"fewest": FEWEST, "gains": [gain.as_json() for gain in found], "without_verdict": failed})
        return
    titles = ("tenant", "pattern", "baseline", "n", "better", "equal", "worse", "gain", "95 %", "cost", "time", "evidence")
    emit_table(titles, [_row(gain) for gain in found], empty="no comparisons: TUTTI_PLANNER__COMPARED_SHARE makes them")
    for name, count in failed.items():
        click.echo(f"tenant {name}: {count} comparisons without a verdict, not counted")


def _row(gain: Gain) -> tuple[Any, ...]:
    told = gain.as_json()
    low, high = told["interval"]
    ratios = ("-" if told[name] is None else f"{told[name]:.2f}x" for name in ("cost_ratio", "seconds_ratio"))
    counts = (gain.count, gain.better, gain.equal, gain.worse)
    shown = f"{told['gain']:+.2f}", f"{low:+.2f}..{high:+.2f}"
    return gain.tenant, gain.pattern, ", ".join(told["baselines"]), *counts, *shown, *ratios, told["evidence"]


async def _read(cluster: Cluster, tenant: str | None, since: str | None) -> tuple[list[Gain], dict[str, int]]:
    results: list[Result] = []
    begin = 0.0 if since is None else instant(since, cluster.clock.wall())
    async for record in cluster.read_all(cluster.topics.results):
        if _MARK in (value := record.value or b""):
            try:
                results.append(Result.model_validate_json(value))
            except ValidationError:
                continue
    return gains((result for result in results if result.finished_at >= begin), cluster.topics.settings.home_partitions, tenant)
