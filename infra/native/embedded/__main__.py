"""`python -m infra.native.embedded --port N [--model FILE]`: the embedded model node in the foreground."""

from __future__ import annotations

import argparse
from pathlib import Path

from infra.native.embedded.server import ServerOptions, serve


def _options() -> ServerOptions:
    parser = argparse.ArgumentParser(prog="python -m infra.native.embedded", description="llama.cpp with a small model, OpenAI-compatible.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--model", type=Path, help="a .gguf file; the packaged gemma3:270m when absent")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--context", type=int, default=2048, help="tokens for each slot")
    given = vars(parser.parse_args())
    return ServerOptions(**{**given, "model": given["model"] or _packaged_model()})


def _packaged_model() -> Path:
    from infra.native.embedded.packages import fetch_model
    from infra.native.settings import NativeSettings

    return fetch_model(NativeSettings().cache_directory)


if __name__ == "__main__":
    raise SystemExit(serve(_options()))
