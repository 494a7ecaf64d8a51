"""`tutti verify`: whether what the cluster wrote keeps laws 1-3 (ARCHITECTURE, laws). Exit code 1 when anything is violated."""

from __future__ import annotations

from typing import Any

import click

from infra.cli.cluster import Cluster, with_cluster
from infra.cli.exits import CommandExit, Exit
from infra.cli.instants import instant
from infra.cli.output import AS_JSON, Progress, emit_json, emit_table
from infra.verify.laws import LAWS
from infra.verify.reading import scope_of
from infra.verify.reading import verify as verify_cluster
from infra.verify.report import Report


@click.command()
@click.option("--since", metavar="WHEN", help="Judge only jobs from then on: an age (90s, 15m, 2h, 7d) or ISO 8601 with an offset.")
@click.option("--until", metavar="WHEN", help="Judge only jobs up to then.")
@click.option("--settled", is_flag=True, help="Everything must have ended by now: what is live, waiting or delayed is a violation.")
@AS_JSON
@click.pass_context
def verify(context: click.Context, *, since: str | None, until: str | None, settled: bool, as_json: bool) -> None:
    """Read jobs, histories, outcomes and results, and report what was lost or accepted twice."""
    progress = Progress()

    async def check(cluster: Cluster) -> Report:
        now = cluster.clock.wall()
        bounds = {
            "since": 0.0 if since is None else instant(since, now),
            "until": float("inf") if until is None else instant(until, now),
            "settled": settled,
        }
        scope = await cluster.connected(scope_of(cluster.log, cluster.topics, **bounds))
        return await verify_cluster(
            cluster.log, scope, cluster.clock, lambda read, total: progress.show(f"{read:,} of {total:,} records read")
        )

    report = with_cluster(context, check)
    progress.clear()
    if as_json:
        emit_json(report.as_json())
    else:
        show(report)
    if report.violations:
        raise CommandExit(Exit.FAILED, f"{report.violations} violations: {report.lost} lost, {report.doubly_accepted} doubly accepted")


def show(report: Report) -> None:
    """The report as tables."""
    emit_table(("what", "count"), [(name, count) for name, count in _counts(report).items() if count])
    click.echo("")
    if not report.findings:
        click.echo("no violation")
        return
    emit_table(
        ("law", "violation", "count", "meaning"),
        [(LAWS[kind][0], kind.value, finding.count, LAWS[kind][1]) for kind, finding in report.findings.items()],
    )
    click.echo("")
    emit_table(
        ("violation", "where", "job", "seen"),
        [(kind.value, e.place, e.job, e.detail) for kind, finding in report.findings.items() for e in finding.examples],
    )


def _counts(report: Report) -> dict[str, Any]:
    counts = dict(report.as_json()["counts"])
    settled = counts.pop("settled")
    return {name.replace("_", " "): count for name, count in counts.items()} | {f"settled: {name}": n for name, n in settled.items()}
