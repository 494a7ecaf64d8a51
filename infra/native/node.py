"""The model node of this machine: the first of these that is there, and the answer says which.

1. the Ollama at OLLAMA_HOST (Ollama's own default address when unset), if it has a model or can pull one;
2. an `ollama` on the PATH, or the one that `make ollama` put into the cache: started here;
3. the embedded node: llama.cpp from a wheel with a small real model;
4. the simulator: no model at all, and every place that shows an answer says so.

`TUTTI_NODE` picks one by name instead: `running`, `ollama`, `embedded`, `simulator`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from infra.native import http, ports
from infra.native.embedded import packages
from infra.native.embedded.template import MODEL
from infra.native.errors import MissingTool, NativeError
from infra.native.paths import Home
from infra.native.processes import Daemon
from infra.native.settings import NativeSettings
from infra.native.waiting import wait_until

Kind = Literal["running", "ollama", "embedded", "simulator"]
CHOICES: tuple[Kind, ...] = ("running", "ollama", "embedded", "simulator")

START_SECONDS = 60.0
STOP_SECONDS = 10.0
PULL_SECONDS = 120.0
SLOTS = 2
REPOSITORY = Path(__file__).parents[2]
QUIET_THREADS = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
"""Spinning threads on two busy cores fall to one token per second."""


@dataclass(frozen=True, slots=True)
class ModelNode:
    """Where the model is. `daemon` is absent when it was there before and is not ours to stop."""

    kind: Kind
    url: str
    about: str
    models: tuple[str, ...]
    daemon: Daemon | None = None

    @property
    def simulated(self) -> bool:
        return self.kind == "simulator"

    def worker_environment(self) -> dict[str, str]:
        """Settings of the worker that serves this node."""
        backend = "embedded" if self.kind == "embedded" else "ollama"
        return {
            "TUTTI_WORKER__BACKEND": backend,
            "TUTTI_WORKER__URL": self.url,
            "TUTTI_WORKER__SLOTS": str(SLOTS),
            "TUTTI_WORKER__DEFAULT_MAX_TOKENS": "256",
        }


def start(settings: NativeSettings, say: Callable[[str], None]) -> ModelNode:
    """The first node that can be had, started if need be. `say` is told why earlier ones were passed over. Raises NativeError."""
    choices = CHOICES if settings.node == "auto" else (settings.node,)
    reasons: list[str] = []
    for kind in choices:
        try:
            return _START[kind](settings)
        except NativeError as error:
            reasons.append(f"{kind}: {error.message.splitlines()[0]}")
            say(f"no model node of kind {reasons[-1]}")
    raise NativeError("no model node can be had here; " + "; ".join(reasons))


def daemon_of(home: Home, kind: Kind) -> Daemon:
    """The background process of a node of this kind, running or not."""
    name = f"node-{kind}"
    return Daemon(name, (), home.pid_file(name), home.log(name))


def ollama_address(environment: Mapping[str, str]) -> str:
    """Base URL that OLLAMA_HOST means to a client: scheme and port are optional, an any-address is this machine."""
    given = environment.get("OLLAMA_HOST", "").strip().rstrip("/") or "127.0.0.1:11434"
    scheme, _, rest = given.rpartition("://")
    host, colon, port = rest.rpartition(":")
    if not colon:
        host, port = rest, "11434"
    if host in ("", "0.0.0.0", "[::]"):  # noqa: S104  (compared, never bound)
        host = "127.0.0.1"
    return f"{scheme or 'http'}://{host}:{port}"


def ollama_models(url: str) -> tuple[str, ...] | None:
    """Names of the models that an Ollama has; None when none answers there."""
    tags = http.get_json(f"{url}/api/tags")
    return None if not isinstance(tags, dict) else tuple(str(model["name"]) for model in tags.get("models") or ())


def _running(settings: NativeSettings) -> ModelNode:
    url = ollama_address(os.environ)
    models = ollama_models(url)
    if models is None:
        raise NativeError(f"no Ollama answers at {url}")
    models = models or _pulled(shutil.which("ollama"), url)
    return ModelNode("running", url, f"Ollama {_version(url)} at {url}, found running", models)


def _ollama(settings: NativeSettings) -> ModelNode:
    installed = settings.cache_directory / "ollama" / "bin" / "ollama"
    program = shutil.which("ollama") or (str(installed) if installed.exists() else None)
    if program is None:
        raise MissingTool("no `ollama` on the PATH (`make ollama` builds one)")
    daemon = daemon_of(settings.stack_home, "ollama")
    url = f"http://127.0.0.1:{settings.node_port}"
    if daemon.pid() is None:
        ports.require_free(settings.node_port, "Ollama", "TUTTI_NODE_PORT")
        daemon.command = [program, "serve"]
        daemon.environment = ollama_environment(settings.node_port, _models_directory(installed, program))
        daemon.start()
    _await(daemon, f"{url}/api/version")
    models = ollama_models(url) or _pulled_or_stop(program, url, daemon)
    return ModelNode("ollama", url, f"Ollama {_version(url)}, started from {program}", models, daemon)


def ollama_environment(port: int, models: Path | None) -> dict[str, str]:
    """Variables of an Ollama that is started here: local, two slots, models kept loaded."""
    environment = {
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "OLLAMA_NUM_PARALLEL": str(SLOTS),
        "OLLAMA_CONTEXT_LENGTH": "2048",
        "OLLAMA_KEEP_ALIVE": "30m",
        "OLLAMA_NO_CLOUD": "1",
        "GIN_MODE": "release",
        **QUIET_THREADS,
    }
    if models is not None:
        environment |= {"OLLAMA_MODELS": str(models), "HOME": str(models.parent / "home")}
    return environment


def _models_directory(installed: Path, program: str) -> Path | None:
    """Ours for the Ollama in the cache; a person's own Ollama keeps its own."""
    return installed.parents[1] / "models" if program == str(installed) else None


