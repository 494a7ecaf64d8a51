"""Fixtures of `make compose-check`: docker-compose.yml, up in a project of its own.

| fixture | gives | scope |
|---|---|---|
| `engine` | a Docker engine with the images that `python -m infra.lab.make compose` has made | session |
| `stack` | the whole cluster in containers, ready; gone afterwards with all that it kept | session |
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from secrets import token_hex

import pytest

from infra.lab.compose.engine import Engine
from infra.lab.compose.images import Images
from infra.lab.compose.project import Project
from infra.native.errors import NativeError
from infra.native.ports import free_ports
from infra.native.settings import NativeSettings
from infra.native.waiting import wait_until
from tests.support.native import missing

READY_SECONDS = 120.0


@dataclass(frozen=True)
class Stack:
    """A running project and its doors on this machine."""

    project: Project
    ports: dict[str, int]
    real_model: bool

    def url(self, service: str) -> str:
        return f"http://127.0.0.1:{self.ports[service]}"

    def await_ready(self) -> None:
        """Every container healthy, or through with its work."""
        assert wait_until(lambda: not self.project.ready(), READY_SECONDS, every_seconds=1.0), (self.project.ready(), self.project.logs())


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Started if there is none; whatever runs in it is gone with it."""
    one = Engine(NativeSettings().cache_directory)
    try:
        one.start()
    except NativeError as error:
        missing("docker", error.message)
    if one.ours:  # what a run has left that was killed would come up again with it
        one.clear()
    yield one
    one.stop()


@pytest.fixture(scope="session")
def stack(engine: Engine) -> Iterator[Stack]:
    """`docker compose up --build`, with Prometheus, a worker for one agent; Ollama where `make ollama` has been, else the simulator."""
    real = Images(engine, NativeSettings().cache_directory, print).has_ollama()
    names = ("ingress", "sink", "cache", "kafka", "prometheus")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    models = {"WORKER_MODELS": "gemma3:270m", "RESEARCH_MODELS": "gemma3:270m", "OLLAMA_SLOTS": "2"} if real else {}
    values = {**{f"{name.upper()}_PORT": str(port) for name, port in ports.items()}, **models}
    values |= {"COMPOSE_PROFILES": f"{'cpu' if real else 'simulator'},observability", "WORKER_AGENTS": "chat,embed"}
    project = Project(engine, f"tutti-{token_hex(3)}", values)
    one = Stack(project, ports, real)
    try:
        project.compose("up", "-d", "--build")
        project.compose("up", "-d", "--no-build", "worker-research")
        one.await_ready()
        yield one
    finally:
        project.down()
