"""`tutti cache`: what the cache holds, through its HTTP API: how much, what to purge, what never to serve again."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import click

from infra.cli.exits import CommandExit, Exit
from infra.cli.output import emit_json, emit_table
from infra.cli.rest import api
from shared.services import PORTS


@click.group()
def cache() -> None:
    """Answers that may be served again."""


@cache.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def stats(*, as_json: bool) -> None:
    """Entries, bytes, what was evicted."""
    found = asyncio.run(_ask("GET", "/v1/cache"))
    if as_json:
        emit_json(found)
    else:
        emit_table(("what", "count"), sorted(found.items()), empty="no store is named (TUTTI_CACHE__STORE)")


@cache.command()
@click.option("--tenant", help="Of this tenant.")
@click.option("--model", help="Of this model, by its full name.")
@click.option("--tag", help="Of jobs that named this tag.")
@click.option("--document", help="Of jobs that named this document.")
@click.option("--yes", is_flag=True, help="Do it; without this only the entries are counted.")
def purge(*, yes: bool, **which: str | None) -> None:
    """Take entries away: those of which all that is named holds."""
    named = {name: value for name, value in which.items() if value is not None}
    if not named:
        raise CommandExit(Exit.USAGE, "say of which tenant, model, tag or document")
    found = asyncio.run(_ask("POST", "/v1/cache/purge", {**named, "dry_run": not yes}))
    click.echo(f"{found['entries']} entries {'purged' if yes else 'would be purged; --yes does it'}")


@cache.command()
@click.argument("entry")
@click.option("--hours", type=click.FloatRange(min=0.01, max=720), default=24.0, show_default=True, help="For so long.")
def bar(*, entry: str, hours: float) -> None:
    """Serve this entry no more (`served.entry` of an answer), nor take one in its place."""
    found = asyncio.run(_ask("POST", "/v1/cache/bar", {"entry": entry, "seconds": hours * 3_600}))
    click.echo("barred" if found["was_there"] else "barred; it was not there")


async def _ask(method: str, path: str, body: Any = None) -> Any:
    """TUTTI_CACHE_URL, else this machine's."""
    base = os.environ.get("TUTTI_CACHE_URL", f"http://127.0.0.1:{PORTS['cache']}").rstrip("/")
    async with api(base, who="cache", variable="TUTTI_CACHE_URL") as connection:
        return await connection.call(method, path, body)
