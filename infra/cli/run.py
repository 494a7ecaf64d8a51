"""`tutti run`: services in this process."""

from __future__ import annotations

import importlib

import click

from shared.service import Build, main
from shared.services import NAMES


@click.command()
@click.argument("services", nargs=-1, required=True, type=click.Choice([*NAMES, "all"]))
@click.pass_context
def run(context: click.Context, services: tuple[str, ...]) -> None:
    """Run SERVICES (or all) in this process until SIGTERM or SIGINT.

    One process per service is the normal way; several in one process share an event loop and save memory on a small machine.
    """
    names = NAMES if "all" in services else tuple(dict.fromkeys(services))
    context.exit(main([(name, _build(name)) for name in names]))


def _build(name: str) -> Build:
    build: Build = importlib.import_module(f"services.{name}.app").build
    return build