def _embedded(settings: NativeSettings) -> ModelNode:
    daemon = daemon_of(settings.stack_home, "embedded")
    url = f"http://127.0.0.1:{settings.node_port}"
    if daemon.pid() is None:
        engine = packages.engine_path(settings.cache_directory)
        model = packages.fetch_model(settings.cache_directory)
        ports.require_free(settings.node_port, "the embedded model node", "TUTTI_NODE_PORT")
        daemon.command = embedded_command(settings.node_port, model)
        daemon.environment = embedded_environment(engine)
        daemon.start()
    _await(daemon, f"{url}/health")
    return ModelNode("embedded", url, f"embedded llama.cpp with {MODEL} (a real, very small model)", (MODEL,), daemon)


def embedded_command(port: int, model: Path) -> list[str]:
    """The embedded node as a process."""
    return [sys.executable, "-m", "infra.native.embedded", "--port", str(port), "--model", str(model), "--slots", str(SLOTS)]


def embedded_environment(engine: Path | None) -> dict[str, str]:
    """`engine` is where the wheel was put, None when it is installed."""
    found = [str(REPOSITORY), *([str(engine)] if engine else []), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(part for part in found if part), **QUIET_THREADS}


def _simulator(settings: NativeSettings) -> ModelNode:
    daemon = daemon_of(settings.stack_home, "simulator")
    url = f"http://127.0.0.1:{settings.node_port}"
    if daemon.pid() is None:
        ports.require_free(settings.node_port, "the simulator", "TUTTI_NODE_PORT")
        daemon.command = simulator_command(settings.node_port)
        daemon.environment = {"PYTHONPATH": str(REPOSITORY)}
        daemon.start()
    _await(daemon, f"{url}/api/version")
    return ModelNode("simulator", url, "SIMULATED model node: its answers come from no model", ollama_models(url) or (), daemon)


def simulator_command(port: int, *arguments: str) -> list[str]:
    """The simulated Ollama as a process."""
    return [sys.executable, "-m", "infra.simulators.ollama", "--port", str(port), *arguments]


_START: dict[Kind, Callable[[NativeSettings], ModelNode]] = {
    "running": _running,
    "ollama": _ollama,
    "embedded": _embedded,
    "simulator": _simulator,
}


def _await(daemon: Daemon, url: str) -> None:
    if not wait_until(lambda: http.answers(url) or daemon.pid() is None, START_SECONDS):
        daemon.stop(STOP_SECONDS)
        raise daemon.failure(f"does not answer after {START_SECONDS:.0f} s")
    if daemon.pid() is None:
        raise daemon.failure("ended at once")


def _version(url: str) -> str:
    answer = http.get_json(f"{url}/api/version")
    return str(answer.get("version", "?")) if isinstance(answer, dict) else "?"


def _pulled(program: str | None, url: str) -> tuple[str, ...]:
    """The small model, pulled into the Ollama at `url`. Raises NativeError when it cannot be."""
    if program is None:
        raise NativeError(f"the Ollama at {url} has no model; pull one, for example: ollama pull {MODEL}")
    environment = {**os.environ, "OLLAMA_HOST": url}
    try:
        done = subprocess.run(
            [program, "pull", MODEL], env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=PULL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise NativeError(f"the Ollama at {url} has no model, and pulling {MODEL} took longer than {PULL_SECONDS:.0f} s") from None
    if done.returncode != 0:
        raise NativeError(f"the Ollama at {url} has no model, and {MODEL} could not be pulled")
    return ollama_models(url) or ()


def _pulled_or_stop(program: str, url: str, daemon: Daemon) -> tuple[str, ...]:
    try:
        return _pulled(program, url)
    except NativeError:
        daemon.stop(STOP_SECONDS)
        raise
