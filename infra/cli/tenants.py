"""`tutti tenants`: limits per UTC day and of concurrent jobs, through the ingress."""

from __future__ import annotations

from typing import Any, BinaryIO, get_args

import click
from pydantic import ValidationError
from pydantic_core import from_json

from infra.cli.exits import CommandExit, Exit
from infra.cli.output import AS_JSON, emit_json, emit_table
from infra.cli.rest import called, part
from shared.contracts.bounds import explain
from shared.contracts.budget import TenantLimits
from shared.contracts.cache import Mode

_POLICIES_BYTES = 16 * 1024


@click.group()
def tenants() -> None:
    """List, show, declare, change and remove the limits of tenants."""


@tenants.command("list")
@AS_JSON
def list_(*, as_json: bool) -> None:
    """Tenants that have limits, with what is granted today."""
    found = called("GET", "/v1/tenants")["tenants"]
    if as_json:
        emit_json(found)
        return
    emit_table(
        ("tenant", "calls", "tokens", "cost", "jobs at once"),
        [(t["id"], *(_cell(t, name) for name in ("calls", "tokens", "cost")), t["limits"].get("concurrent_jobs", "-")) for t in found],
        empty="no tenant has limits",
    )


@tenants.command()
@click.argument("tenant")
@AS_JSON
def show(tenant: str, *, as_json: bool) -> None:
    """Limits of one tenant, and what is granted and used today as far as the ingress has seen."""
    found = called("GET", f"/v1/tenants/{part(tenant)}")
    if as_json:
        emit_json(found)
        return
    today = found.get("today", {})
    emit_table(
        ("limit", "bound", "granted today", "used today"),
        [
            (name, found["limits"].get(name, "-"), _of(today, "granted", name), _of(today, "used", name))
            for name in TenantLimits.model_fields
            if name != "policies"
        ],
    )
    for policy in found["limits"].get("policies", ()):
        click.echo(f"{policy['direction']}: {policy['action']} by {', '.join(policy['checks']) or 'a judge'}")


@tenants.command()
@click.argument("tenant")
@click.option("--calls", type=int, help="Model calls a day.")
@click.option("--tokens", type=int, help="Tokens a day.")
@click.option("--cost", type=float, help="Cost a day, in the cluster's currency.")
@click.option("--concurrent-jobs", type=int, help="Jobs at once.")
@click.option("--soft", type=float, help="Fraction of a day's limit from which on an alert is raised; 0.8 when left out.")
@click.option("--job-calls", type=int, help="Most calls of one job.")
@click.option("--job-tokens", type=int, help="Most tokens of one job.")
@click.option("--job-cost", type=float, help="Most cost of one job.")
@click.option("--policies", type=click.File("rb"), help="A JSON list: what is checked of its inputs and answers (`tutti critique`).")
@click.option("--cache", type=click.Choice(get_args(Mode)), help="How its jobs use the cache that say nothing; off when left out.")
@click.option("--cache-ttl", type=float, help="Longest time that an answer of it may be served, in seconds.")
@click.option("--cache-global", is_flag=True, help="Its jobs may share answers with other tenants that may, too.")
@click.option("--cache-never", is_flag=True, help="Nothing of its jobs is kept, whatever they ask.")
@click.option("--no-choice", is_flag=True, help="`auto` is any model for its jobs, a tier its best card, whatever is asked.")
def put(tenant: str, **given: Any) -> None:
    """Declare all limits of a tenant anew: what is left out is unlimited, and not checked."""
    _declare(tenant, {}, **given)


@tenants.command("set", params=list(put.params))
def set_(tenant: str, **given: Any) -> None:
    """Change the limits that are named; all others stay as `show` has them (which a change reaches within a second)."""
    _declare(tenant, called("GET", f"/v1/tenants/{part(tenant)}")["limits"], **given)


def _declare(
    tenant: str, before: dict[str, Any], *, policies: BinaryIO | None, no_choice: bool, cache: str | None, cache_ttl: float | None,
    cache_global: bool, cache_never: bool, **given: Any,
) -> None:  # fmt: skip
    own = {name: value for name, value in given.items() if not name.startswith("job_")}
    caps = {name.removeprefix("job_"): value for name, value in given.items() if name not in own}
    kept = {"mode": cache, "ttl": cache_ttl, "scope": "global" if cache_global else None, "allowed": False if cache_never else None}
    changes = {"choice": False if no_choice else None, "cache": _changed(before.get("cache", {}), kept) or None}
    try:
        checked = None if policies is None else from_json(policies.read(_POLICIES_BYTES))
        changed = _changed(before, own | changes | {"job": _changed(before.get("job", {}), caps), "policies": checked})
        limits = TenantLimits.model_validate(changed)
    except ValidationError as error:
        raise CommandExit(Exit.USAGE, explain(error, "tenant")) from None
    except ValueError:
        raise CommandExit(Exit.USAGE, "the policies are not JSON") from None
    called("PUT", f"/v1/tenants/{part(tenant)}", limits.model_dump(mode="json", exclude_none=True))
    click.echo(f"{tenant}: declared")


def _changed(before: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """With what is named; the rest stays."""
    return before | {name: value for name, value in changes.items() if value is not None}


@tenants.command()
@click.argument("tenant")
def remove(tenant: str) -> None:
    """Take all limits of a tenant away."""
    called("DELETE", f"/v1/tenants/{part(tenant)}")
    click.echo(f"{tenant}: no limits")


@tenants.command()
@click.argument("tenant")
@click.option("--dry-run", is_flag=True, help="Only show what would go, and what stays.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@AS_JSON
def erase(tenant: str, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Erase what is held of a tenant: keys, limits, schedules, conversations, statuses, the sink's rows. What goes is shown first."""
    path = f"/v1/tenants/{part(tenant)}/erase"
    found = called("POST", path, {"dry_run": True})
    if not dry_run:
        if not yes:
            _show(found)
            click.confirm(f"erase the tenant {tenant} for good?", abort=True, err=True)
        found = called("POST", path, {"dry_run": False})
    if as_json:
        emit_json(found)
    elif dry_run or yes:
        _show(found)
    if not dry_run and not as_json:
        click.echo(f"{tenant}: erased; what still ran is later than that: `erase` again when it has ended")


def _show(found: dict[str, Any]) -> None:
    goes = [(row["what"], row.get("count", "all"), "") for row in found["goes"]]
    stays = [(row["what"], "", f"{row['days']:g} days" if "days" in row else "as set") for row in found["stays"]]
    emit_table(("what", "goes", "stays"), goes + stays)


def _cell(tenant: dict[str, Any], name: str) -> str:
    bound = tenant["limits"].get(name)
    return "-" if bound is None else f"{_of(tenant.get('today', {}), 'granted', name) or 0} of {bound}"


def _of(today: dict[str, Any], kind: str, name: str) -> str:
    return str(today.get(kind, {}).get(name, ""))
