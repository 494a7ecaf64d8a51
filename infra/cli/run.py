"""`tutti run`: services in this process."""

from __future__ import annotations

import importlib

import click

from shared.service import Build, main
from shared.settings import PORTS

ORDER = ("planner", "router", "worker", "delay", "ingress")
"""What `all` means: the ingress last, so that it is ready only when there is somebody to answer."""


@click.command()
@click.argument("services", nargs=-1, required=True, type=click.Choice([*PORTS, "all"]))
@click.pass_context
def run(context: click.Context, services: tuple[str, ...]) -> None:
    """Run SERVICES (or all) in this process until SIGTERM or SIGINT.

    One process per service is the normal way; several in one process share an event loop and save memory on a small machine.
    """
    names = ORDER if "all" in services else tuple(dict.fromkeys(services))
    context.exit(main([(name, _build(name)) for name in names]))


def _build(name: str) -> Build:
    build: Build = importlib.import_module(f"services.{name}.app").build
    return build
