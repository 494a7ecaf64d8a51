"""`tutti tools`: the cluster's tools: list, show, declare those of a file, call one."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import click

from infra.cli.declarations import of_kind
from infra.cli.exits import CommandExit, Exit
from infra.cli.output import AS_JSON
from infra.cli.rest import api
from shared.contracts.agents import Tool
from shared.contracts.base import PriorityClass

WAIT_SECONDS = 60.0

tools = of_kind("tool")


@tools.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
def declare(file: str) -> None:
    """Declare all tools of FILE (as `tutti run worker --tools` takes it): from now on models may be given them. MCP servers are asked what
    their tools are; what they say later changes nothing until it is declared again.
    """
    from services.worker.tools.declared import declaration, read_tools

    found = read_tools(file)

    async def put() -> None:
        listed = {name: await _listed(name, server) for name, server in found.servers.items()}
        bodies = {name: declaration(tool, _of_server(name, tool, listed)) for name, tool in found.tools.items()}
        async with api() as connection:
            for name, body in bodies.items():
                shown = await connection.call("PUT", f"/v1/tools/{name}", json.loads(body.encoded(exclude_defaults=True)))
                click.echo(f"{name}: version {shown['version']} is latest")

    asyncio.run(put())


async def _listed(name: str, server: Any) -> dict[str, Tool]:
    from services.worker.tools.mcp_servers import listed
    from shared.errors import TuttiError

    try:
        return await listed(server)
    except TuttiError:
        raise
    except Exception as error:  # whatever a stranger's server does
        raise CommandExit(Exit.UNREACHABLE, f"the MCP server {name} does not answer: {type(error).__name__}") from error


def _of_server(name: str, tool: Any, listed: dict[str, dict[str, Tool]]) -> Tool | None:
    if tool.kind != "mcp":
        return None
    known = listed[tool.server]
    if (tool.name or name) not in known:
        raise CommandExit(
            Exit.USAGE, f"the MCP server {tool.server} has no tool {tool.name or name}; it has {', '.join(sorted(known)) or 'none'}"
        )
    return known[tool.name or name]


@tools.command()
@click.argument("name")
@click.argument("arguments", default="{}")
@click.option("--class", "priority", type=click.Choice([c.value for c in PriorityClass]), default="interactive", show_default=True)
@click.option("--tenant", help="Who asks.")
@AS_JSON
def call(name: str, arguments: str, *, priority: str, tenant: str | None, as_json: bool) -> None:
    """Call NAME with ARGUMENTS, a JSON object: a job of one step, which is durable as all are."""
    body = {"prompt": arguments, "pattern": "tools", "input": {"tool": name}, "class": priority}

    async def ask() -> Any:
        async with api(tenant=tenant) as connection:
            return await connection.call("POST", f"/v1/jobs?wait={WAIT_SECONDS:g}", body)

    async def lacks(job: str) -> str:
        async with api(tenant=tenant) as connection:
            steps = (await connection.status(job)).get("steps", ())
        return ", ".join(dict.fromkeys(phrase for step in steps for phrase in step.get("missing", ())))

    job = asyncio.run(ask())
    if as_json:
        click.echo(json.dumps(job, indent=2))
        return
    result = job.get("result")
    if result is None:
        missing = asyncio.run(lacks(job["id"]))
        why = f"; no node has {missing}: does a worker serve it (`tutti run worker --tools`)?" if missing else ""
        raise CommandExit(Exit.TIMEOUT, f"no result within {WAIT_SECONDS:g} s{why}; `tutti jobs get {job['id']}` shows what becomes of it")
    if result.get("answer") is None:
        raise CommandExit(Exit.FAILED, result["failure"]["message"])
    click.echo(result["answer"]["text"])
