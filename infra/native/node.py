"""The model node of this machine: the first of these that is there, and the answer says which.

1. the Ollama at OLLAMA_HOST (Ollama's own default address when unset), if it has a model or can pull one;
2. an `ollama` on the PATH, or the one that `make ollama` put into the cache: started here;
3. the embedded node: llama.cpp from a wheel with a small real model;
4. the simulator: no model at all, and every place that shows an answer says so.

`TUTTI_NODE` picks one by name instead: `running`, `ollama`, `embedded`, `simulator`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from infra.native import http, ollama_server, ports
from infra.native.embedded import packages
from infra.native.embedded.template import MODEL
from infra.native.errors import MissingTool, NativeError, PortTaken, StartFailed
from infra.native.install import Need
from infra.native.paths import REPOSITORY, StackHome
from infra.native.processes import Daemon
from infra.native.settings import NativeSettings

Say = Callable[[str], None]
Kind = Literal["running", "ollama", "embedded", "simulator"]
CHOICES: tuple[Kind, ...] = ("running", "ollama", "embedded", "simulator")
STARTED_HERE: tuple[Kind, ...] = ("ollama", "embedded", "simulator")

START_SECONDS = 60.0
STOP_SECONDS = 10.0
SLOTS = 2
RANDOM_MODELS = frozenset({"tiny", "tiny2"})
"""Models of `make ollama` with random weights, for tests: nobody who asks for any model wants their words."""


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
        """Whether answers come from no model."""
        return self.kind == "simulator"

    def worker_environment(self) -> dict[str, str]:
        """Settings of the worker that serves this node."""
        settings = {
            "TUTTI_WORKER__BACKEND": "embedded" if self.kind == "embedded" else "ollama",
            "TUTTI_WORKER__URL": self.url,
            "TUTTI_WORKER__SLOTS": str(SLOTS),
            "TUTTI_WORKER__DEFAULT_MAX_TOKENS": "256",
        }
        if MODEL in self.models:  # so small a model is sensible only at its most likely words
            settings["TUTTI_WORKER__DEFAULT_TEMPERATURE"] = "0"
        sensible = [name for name in self.models if name.split(":")[0] not in RANDOM_MODELS]
        if sensible and len(sensible) < len(self.models):
            settings["TUTTI_WORKER__MODELS"] = ",".join(sensible)
        return settings


def start(settings: NativeSettings, say: Say) -> ModelNode:
    """The first node that can be had, started if need be. `say` is told why earlier ones were passed over. Raises NativeError."""
    choices = CHOICES if settings.node == "auto" else (settings.node,)
    reasons: list[str] = []
    for kind in choices:
        try:
            return _START[kind](settings, say)
        except PortTaken:  # the others would want the same port
            raise
        except NativeError as error:
            reasons.append(f"{kind}: {error.message}")
            say(f"model node, not {kind}: {_short(error.message)}")
    raise NativeError("no model node can be had here; " + "; ".join(reasons))


def needs(settings: NativeSettings) -> tuple[Need, ...]:
    """What the machine itself must have for the node that `start` will come to."""
    if settings.node == "auto":
        ollama = ollama_server.find(settings.cache_directory) or ollama_server.models(ollama_server.address(os.environ))
        return () if ollama else packages.NEEDS
    return packages.NEEDS if settings.node == "embedded" else ()


def _short(message: str) -> str:
    """The first line, and the last one of the log that may follow it: that is where a program says why it ended."""
    first, *rest = message.splitlines()
    return f"{first} {rest[-1].strip()}" if rest else first


def daemon_of(home: StackHome, kind: Kind, command: Sequence[str] = ()) -> Daemon:
    """The background process of a node of this kind, running or not."""
    name = f"node-{kind}"
    return Daemon(name, command, home.pid_file(name), home.log(name))


def remember(home: StackHome, node: ModelNode) -> None:
    """Note the choice, so that a later command knows what runs."""
    noted = {"kind": node.kind, "url": node.url, "about": node.about, "models": list(node.models)}
    (home.directory("run") / "node.chosen").write_text(json.dumps(noted))


def current(settings: NativeSettings) -> ModelNode | None:
    """The node chosen by an earlier command, if it still serves and settings do not ask for another kind."""
    try:
        noted = json.loads((settings.stack_home.directory("run") / "node.chosen").read_text())
        kind: Kind = noted["kind"]
        daemon = daemon_of(settings.stack_home, kind) if kind in STARTED_HERE else None
        node = ModelNode(kind, noted["url"], noted["about"], tuple(noted["models"]), daemon)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    wanted = settings.node in ("auto", node.kind)
    ours = node.daemon is None or node.daemon.pid() is not None
    return node if wanted and ours and http.answers(_probe(node)) else None


def _probe(node: ModelNode) -> str:
    return f"{node.url}/health" if node.kind == "embedded" else f"{node.url}/api/version"


def _running(settings: NativeSettings, say: Say) -> ModelNode:
    url = ollama_server.address(os.environ)
    models = ollama_server.models(url)
    if models is None:
        raise NativeError(f"no Ollama answers at {url}")
    models = models or ollama_server.pull(shutil.which("ollama"), url)
    return ModelNode("running", url, f"Ollama {ollama_server.version(url)}, found running", models)


def _ollama(settings: NativeSettings, say: Say) -> ModelNode:
    program = ollama_server.find(settings.cache_directory)
    if program is None:
        raise MissingTool("no `ollama` on the PATH (`make ollama` builds one)")
    daemon = daemon_of(settings.stack_home, "ollama", [program, "serve"])
    daemon.environment = ollama_server.environment(settings.node_port, program, settings.cache_directory, slots=SLOTS)
    url = _serve(daemon, settings.node_port, "/api/version")
    try:
        models = ollama_server.models(url) or ollama_server.pull(program, url)
    except NativeError:
        daemon.stop(STOP_SECONDS)
        raise
    return ModelNode("ollama", url, f"Ollama {ollama_server.version(url)}, started here", models, daemon)


def _embedded(settings: NativeSettings, say: Say) -> ModelNode:
    if not packages.fetched(settings.cache_directory):
        say(f"fetching llama.cpp and {MODEL} (290 MB, once)")
    engine, model = packages.prepare(settings.cache_directory)
    daemon = daemon_of(settings.stack_home, "embedded", embedded_command(settings.node_port, model))
    daemon.environment = embedded_environment(engine)
    url = _serve(daemon, settings.node_port, "/health")
    return ModelNode("embedded", url, f"embedded llama.cpp with {MODEL}: a real, very small model", (MODEL,), daemon)


def embedded_command(port: int, model: Path) -> list[str]:
    """The embedded node as a process."""
    return [sys.executable, "-m", "infra.native.embedded", "--port", str(port), "--model", str(model), "--slots", str(SLOTS)]


def embedded_environment(engine: Path | None) -> dict[str, str]:
    """`engine` is where the wheel was put, None when it is installed."""
    found = [str(REPOSITORY), *([str(engine)] if engine else [])]
    return {"PYTHONPATH": os.pathsep.join(found), **ollama_server.QUIET_THREADS}


def _simulator(settings: NativeSettings, say: Say) -> ModelNode:
    if find_spec("infra.lab") is None:
        raise MissingTool("the simulator is part of tutti's repository, not of the installed package")
    daemon = daemon_of(settings.stack_home, "simulator", simulator_command(settings.node_port))
    daemon.environment = {"PYTHONPATH": str(REPOSITORY)}
    url = _serve(daemon, settings.node_port, "/api/version")
    return ModelNode("simulator", url, "SIMULATED: answers come from no model", ollama_server.models(url) or (), daemon)


def simulator_command(port: int, *arguments: str) -> list[str]:
    """The simulated Ollama as a process."""
    return [sys.executable, "-m", "infra.lab.simulators.ollama", "--port", str(port), *arguments]


class ModelServer(Daemon):
    """One of its own on a free port, which ends with this process; it has started when it answers."""

    def __init__(self, home: StackHome, name: str, command: Sequence[str], environment: Mapping[str, str], port: int) -> None:
        super().__init__(name, command, home.pid_file(name), home.log(name), environment, dies_with_parent=True, port=port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> int:
        """Raises StartFailed."""
        pid = super().start()
        await_answer(self, f"{self.url}/api/version")
        return pid


def simulator(home: StackHome, name: str, *options: str) -> ModelServer:
    """A simulated Ollama with these options."""
    [port] = ports.free_ports(1)
    return ModelServer(home, name, simulator_command(port, *options), {"PYTHONPATH": str(REPOSITORY)}, port)


def ollama(home: StackHome, cache: Path, *, slots: int, more: Mapping[str, str] | None = None) -> ModelServer:
    """The Ollama of `make ollama`; `more`: of its environment. Raises MissingTool."""
    program = ollama_server.installed(cache)
    if not program.exists():
        raise MissingTool("no Ollama here: `make ollama` installs one with small models")
    [port] = ports.free_ports(1)
    environment = ollama_server.environment(port, str(program), cache, slots=slots) | dict(more or {})
    return ModelServer(home, "ollama", [str(program), "serve"], environment, port)


_START: dict[Kind, Callable[[NativeSettings, Say], ModelNode]] = {
    "running": _running,
    "ollama": _ollama,
    "embedded": _embedded,
    "simulator": _simulator,
}


def _serve(daemon: Daemon, port: int, probe: str) -> str:
    """Start it unless it runs, wait until it answers, and return its address. Raises PortTaken or StartFailed."""
    url = f"http://127.0.0.1:{port}"
    daemon.port = port
    if not daemon.running():
        ports.require_free(port, f"the model node ({daemon.name})", "TUTTI_NODE_PORT")
        daemon.start()
    await_answer(daemon, f"{url}{probe}")
    return url


def await_answer(daemon: Daemon, url: str) -> None:
    """Return when `url` gives 200. Raises StartFailed when the process ends, or, stopping it, when nothing has moved for so long."""
    try:
        daemon.await_ready(lambda: http.answers(url), START_SECONDS)
    except StartFailed:
        daemon.stop(STOP_SECONDS)
        raise
