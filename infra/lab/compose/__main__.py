"""`python -m infra.lab.compose`: make the images that docker-compose.yml runs on without a registry. Minutes once, seconds then."""

from __future__ import annotations

import os
import sys

import click

from infra.lab.compose.engine import Engine
from infra.lab.compose.images import Images
from infra.native.errors import MissingTool, NativeError
from infra.native.paths import writing
from infra.native.settings import NativeSettings
from infra.native.waiting import now, seconds_since

EXIT_MISSING = 69
"""EX_UNAVAILABLE of sysexits.h."""


def main() -> None:
    """Make what is missing; says what is needed where it cannot be made. Exit code 69: not on this machine."""
    start, cache = now(), NativeSettings().cache_directory
    engine = Engine(cache)

    def say(text: str) -> None:
        click.echo(f"[{seconds_since(start):5.1f} s] {text}", err=True)

    try:
        if os.geteuid() != 0:
            raise MissingTool("the check looks at containers' processes from outside, and kills them, which takes root")
        engine.start()
    except NativeError as error:
        click.echo(f"NOT TESTED: docker-compose.yml in containers: {error.message}", err=True)
        sys.exit(EXIT_MISSING)
    images = Images(engine, cache, say)
    try:
        with writing():
            images.make()
            engine.compose()
    except NativeError as error:
        click.echo(f"images for docker-compose.yml cannot be made: {error.message}", err=True)
        sys.exit(1)
    finally:
        engine.stop()
    say("images are there; SecantusDB stands in for MongoDB")
    say("NOT TESTED: the registries' own images, MongoDB, Grafana (its part of the file is only read), GPUs")
    if not images.has_ollama():
        say("NOT TESTED: a real model in a container; `make ollama` builds what that takes (needs Go)")


if __name__ == "__main__":
    main()
