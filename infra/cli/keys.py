"""`tutti keys`: API keys, through the ingress. A key is shown once, where it is made."""

from __future__ import annotations

from typing import Any

import click

from infra.cli.output import AS_JSON, emit_json, emit_table
from infra.cli.rest import called, part
from shared.clock import SystemClock
from shared.contracts.base import CLASSES, DAY_SECONDS
from shared.contracts.keys import GRACE_SECONDS, Role


@click.group()
def keys() -> None:
    """Make, list, change, rotate and revoke API keys."""


def _terms(command: Any) -> Any:
    """What a key may, as options."""
    for option in (
        click.option("--tenant", default="default", show_default=True, help="Whose jobs these are."),
        click.option("--role", type=click.Choice([role.value for role in Role]), default=Role.USER.value, show_default=True),
        click.option("--ceiling", type=click.Choice([c.value for c in CLASSES]), help="The most urgent class that it may ask for."),
        click.option("--requests-per-minute", type=float),
        click.option("--tokens-per-minute", type=float),
        click.option("--days", type=click.FloatRange(min=0, max=36_500), help="It expires after so many."),
    ):
        command = option(command)
    return command


@keys.command()
@click.argument("name")
@_terms
def create(name: str, **given: Any) -> None:
    """Make a key and print it: nobody can tell it again."""
    made = called("POST", "/v1/keys", {"name": name, **_body(given)})
    click.echo(made["key"])


@keys.command()
@click.argument("name")
@_terms
def change(name: str, **given: Any) -> None:
    """Declare all of a key's terms anew; the key itself stays."""
    called("PUT", f"/v1/keys/{part(name)}", _body(given))
    click.echo(f"{name}: changed")


@keys.command()
@click.argument("name")
@click.option("--grace-seconds", type=float, default=GRACE_SECONDS, show_default=True, help="So long the key of before holds.")
def rotate(name: str, grace_seconds: float) -> None:
    """Make it a new key and print that."""
    click.echo(called("POST", f"/v1/keys/{part(name)}/rotate", {"grace_seconds": grace_seconds})["key"])


@keys.command()
@click.argument("name")
def revoke(name: str) -> None:
    """Nobody is let in by it any more."""
    called("DELETE", f"/v1/keys/{part(name)}")
    click.echo(f"{name}: revoked")


@keys.command("list")
@AS_JSON
def list_(*, as_json: bool) -> None:
    """Keys that were made at run time."""
    found = called("GET", "/v1/keys")["keys"]
    if as_json:
        emit_json(found)
        return
    rows = [(k["id"], k["tenant"], k["role"], k.get("ceiling", "-"), k.get("expires_at", "-"), k.get("by", "")) for k in found]
    emit_table(("key", "tenant", "role", "ceiling", "expires", "by"), rows, empty="no key was made at run time")


def _body(given: dict[str, Any]) -> dict[str, Any]:
    days = given.pop("days")
    terms = {name: value for name, value in given.items() if value is not None}
    return terms if days is None else terms | {"expires_at": SystemClock().wall() + days * DAY_SECONDS}
