"""`tutti run`: services in this process."""

from __future__ import annotations

import importlib
import os
from typing import cast

import click

from shared.errors import ConfigurationError
from shared.service import Build
from shared.service.process import run_process
from shared.services import NAMES, ListedService, listed


@click.command()
@click.argument("services", nargs=-1, required=True, metavar=f"[{'|'.join(NAMES)}|all]...")
@click.option("--agents", metavar="NAMES", help="What the worker serves, research,code for example: the same as TUTTI_WORKER__AGENTS.")
@click.option("--tools", "tools_file", metavar="FILE", help="Serve the tools of FILE instead of models: the same as TUTTI_WORKER__TOOLS.")
@click.pass_context
def run(context: click.Context, services: tuple[str, ...], agents: str | None, tools_file: str | None) -> None:
    """Run SERVICES (or all) in this process until SIGTERM or SIGINT. TUTTI_SERVICES adds some from elsewhere.

    One process per service is the normal way; several in one process share an event loop and save memory on a small machine.
    """
    try:
        known = {service.name: service for service in listed()}
    except ConfigurationError as error:
        raise click.UsageError(error.message) from None
    names = tuple(known) if "all" in services else tuple(dict.fromkeys(services))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is not one of {', '.join((*known, 'all'))}", param_hint="SERVICES")
    for option, given, variable in (("--agents", agents, "TUTTI_WORKER__AGENTS"), ("--tools", tools_file, "TUTTI_WORKER__TOOLS")):
        if given is None:
            continue
        if "worker" not in names:
            raise click.UsageError(f"{option} says what a worker serves: none is run here")
        os.environ[variable] = given
    context.exit(run_process([build for name in names for build in _builds(known[name])]))


def _builds(service: ListedService) -> list[tuple[str, Build]]:
    """What runs as this service: of a worker that serves tools, one a node."""
    if service.name == "worker" and os.environ.get("TUTTI_WORKER__TOOLS"):
        return cast("list[tuple[str, Build]]", importlib.import_module("services.worker.tools.nodes").builds())
    return [(service.name, importlib.import_module(f"{service.module}.app").build)]
