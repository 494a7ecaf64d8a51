"""`tutti reviews`: texts that wait for people, through the ingress."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from infra.cli.exits import CommandExit, Exit
from infra.cli.output import AS_JSON, emit_json, emit_table, moment
from infra.cli.rest import api, called, part

_TENANT = click.option("--tenant", help="Whose review it is, where not the key's own tenant's.")


@click.group()
def reviews() -> None:
    """List texts that wait for people, show one, and decide on it."""


@reviews.command("list")
@click.option("--mine", is_flag=True, help="Only those that this key may decide on.")
@AS_JSON
def list_(*, mine: bool, as_json: bool) -> None:
    """Open reviews that the key may see, those first whose time is over first."""
    found = called("GET", f"/v1/reviews{'?mine=true' if mine else ''}")["reviews"]
    if as_json:
        emit_json(found)
        return
    emit_table(
        ("review", "tenant", "question", "asked", "said", "until", "else"),
        [
            (r["id"], r["tenant"], r["question"][:60], ", ".join(r["assignees"]) or "anyone", _said(r), moment(r["due_at"]), r["default"])
            for r in found
        ],
        empty="nothing waits for people",
    )


@reviews.command()
@click.argument("review")
@_TENANT
@AS_JSON
def show(review: str, tenant: str | None, *, as_json: bool) -> None:
    """The question, who was asked, and the text of REVIEW."""
    found = called("GET", f"/v1/reviews/{part(review)}", tenant=tenant)
    if as_json:
        emit_json(found)
        return
    click.echo(f"{found['question']}\n")
    for name, value in (
        ("state", found["state"]),
        ("asked", ", ".join(found["assignees"]) or "anyone"),
        ("said", f"{_said(found)} ({found['quorum']} must agree)"),
        ("until", f"{moment(found['due_at'])}, then {found['default']}"),
        ("digest", found["digest"]),
    ):
        click.echo(f"{name:8}{value}")
    click.echo(f"\n{found['artefact']}")


def _decides(verdict: str, about: str, *, text: bool) -> None:
    """A command for one verdict."""

    @reviews.command(verdict, help=about)
    @click.argument("review")
    @click.option("--text", required=text, help="The text." if text else "A remark.")
    @click.option("--digest", help="Of the text that was looked at, as `show` prints it; without it, of the one that is there now.")
    @_TENANT
    def decide(review: str, text: str | None, digest: str | None, tenant: str | None) -> None:
        asyncio.run(_decide(review, verdict, text or "", digest, tenant))


_decides("approve", "The text of REVIEW may go on.", text=False)
_decides("edit", "Another text goes on instead of that of REVIEW.", text=True)
_decides("reject", "The text of REVIEW does not go on.", text=False)
_decides("answer", "Answer the question of REVIEW with a text.", text=True)


async def _decide(review: str, verdict: str, text: str, digest: str | None, tenant: str | None) -> None:
    async with api(tenant=tenant) as connection:
        path = f"/v1/reviews/{part(review)}"
        digest = digest or (await connection.call("GET", path))["digest"]
        told = await connection.call("POST", path, {"verdict": verdict, "text": text, "digest": digest})
    if told["heard"] is None:
        raise CommandExit(Exit.TIMEOUT, f"{review}: its planner has not answered yet; say it again to see what became of it")
    click.echo(f"{review}: {verdict}, {told['state'] if told['state'] != 'open' else 'others are still asked'}")


def _said(review: dict[str, Any]) -> str:
    return ", ".join(f"{one['by']}: {one['verdict']}" for one in review["said"]) or "-"
