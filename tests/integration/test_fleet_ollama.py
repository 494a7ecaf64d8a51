"""Promise: over two real Ollama servers that keep one model each, every step goes where its model is, none is swapped without need, and a
server that is killed costs no job, and is warm again before it is asked.

How: two servers of `make ollama` with two tiny models (random weights, different seeds), a worker each, services on a real Kafka; what is
in memory is what each server's own /api/ps says.

    job ──► router ──► worker 1 ──► ollama 1 (one model)      kill -9 ollama 1
               └─────► worker 2 ──► ollama 2 (one model)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.native import node, ollama_server
from infra.native.cluster import LocalCluster
from infra.native.ports import free_ports
from infra.native.processes import Daemon
from infra.native.settings import NativeSettings
from infra.native.waiting import wait_until
from shared.placement import why
from tests.support.native import StartCluster, missing

pytestmark = [pytest.mark.kafka, pytest.mark.ollama, pytest.mark.timeout(180)]
MODELS = ("tiny:latest", "tiny2:latest")


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[dict[str, Daemon]]:
    """Address to server."""
    cache = NativeSettings().cache_directory
    program = ollama_server.installed(cache)
    if not program.exists():
        missing("ollama", "`make ollama` installs it")
    found: dict[str, Daemon] = {}
    for number, port in enumerate(free_ports(2)):
        daemon = Daemon(
            f"ollama-{number}", [str(program), "serve"], tmp_path / f"{number}.json", tmp_path / f"{number}.log", dies_with_parent=True
        )
        own = ollama_server.environment(port, str(program), cache, slots=1)
        daemon.environment = own | {"OLLAMA_MAX_LOADED_MODELS": "1"}
        daemon.start()
        found[f"http://127.0.0.1:{port}"] = daemon
        node.await_answer(daemon, f"http://127.0.0.1:{port}/api/version")
    yield found
    for daemon in found.values():
        daemon.stop(10.0)


def in_memory(url: str) -> set[str]:
    return {model["name"] for model in httpx.get(f"{url}/api/ps", timeout=10).json()["models"]}


def ask(at: LocalCluster, model: str) -> dict[str, Any]:
    """A job's status when it has ended."""
    body = {"prompt": "hi", "model": model, "options": {"max_tokens": 8}}
    found: dict[str, Any] = httpx.post(f"{at.url}/v1/jobs?wait=60", json=body, timeout=90).json()
    assert found["result"]["status"] == "succeeded", found
    return found


def test_each_model_has_its_server(servers: dict[str, Daemon], cluster: StartCluster) -> None:
    """First asked here or there; from then on always there, whatever the order; then one server dies, and comes back warm."""
    own = {"TUTTI_WORKER__BACKEND": "ollama", "TUTTI_WORKER__SLOTS": "1", "TUTTI_WORKER__MOST_MODELS": "1"}
    own["TUTTI_WORKER__MODELS"] = ",".join(MODELS)
    urls = list(servers)
    at = cluster("fleet", nodes=[{**own, "TUTTI_WORKER__URL": url, "TUTTI_WORKER__NODE": f"fleet-{n}"} for n, url in enumerate(urls)])
    homes = {model: ask(at, model)["result"]["answer"]["node"] for model in MODELS}
    assert set(homes.values()) == {"fleet-0", "fleet-1"}
    loaded = {model: in_memory(urls[int(home[-1])]) for model, home in homes.items()}
    assert loaded == {model: {model} for model in MODELS}
    for model in (MODELS[0], MODELS[1], MODELS[1], MODELS[0], MODELS[0], MODELS[1]) * 2:
        told = ask(at, model)
        assert told["result"]["answer"]["node"] == homes[model]
        explained = why.read(told["steps"][0]["why"])
        assert explained is not None
        assert (explained.node, explained.load) == (homes[model], 0.0)
    assert {model: in_memory(urls[int(home[-1])]) for model, home in homes.items()} == loaded

    dying, other = homes[MODELS[0]], homes[MODELS[1]]
    servers[urls[int(dying[-1])]].kill()
    assert ask(at, MODELS[0])["result"]["answer"]["node"] == other
    assert wait_until(lambda: in_memory(urls[int(other[-1])]) == {MODELS[0]}, 10.0)
    servers[urls[int(dying[-1])]].start()  # with nothing in memory: what is asked for, and nobody has now, comes by itself
    assert wait_until(lambda: _warm(urls[int(dying[-1])]) == {MODELS[1]}, 60.0)


def _warm(url: str) -> set[str]:
    try:
        return in_memory(url)
    except httpx.HTTPError:
        return set()
