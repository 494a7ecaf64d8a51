"""The parameters of llama.cpp's server, and its life as a process."""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.native.embedded.template import CHAT_TEMPLATE, MODEL, STOPS


@dataclass(frozen=True)
class ServerOptions:
    """What the node may use. Defaults suit two busy cores."""

    model: Path
    port: int
    host: str = "127.0.0.1"
    threads: int = 1
    slots: int = 2
    context: int = 2048
    """Tokens of prompt and answer together, for each slot."""
    max_tokens: int = 128
    """When the caller names no bound."""


def parameters(engine: Any, options: ServerOptions) -> Any:
    """`xllamacpp.CommonParams` for these options. `engine` is the module."""
    params = engine.CommonParams()
    params.model.path = str(options.model)
    params.model_alias = {MODEL}
    params.hostnames = [options.host]
    params.port = options.port
    params.n_ctx = options.context * options.slots
    params.n_parallel = options.slots
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.threads
    params.n_predict = options.max_tokens
    params.sampling.temp = 0.0
    params.use_jinja = True
    params.chat_template = CHAT_TEMPLATE
    params.antiprompt = list(STOPS)
    params.endpoint_metrics = True
    params.ui = False
    params.verbosity = 0
    return params


def serve(options: ServerOptions) -> int:
    """Serve until SIGTERM or SIGINT. llama.cpp answers /health with 503 while it loads. Returns the exit code."""
    import xllamacpp

    stops = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)  # before the engine's threads start, so that they inherit it
    server = xllamacpp.Server(parameters(xllamacpp, options))
    print(f"embedded model node: {MODEL} on {server.listening_address}, {options.slots} slots, {options.threads} thread(s)", flush=True)  # noqa: T201
    received = signal.sigwait(stops)
    print(f"stopping on {signal.Signals(received).name}", file=sys.stderr, flush=True)  # noqa: T201
    del server
    return 0
