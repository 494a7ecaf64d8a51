"""`python -m infra.lab.kubernetes`: build Helm, a Kubernetes control plane and what the chart is judged by. Needs Go 1.26; minutes once."""

from __future__ import annotations

import sys

import click

from infra.lab.kubernetes.tools import Tools
from infra.native.errors import NativeError
from infra.native.settings import NativeSettings
from infra.native.waiting import now, seconds_since

EXIT_MISSING = 69
"""EX_UNAVAILABLE of sysexits.h."""


def main() -> None:
    """Make what is missing in the cache; says what is needed where it cannot be made."""
    start = now()
    try:
        Tools(NativeSettings().cache_directory).install(lambda text: click.echo(f"[{seconds_since(start):5.1f} s] {text}", err=True))
    except NativeError as error:
        click.echo(f"helm-check cannot be run: {error.message}", err=True)
        sys.exit(EXIT_MISSING)


if __name__ == "__main__":
    main()
