"""`tutti schedules`: recurring jobs, through the ingress."""

from __future__ import annotations

from typing import Any

import click
from pydantic import ValidationError
from pydantic_core import from_json

from infra.cli.exits import CommandExit, Exit
from infra.cli.output import AS_JSON, emit_json, emit_table, moment
from infra.cli.rest import called, part
from shared.contracts.base import CLASSES
from shared.contracts.bounds import explain
from shared.contracts.schedule import LATE_SECONDS, Missed, Schedule

_TENANT = click.option("--tenant", help="Whose schedule it is, where not the key's own tenant's.")


@click.group()
def schedules() -> None:
    """List, declare and remove recurring jobs; show when they run next."""


@schedules.command("list")
@AS_JSON
def list_(*, as_json: bool) -> None:
    """All schedules that the key may see."""
    found = called("GET", "/v1/schedules")["schedules"]
    if as_json:
        emit_json(found)
        return
    emit_table(
        ("schedule", "cron", "zone", "tenant", "class", "missed", "on", "next"),
        [
            (s["id"], s["cron"], s["time_zone"], s["tenant"], s["class"], s["missed"], "yes" if s["enabled"] else "no", _first(s))
            for s in found
        ],
        empty="no schedule is declared",
    )


@schedules.command()
@click.argument("name")
@click.argument("cron")
@click.argument("prompt", required=False)
@click.option("--time-zone", default="UTC", show_default=True, help="IANA name, for example Europe/Berlin.")
@click.option("--class", "priority_class", type=click.Choice([c.value for c in CLASSES]), default="standard", show_default=True)
@click.option(
    "--missed", type=click.Choice([m.value for m in Missed]), default="last", show_default=True, help="What becomes of missed runs."
)
@click.option("--late-seconds", type=float, default=LATE_SECONDS, show_default=True, help="A run later than this was missed.")
@click.option("--off", is_flag=True, help="Declare it without running it.")
@click.option("--job", "job_file", type=click.File("rb"), help="The job's body as JSON; `-` reads standard input. Instead of PROMPT.")
@click.option("--tenant", help="Whose runs they are.")
@click.option("--model", help="Instead of auto.")
def put(name: str, cron: str, prompt: str | None, **given: Any) -> None:
    """Declare NAME: at each time of CRON (five fields, or six with seconds first) a job with PROMPT begins."""
    if (prompt is None) == (given["job_file"] is None):
        raise click.UsageError("either PROMPT or --job is needed")
    job = {"prompt": prompt} if prompt is not None else _read(given["job_file"].read())
    job |= {field: given[field] for field in ("tenant", "model") if given[field] is not None}
    body = {"cron": cron, "job": job, "enabled": not given["off"]}
    body |= {field: given[field] for field in ("time_zone", "missed", "late_seconds")}
    try:
        Schedule.model_validate({**body, "id": name, "since": 0.0})
    except ValidationError as error:
        raise CommandExit(Exit.USAGE, explain(error, "schedule")) from None
    found = called("PUT", f"/v1/schedules/{part(name)}", {**body, "class": given["priority_class"]})
    click.echo(f"{name}: declared, next {_first(found)}")


def _read(text: bytes) -> dict[str, Any]:
    try:
        job = from_json(text)
    except ValueError as error:
        raise CommandExit(Exit.USAGE, f"the job is not JSON: {error}") from None
    if not isinstance(job, dict):
        raise CommandExit(Exit.USAGE, "the job must be a JSON object")
    return job


@schedules.command()
@click.argument("name")
@_TENANT
def delete(name: str, tenant: str | None) -> None:
    """Remove NAME; runs that have begun go on."""
    called("DELETE", f"/v1/schedules/{part(name)}", tenant=tenant)
    click.echo(f"{name}: removed")


@schedules.command("next")
@click.argument("name")
@_TENANT
@AS_JSON
def next_(name: str, tenant: str | None, *, as_json: bool) -> None:
    """When NAME runs next."""
    found = called("GET", f"/v1/schedules/{part(name)}", tenant=tenant)
    if as_json:
        emit_json(found)
        return
    emit_table(("run",), [(moment(instant),) for instant in found["next_at"]], empty="it is off")


def _first(schedule: dict[str, Any]) -> str:
    return moment(schedule["next_at"][0]) if schedule["next_at"] else "-"
