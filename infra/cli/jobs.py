"""`tutti jobs`: what became of a job, over the ingress."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from typing import Any

import click

from infra.cli.answer import exit_code, show_human
from infra.cli.exits import Exit
from infra.cli.output import AS_JSON, emit_json, emit_table, moment
from infra.cli.replay import replay
from infra.cli.rest import api, describe
from infra.cli.tree import draw
from shared.agents import suiting
from shared.contracts.result import Result, Status
from shared.placement import why
from shared.scheduling.places import in_words

_TENANT = click.option("--tenant", help="Whose job it is, where not the key's own tenant's.")


@click.group()
def jobs() -> None:
    """Look at a job, cancel it, follow its events, run it again (TUTTI_URL names the ingress)."""


jobs.add_command(replay)


@jobs.command()
@click.argument("job_id", metavar="ID")
@_TENANT
@AS_JSON
@click.option("--tree", "form", flag_value="tree", help="Draw its steps as a tree.")
@click.option("--why", "form", flag_value="why", help="Say of each step why its model and its node were chosen, and what others lost by.")
@click.option("--mermaid", "form", flag_value="mermaid", help="Print the tree as a Mermaid chart.")
@click.pass_context
def get(context: click.Context, job_id: str, tenant: str | None, as_json: bool, form: str | None) -> None:
    """Show a job's state, its steps and its result. Exits with 1 when the job ended without success."""
    if form is not None and form != "why":
        context.exit(int(asyncio.run(_tree(job_id, tenant, as_chart=form == "mermaid", as_json=as_json))))
    status = asyncio.run(_status(job_id, tenant))
    result = Result.model_validate(status["result"]) if "result" in status else None
    if as_json:
        emit_json(status)
    elif form == "why":
        click.echo("\n".join(_why(status)))
    else:
        _show_status(status, result)
    context.exit(int(Exit.OK if result is None else exit_code(result)))


def _why(status: dict[str, Any]) -> Iterator[str]:
    """Of each step, how its model was chosen, and as its newest attempt was placed."""
    for step in status.get("steps", ()):
        told, choice = why.read(step.get("why") or ""), suiting.read(step.get("choice") or "")
        lines = [*([] if choice is None else suiting.in_words(choice)), *([] if told is None else why.in_words(told))]
        yield f"{step.get('path') or step['id']}: " + ("" if lines else "not told")
        yield from (f"  {line}" for line in lines)


def _show_status(status: dict[str, Any], result: Result | None) -> None:
    shown = ("id", "state", "class", "tenant", "pattern", "model", "conversation", "home")
    rows = [(name, status[name]) for name in shown if status.get(name) is not None]
    if status.get("conversation") and status["state"] == "accepted":
        rows[1] = ("state", "accepted, waits for its turn in the conversation")
    if (line := status.get("line")) is not None:
        rows.append(("line", _in_line(line)))
    rows += [
        (name.removesuffix("_at"), moment(status[name]))
        for name in ("submitted_at", "not_before", "accepted_at", "deadline_at", "settled_at")
        if name in status
    ]
    rows += [
        (kind.removesuffix("s"), f"{reference} (version {version})")
        for kind in ("agents", "prompts", "tools")
        for reference, version in status.get(kind, {}).items()
    ]
    emit_table(("field", "value"), rows)
    if status.get("steps"):
        click.echo()
        emit_table(
            ("step", "state", "attempt", "nodes", "failures"),
            [
                (step.get("path") or step["id"], _state(step), step["attempt"], ",".join(step["nodes"]), ",".join(step["failures"]))
                for step in status["steps"]
            ],
        )
    if result is not None:
        click.echo()
        show_human(result, "" if result.answer is None else result.answer.text)


def _in_line(line: dict[str, Any]) -> str:
    latest = line.get("latest")
    return in_words(line["place"], line.get("seconds")) + ("" if latest is None else f" ({line['earliest']:.0f} to {latest:.0f} s)")


def _state(step: dict[str, Any]) -> str:
    """With when it ends, of what waits."""
    until = step.get("retry_at") if step["state"] == "retrying" else step.get("due_at") if step["state"] == "sleeping" else None
    return str(step["state"]) if until is None else f"{step['state']} until {moment(until)}"


@jobs.command()
@click.argument("job_id", metavar="ID")
@_TENANT
def cancel(job_id: str, tenant: str | None) -> None:
    """Ask for a job's end; what it runs is stopped."""
    found = asyncio.run(_cancel(job_id, tenant))
    click.echo(f"{job_id} has ended already" if found["state"] == "settled" else f"cancel of {job_id} is on its way")


@jobs.command()
@click.argument("job_id", metavar="ID")
@_TENANT
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.pass_context
def events(context: click.Context, job_id: str, tenant: str | None, as_json: bool) -> None:
    """Follow a job's events from its beginning to its end."""
    context.exit(int(asyncio.run(_events(job_id, tenant, as_json=as_json))))


async def _status(job: str, tenant: str | None) -> dict[str, Any]:
    async with api(tenant=tenant) as connection:
        return await connection.status(job)


async def _tree(job: str, tenant: str | None, *, as_chart: bool, as_json: bool) -> Exit:
    async with api(tenant=tenant) as connection:
        if as_chart:
            click.echo(await connection.chart(job), nl=False)
            return Exit.OK
        tree = await connection.tree(job)
    if as_json:
        emit_json(tree.model_dump(mode="json", exclude_none=True))
    else:
        click.echo("\n".join(draw(tree, colour=sys.stdout.isatty())))
    return Exit.OK if tree.status in (None, Status.SUCCEEDED) else Exit.FAILED


async def _cancel(job: str, tenant: str | None) -> dict[str, Any]:
    async with api(tenant=tenant) as connection:
        return await connection.cancel(job)


async def _events(job: str, tenant: str | None, *, as_json: bool) -> Exit:
    code = Exit.OK
    async with api(tenant=tenant) as connection:
        async for event in connection.events(job):
            click.echo(json.dumps(event, ensure_ascii=False) if as_json else _event_line(event))
            if "result" in event:
                code = exit_code(Result.model_validate(event["result"]))
    return code


def _event_line(event: dict[str, Any]) -> str:
    """When, what, and the rest of it in short. Text of answers is shown: who may follow a job may read it."""
    if event["type"] == "chunk":
        return f"{'':20}  chunk at {event['offset']}: {event['text']!r}"
    if event["type"] == "place":
        return f"{'':20}  {event['text']}"
    if event["type"] == "status":
        return f"{moment(event.get('accepted_at', 0))}  {event['state']}"
    if event["type"] == "job_settled":
        return f"{moment(event['at'])}  {event['result']['status']}"
    return f"{moment(event['at'])}  {describe(event)}"
