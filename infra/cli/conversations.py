"""`tutti conversations`: what jobs of one conversation have said, through the ingress."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from infra.cli.exits import CommandExit, Exit
from infra.cli.output import AS_JSON, emit_json, emit_table, moment
from infra.cli.rest import called, part
from infra.cli.sink import ask, emit_rows

_MOST_SHOWN = 10_000
_USED = ("conversation", "tenant", "turns", "waiting", "jobs", "prompt_tokens", "completion_tokens", "wasted_tokens", "cost", "used")
_TENANT = click.option("--tenant", help="Whose conversation it is, where not the key's own tenant's.")


@click.group()
def conversations() -> None:
    """List conversations, show what is kept of one, and have it forgotten."""


@conversations.command("list")
@click.option("--used", is_flag=True, help="Ask the sink instead, also for what their jobs used.")
@AS_JSON
def list_(*, used: bool, as_json: bool) -> None:
    """Those that the key may see, used last first."""
    if used:
        asyncio.run(_used(as_json=as_json))
        return
    found = called("GET", "/v1/conversations")["conversations"]
    if as_json:
        emit_json(found)
        return
    emit_table(
        ("conversation", "tenant", "turns", "runs", "wait", "changed"),
        [(c["id"], c["tenant"], c["turns"], c["running"] or "-", c["waiting"], moment(c["changed_at"])) for c in found],
        empty="no conversation is kept",
    )


@conversations.command()
@click.argument("conversation")
@click.option("--turns", type=click.IntRange(1, 1_000), default=50, show_default=True, help="So many of the newest.")
@_TENANT
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON: an export.")
def get(conversation: str, turns: int, tenant: str | None, *, as_json: bool) -> None:
    """What is known of CONVERSATION, and what was said in it."""
    found = called("GET", f"/v1/conversations/{part(conversation)}?turns={turns}", tenant=tenant)
    if as_json:
        emit_json(found)
        return
    known = {name: told if isinstance(told := found[name], str) else "; ".join(told) for name in ("summary", "facts", "preferences")}
    about = [f"{name:12}{told}" for name, told in known.items() if told]
    said = (
        [f"{turn['job']}, {moment(turn['at'])}", *(f"{m['role']}: {m['content']}" for m in turn["messages"])]
        for turn in found["messages_of"]
    )
    if text := "\n\n".join("\n".join(part) for part in (about, *said) if part):
        click.echo(text)


@conversations.command()
@click.argument("conversation")
@_TENANT
def delete(conversation: str, tenant: str | None) -> None:
    """Forget CONVERSATION."""
    told = called("DELETE", f"/v1/conversations/{part(conversation)}", tenant=tenant)
    if told:
        raise CommandExit(Exit.TIMEOUT, f"{conversation}: its planner has not answered yet; look again with `tutti conversations list`")
    click.echo(f"{conversation}: forgotten")


async def _used(*, as_json: bool) -> None:
    found: list[dict[str, Any]] = []
    page: dict[str, Any] = {"next": ""}
    while page["next"] is not None and len(found) < _MOST_SHOWN:
        page = await ask("/v1/conversations", {"before": page["next"] or None, "limit": 1_000})
        found += page["rows"]
    shown = [row | {"used": moment(row["at"])} for row in found]
    emit_rows(shown, _USED, "json" if as_json else None, empty="no conversation is known")
