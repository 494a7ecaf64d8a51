"""`python -m infra.native.fetch`: download what the native components need, so that no test waits for the network.

A part that cannot be had is told and left out: whether that matters is for the tests to say.
"""

from __future__ import annotations

from collections.abc import Callable

import click

from infra.native import kafka
from infra.native.embedded import packages
from infra.native.errors import NativeError
from infra.native.paths import writing
from infra.native.settings import NativeSettings
from infra.native.waiting import now, seconds_since


def main() -> None:
    """Fetch Kafka's jars, llama.cpp and the small model into the cache; what is there is left alone."""
    cache = NativeSettings().cache_directory
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
