"""`tutti schemas`: the documents that are generated from the code."""

from __future__ import annotations

from pathlib import Path

import click

import infra
from infra.cli.exits import CommandExit, Exit
from infra.schemas import generate as generator


def _root() -> Path:
    root = Path(infra.__file__).parents[1]
    if not (root / "pyproject.toml").exists():
        raise CommandExit(Exit.USAGE, "schemas are generated in a checkout of the repository")
    return root


@click.group()
def schemas() -> None:
    """JSON Schemas, asyncapi.yaml, topics.json and the README's service table."""


@schemas.command()
def generate() -> None:
    """Write what is missing or stale."""
    changed = generator.write(_root())
    for path in changed:
        click.echo(path)
    click.echo(f"{len(changed)} files changed" if changed else "all files are current")


@schemas.command()
def check() -> None:
    """Exit with 1 when a file is not what the code would generate."""
    stale = generator.stale(_root())
    for path in stale:
        click.echo(path)
    if stale:
        raise CommandExit(Exit.FAILED, f"{len(stale)} generated files are stale; run `tutti schemas generate`")
    click.echo("all generated files are current")
