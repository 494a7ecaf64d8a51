"""`python -m infra.lab.ollama_build`: build Ollama from source, fetch llama.cpp's server and small models. Needs Go 1.26; minutes once."""

from __future__ import annotations

import click

from infra.lab.ollama_build.ollama import Installer
from infra.native.settings import NativeSettings
from infra.native.waiting import now, seconds_since


def main() -> None:
    """Install a real Ollama of this project's own into the cache."""
    start = now()
    Installer(NativeSettings().cache_directory, lambda text: click.echo(f"[{seconds_since(start):5.1f} s] {text}", err=True)).install()


if __name__ == "__main__":
    main()
