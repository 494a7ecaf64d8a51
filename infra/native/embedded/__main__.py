"""`python -m infra.native.embedded --port N [--model FILE]`: the embedded model node in the foreground."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from infra.cli.exits import Program
from infra.native.embedded.server import ServerOptions, serve


@click.command(cls=Program, context_settings={"show_default": True})
@click.option("--port", type=click.IntRange(0, 65_535), required=True)
@click.option("--host", default=ServerOptions.host)
@click.option("--model", type=click.Path(path_type=Path), help="A .gguf file; the packaged gemma3:270m when absent.")
@click.option("--threads", type=click.IntRange(1), default=ServerOptions.threads)
@click.option("--slots", type=click.IntRange(1), default=ServerOptions.slots)
@click.option("--context", type=click.IntRange(1), default=ServerOptions.context, help="Tokens for each slot.")
def main(*, port: int, host: str, model: Path | None, threads: int, slots: int, context: int) -> None:
    """llama.cpp with a small model, OpenAI-compatible."""
    sys.exit(serve(ServerOptions(model or _packaged_model(), port, host, threads, slots, context)))


def _packaged_model() -> Path:
    from infra.native.embedded.packages import fetch_model
    from infra.native.settings import NativeSettings

    return fetch_model(NativeSettings().cache_directory)


if __name__ == "__main__":
    main()
