"""Promise: what is done to models on nodes is a durable job: a pull killed at 50 % goes on, whoever dies, and no answer waits for it.

How: real processes on a real Kafka; two simulated nodes that can pull, at a chosen pace (no registry of models is asked); the worker of one
and then its model server die in the middle.

    tutti models pull ──► job ──► step ──► worker ──► node          kill -9 the worker; restart the server
                                     ▲        │ progress: replies, nodes
                                     └────────┘
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from click.testing import CliRunner, Result

from infra.cli.exits import Exit
from infra.cli.main import main
from infra.native.cluster import LocalCluster
from infra.native.waiting import wait_until
from tests.support.native import StartCluster

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

SIZE = 1_000_000_000
LIBRARY = json.dumps([{"name": "new:1", "size_gb": 1.0}])
SIMULATOR = ("--profile", "instant", "--models", "small:0.3", "--set", f"library={LIBRARY}", "--set", "pull_gb_per_second=0.08")
"""A pull lasts 12 s: longer than any answer that must not wait for it."""


def environment(at: LocalCluster) -> dict[str, str]:
    return {"TUTTI_KAFKA_SERVERS": at.servers, "TUTTI_TOPICS__PREFIX": at.prefix, "TUTTI_URL": at.url}


def tutti(at: LocalCluster, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["models", *arguments], env=environment(at), catch_exceptions=False)


def ok(result: Result) -> str:
    assert result.exit_code == Exit.OK, result.output
    return result.stdout


def nodes_of(at: LocalCluster) -> dict[str, list[dict[str, Any]]]:
    """The models of each node."""
    found = CliRunner().invoke(main, ["nodes", "--json"], env=environment(at), catch_exceptions=False)
    return {node["id"]: node["models"] for node in json.loads(found.stdout)}


def listed(at: LocalCluster) -> set[str]:
    return {model["id"] for model in httpx.get(f"{at.url}/v1/models", timeout=30).json()["data"]}


def status(at: LocalCluster, job: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{at.url}/v1/jobs/{job}", timeout=30).json()
    return found


def completed(at: LocalCluster, job: str) -> int:
    """Bytes that the job's only step has, as its status tells."""
    return max(((step.get("progress") or {}).get("completed", 0) for step in status(at, job).get("steps", ())), default=0)


def truth(server: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{server}/control", timeout=30).json()["truth"]
    return found


def until(condition: Any, what: str) -> None:
    assert wait_until(condition, 90.0), what


@pytest.mark.faults
def test_a_pull_goes_on_whoever_dies(cluster: StartCluster, tmp_path: Path) -> None:
    at = cluster("models", workers=2, simulator=SIMULATOR, environment={"TUTTI_PLANNER__LEASE_SECONDS": "8"})
    first = min(nodes_of(at))
    server = at.services["worker-1"].environment["TUTTI_WORKER__URL"]
    job = ok(tutti(at, "pull", "new:1", "--node", first, "--detach")).strip()
    until(lambda: completed(at, job) >= SIZE // 10, "the pull is told")
    answer = httpx.post(
        f"{at.url}/api/chat", json={"model": "small", "messages": [{"role": "user", "content": "hi"}], "stream": False}, timeout=60
    )
    assert answer.status_code == 200
    assert status(at, job)["state"] == "running", "an answer did not wait for the pull"
    until(lambda: completed(at, job) >= SIZE * 4 // 10, "half of it")
    at.services["worker-1"].daemon.kill()
    at.services["worker-1"].start()
    until(lambda: completed(at, job) >= SIZE * 6 // 10, "it goes on")
    httpx.post(f"{server}/control", json={"restart": True}, timeout=30)
    until(lambda: status(at, job)["state"] == "settled", "it ends")
    ended = status(at, job)
    assert ended["result"]["status"] == "succeeded", ended
    assert ended["result"]["usage"]["calls"] == 0
    assert truth(server)["pulled_bytes"] == SIZE, "nothing was fetched twice"
    assert sum(len(step["failures"]) for step in ended["steps"]) >= 1
    until(lambda: "new:1" in listed(at), "it is listed")
    _everything_else(at, first)
    _cards(at, tmp_path / "card.yaml")
    if not wait_until(lambda: _judged(at).exit_code == Exit.OK, 60.0):  # a result follows the event that answers
        pytest.fail(_judged(at).output)


def _judged(at: LocalCluster) -> Result:
    return CliRunner().invoke(main, ["verify", "--settled"], env=environment(at), catch_exceptions=False)


def _cards(at: LocalCluster, file: Path) -> None:
    """A synonym is asked for as a model is; what it stood for is kept with the job, and its price counts."""
    card = {"model": "small", "synonyms": ["gpt-4o"], "tier": "small", "price": {"completion_per_million": 1_000_000.0}}
    file.write_text(yaml.safe_dump(card))
    assert "is latest" in ok(tutti(at, "set", "smart", "--file", str(file)))
    assert "smart" in ok(tutti(at, "list"))
    until(lambda: {"gpt-4o", "tier:small"} <= listed(at), "its names are listed")
    for name in ("gpt-4o", "tier:small"):
        job = httpx.post(f"{at.url}/v1/jobs?wait=60", json={"prompt": "hi", "model": name}, timeout=90).json()
        answer, usage = job["result"]["answer"], job["result"]["usage"]
        assert (answer["model"].partition(":")[0], job["models"], job["steps"][0]["model"]) == ("small", {name: ["small"]}, "small")
        assert usage["cost"] == pytest.approx(usage["completion_tokens"])


def _everything_else(at: LocalCluster, first: str) -> None:
    """By the command line and in Ollama's words; cards beside it."""
    assert "done on" in ok(tutti(at, "copy", "new:1", "mine:1"))
    ok(tutti(at, "pin", "new:1"))
    until(lambda: [model["resident"] for model in nodes_of(at)[first] if model.get("pinned")] == [True], "the pin is told")
    ok(tutti(at, "unpin", "new:1"))
    ok(tutti(at, "unload", "new:1"))
    missing = tutti(at, "load", "nobody:1")
    assert (missing.exit_code, "no node that manages models has" in missing.output) == (Exit.NOT_FOUND, True)
    unknown = tutti(at, "pull", "nobody:1", "--node", first)
    assert (unknown.exit_code, "file does not exist" in unknown.output) == (Exit.FAILED, True), unknown.output
    with httpx.stream("POST", f"{at.url}/api/pull", json={"model": "new:1", "all": True}, timeout=60) as pulled:
        lines = [json.loads(line) for line in pulled.iter_lines()]
    assert lines[-1] == {"status": "success"}
    assert {line["node"] for line in lines if "total" in line} == nodes_of(at).keys() - {first}
    assert httpx.request("DELETE", f"{at.url}/api/delete", json={"model": "mine:1"}, timeout=60).status_code == 200
    until(lambda: "mine:1" not in listed(at), "it is gone")
