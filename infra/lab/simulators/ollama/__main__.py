"""Start a simulated Ollama: `python -m infra.lab.simulators.ollama --port 11435 --profile instant`.

Options also come from the environment: TUTTI_SIMULATOR_PORT, TUTTI_SIMULATOR_PROFILE, ...
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import click
import uvicorn
import uvloop
from pydantic import ValidationError

from infra.cli.exits import Program
from infra.lab.simulators.ollama.core import SimulatedOllama
from infra.lab.simulators.ollama.parameters import PROFILES, Parameters, parse_model
from infra.lab.simulators.ollama.server import application
from shared.clock import SystemClock


@click.command(cls=Program, context_settings={"auto_envvar_prefix": "TUTTI_SIMULATOR", "show_default": True})
@click.option("--host", default="127.0.0.1")
@click.option("--port", default=11435, type=click.IntRange(0, 65535))
@click.option("--profile", default="workstation", type=click.Choice(list(PROFILES)))
@click.option("--seed", default=0, help="Of texts, jitter and chance.")
@click.option("--models", default="", help="name:size_gb,... instead of the profile's models.")
@click.option("--set", "values", multiple=True, metavar="NAME=JSON", help="Any other parameter, for example num_parallel=2.")
@click.option("--parameters", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="JSON file of parameters; wins.")
def main(*, host: str, port: int, profile: str, seed: int, models: str, values: tuple[str, ...], file: Path | None) -> None:
    """A simulated Ollama node."""
    try:
        parameters = _parameters(profile, seed, models, values, file)
    except (ValidationError, ValueError) as error:
        raise click.UsageError(str(error)) from error
    click.echo(f"simulated ollama ({parameters.name}) on http://{host}:{port}: {', '.join(model.name for model in parameters.models)}")
    uvloop.run(_serve(parameters, host, port))


def _parameters(profile: str, seed: int, models: str, values: tuple[str, ...], file: Path | None) -> Parameters:
    changes: dict[str, Any] = {"seed": seed}
    if models:
        changes["models"] = [parse_model(part.strip()) for part in models.split(",") if part.strip()]
    for value in values:
        name, _, text = value.partition("=")
        changes[name] = json.loads(text)
    if file is not None:
        changes |= json.loads(file.read_text())
    return PROFILES[profile].with_(**changes)


class _Server(uvicorn.Server):
    """Ends with code 0 on SIGTERM; uvicorn's own would raise the signal again."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


async def _serve(parameters: Parameters, host: str, port: int) -> None:
    node = SimulatedOllama(parameters, SystemClock(), Random(parameters.seed))
    config = uvicorn.Config(
        application(node),
        host=host,
        port=port,
        log_level="critical",
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=1,
    )
    try:
        await _Server(config).serve()
    finally:
        await node.close()


if __name__ == "__main__":
    main()
