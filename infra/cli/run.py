"""`tutti run`: services in this process."""

from __future__ import annotations

import importlib
import os

import click

from shared.errors import ConfigurationError
from shared.service import Build, main
from shared.services import NAMES, ListedService, listed


@click.command()
@click.argument("services", nargs=-1, required=True, metavar=f"[{'|'.join(NAMES)}|all]...")
@click.option("--agents", metavar="NAMES", help="What the worker serves, research,code for example: the same as TUTTI_WORKER__AGENTS.")
@click.pass_context
def run(context: click.Context, services: tuple[str, ...], agents: str | None) -> None:
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
    if agents is not None:
        if "worker" not in names:
            raise click.UsageError("--agents says what a worker serves: none is run here")
        os.environ["TUTTI_WORKER__AGENTS"] = agents
    context.exit(main([(name, _build(known[name])) for name in names]))


def _build(service: ListedService) -> Build:
    build: Build = importlib.import_module(f"{service.module}.app").build
    return build
