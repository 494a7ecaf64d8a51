"""`tutti up`, `down`, `status`, `logs`: the stack on this machine. Errors become lines and exit codes in infra/cli/main.py."""

from __future__ import annotations

from typing import Any

import click

from infra.cli import happened
from infra.cli.exits import Exit
from infra.cli.instants import instant
from infra.cli.output import emit_json, emit_table
from infra.cli.sink import form_option
from infra.native import follow, report
from infra.native.node import CHOICES
from infra.native.report import Row
from infra.native.settings import NativeSettings
from infra.native.stack import Stack
from infra.native.waiting import now, seconds_since
from shared.clock import SystemClock


def _stack(**chosen: str | None) -> Stack:
    settings = NativeSettings().model_copy(update={name: value for name, value in chosen.items() if value not in (None, "auto")})
    start = now()
    return Stack(settings, lambda text: click.echo(f"[{seconds_since(start):5.1f} s] {text}", err=True))


def _show(rows: list[Row], *, as_json: bool) -> None:
    if as_json:
        emit_json([row.as_json() for row in rows])
        return
    emit_table(report.TITLES, report.cells(rows))
    for row in rows:
        if row.component == "sink" and row.state == "ready":
            click.echo(f"dashboard: {row.address}/")
    for warning in report.warnings(rows):
        click.echo(f"note: {warning}")


@click.command()
@click.option("--node", type=click.Choice(["auto", *CHOICES]), help="Which model node; auto takes the first that is there.")
@click.option(
    "--announce", metavar="NAME", help="Announce the cluster on this network, for `tutti join` (TUTTI_KAFKA_OPEN_HOST opens Kafka)."
)
@click.option("--json", "as_json", is_flag=True, help="Print the status as JSON.")
@click.pass_context
def up(context: click.Context, node: str | None, announce: str | None, as_json: bool) -> None:
    """Start Kafka, Redis, a model node and the services; what runs already is left alone. Data lies under .tutti/."""
    rows = _stack(node=node, announce=announce).up()
    _show(rows, as_json=as_json)
    context.exit(Exit.OK if report.all_ready(rows) else Exit.FAILED)


@click.command()
@click.option("--clean", is_flag=True, help="Remove data and logs too.")
def down(clean: bool) -> None:
    """Stop what `up` started, in reverse order; data stays unless --clean."""
    _stack().down(clean=clean)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def status(context: click.Context, as_json: bool) -> None:
    """What runs, where, and what is simulated. Exit code 3 unless everything is ready."""
    rows = _stack().status()
    _show(rows, as_json=as_json)
    context.exit(Exit.OK if report.all_ready(rows) else Exit.UNREACHABLE)


@click.command()
@click.argument("components", nargs=-1)
@click.option("--follow", "-f", "following", is_flag=True, help="Go on with new lines until interrupted.")
@click.option("--lines", "-n", type=click.IntRange(0), default=20, show_default=True, help="Last lines of each component; or events.")
@click.option("--events", is_flag=True, help="Instead: what happened in the cluster, from the sink: the newest events.")
@click.option("--job", metavar="ID", help="Instead: all that happened to this job.")
@click.option("--nodes", is_flag=True, help="Instead: what nodes said of themselves (an administrator's).")
@click.option("--since", metavar="TIME", default="1h", show_default=True, help="Of events: 30m, 2h, 7d ago, or an instant.")
@click.option("--tenant", help="Of events, an administrator's: of this tenant only.")
@form_option
def logs(components: tuple[str, ...], following: bool, lines: int, **of_events: Any) -> None:
    """Logs of COMPONENTS on this machine (all when none is named), each line with its component's name; or what happened, from the sink."""
    tenant, form = of_events["tenant"], of_events["form"]
    if of_events["job"]:
        happened.of_job(of_events["job"], tenant, form)
        return
    if of_events["nodes"]:
        happened.nodes(lines, form)
        return
    if of_events["events"]:
        happened.lately(instant(of_events["since"], SystemClock().wall()), tenant, lines, form)
        return
    known = _stack().logs()
    for name in components:
        if name not in known:
            raise click.UsageError(f"no log of {name!r}; there are: {', '.join(known) or 'none yet'}")
    chosen = {name: known[name] for name in components or known}
    for component, line in follow.last_lines(chosen, lines):
        click.echo(f"{component:<14} {line}")
    if following:
        for component, line in follow.follow(chosen):
            click.echo(f"{component:<14} {line}")
