"""docker-compose.yml really run: answers over REST and over Kafka from outside, no root, nothing writable, crashes.

How: the repository's Dockerfile and compose file, on images made here (infra/lab/compose says of what). Not shown: the registries' images
of Kafka, Redis, Ollama, Prometheus; MongoDB, for which SecantusDB stands in; Grafana, of which only its part of the compose file is read;
devices of profile gpu.
"""

from __future__ import annotations

import asyncio
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.demo import over_kafka
from infra.lab.compose.project import ROOT, Project
from infra.native.waiting import wait_until
from shared.contracts.result import Status
from shared.services import NAMES
from tests.compose.conftest import Stack

pytestmark = pytest.mark.timeout(400)
QUESTION = "What is the capital of France?"
ANSWER_SECONDS = 90.0
ONCE = {"topics", "pull"}
CONFINED = ("NoNewPrivs:\t1", "CapEff:\t0000000000000000")


def ask(stack: Stack, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
    """One chat, whole; each is another question, so that no answer is served twice."""
    body = {"model": "auto", "temperature": 0, "max_tokens": 24, "messages": [{"role": "user", "content": QUESTION}], **more}
    return httpx.post(f"{stack.url('ingress')}/v1/chat/completions", json=body, headers=headers, timeout=ANSWER_SECONDS)


def right(stack: Stack, text: str) -> bool:
    """As far as it can be told: a simulator knows no capitals."""
    return "Paris" in text if stack.real_model else bool(text.strip())


def test_the_file_is_one_that_compose_takes(stack: Stack) -> None:
    """With every profile, on the registries' images: all that can be shown of Grafana, and of devices."""
    command = stack.project.plain("config", "--format", "json", COMPOSE_PROFILES="*")
    services = json.loads(command)["services"]
    assert services["grafana"]["image"].startswith("grafana/grafana:")
    assert services["ollama-gpu"]["deploy"]["resources"]["reservations"]["devices"][0]["driver"] == "nvidia"
    assert {path.name for path in (ROOT / "infra" / "dashboards").glob("*.json")}, "what Grafana shows"


def test_an_answer_over_rest(stack: Stack) -> None:
    """From this machine, through the published port; by the worker for all."""
    answer = ask(stack)
    assert answer.status_code == 200, answer.text
    text = answer.json()["choices"][0]["message"]["content"]
    print(f"\n{answer.headers['x-tutti-model']} on {answer.headers['x-tutti-node']}: {text!r}, real model: {stack.real_model}")  # noqa: T201
    assert right(stack, text)
    assert answer.headers["x-tutti-node"] == "compose"


def test_the_readmes_tour(stack: Stack) -> None:
    """Its second command, as it stands there."""
    assert "docker compose exec ingress tutti submit 'Name a planet.'" in (ROOT / "README.md").read_text()
    told = stack.project.run_in("ingress", "tutti", "submit", "Name a planet.")
    assert told.returncode == 0, told.stderr
    assert told.stdout.strip()


def test_an_answer_straight_over_kafka(stack: Stack) -> None:
    """One record on `jobs.interactive`, one on `results`, at the broker's published port."""
    result = asyncio.run(over_kafka.submit(f"127.0.0.1:{stack.ports['kafka']}", QUESTION, "from-outside", timeout_seconds=ANSWER_SECONDS))
    assert result.status is Status.SUCCEEDED, result.failure
    assert result.answer is not None
    assert right(stack, result.answer.text)


def test_a_pool_answers_for_its_agent(stack: Stack) -> None:
    """WORKER_AGENTS leaves `research` to its own worker."""
    body = {"prompt": "Name a river.", "capability": "research", "options": {"temperature": 0, "max_tokens": 8}}
    answer = httpx.post(f"{stack.url('ingress')}/v1/jobs?wait=60", json=body, timeout=ANSWER_SECONDS)
    assert answer.status_code == 200, answer.text
    assert answer.json()["result"]["answer"]["node"] == "compose-research"


def test_nobody_is_root_and_nobody_can_become_it(stack: Stack) -> None:
    """Every process of every container, as the kernel has it: no root, no capabilities."""
    seen = 0
    for name, of in stack.project.containers().items():
        if name in ONCE:
            assert of["Config"]["User"].startswith("10001"), name
            continue
        for pid in stack.project.processes(name):
            status = Path(f"/proc/{pid}/status").read_text()
            assert "Uid:\t0\t" not in status, (name, status)
            assert all(word in status for word in CONFINED), (name, status)
            seen += 1
    assert seen >= len(NAMES) + 6


@pytest.mark.parametrize("service", NAMES)
def test_nothing_of_a_service_is_writable(stack: Stack, service: str) -> None:
    """But /tmp, which is memory."""
    told = stack.project.run_in(
        service, "sh", "-c", "touch /tmp/x && for d in / /app /app/lib /etc /models; do ! touch $d/x || exit 1; done"
    )
    assert told.returncode == 0
    assert told.stderr.count("Read-only file system") == 5, told.stderr


def test_everything_has_its_bounds(stack: Stack) -> None:
    """As the engine has them; Ollama may use every processor."""
    for name, of in stack.project.containers().items():
        bounds = of["HostConfig"]
        assert bounds["Memory"] > 0, name
        assert bounds["PidsLimit"] > 0, name
        assert bounds["NanoCpus"] > 0 or name == "ollama", name


def test_prometheus_sees_every_service(stack: Stack) -> None:
    """All are up, and every rule is one that it can judge."""

    def components() -> dict[str, str]:
        answer = httpx.get(f"{stack.url('prometheus')}/api/v1/targets", timeout=10).json()
        return {target["labels"]["component"]: target["health"] for target in answer["data"]["activeTargets"]}

    wanted = dict.fromkeys(["workers" if name == "worker" else name for name in NAMES], "up")
    assert wait_until(lambda: components() == wanted, 60, every_seconds=1.0), components()
    groups = httpx.get(f"{stack.url('prometheus')}/api/v1/rules", timeout=10).json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) > 10
    assert [rule["name"] for rule in rules if rule["health"] == "err"] == []


def test_the_dashboard_and_the_sinks_store(stack: Stack) -> None:
    """What was answered is counted."""
    assert ask(stack).status_code == 200

    def jobs() -> int:
        rows = httpx.get(f"{stack.url('sink')}/v1/usage", timeout=10).json()
        return sum(row.get("jobs", 0) for row in rows["rows"])

    assert httpx.get(stack.url("sink"), timeout=10).status_code == 200
    assert wait_until(lambda: jobs() >= 1, 30, every_seconds=1.0)


@pytest.mark.parametrize("service", NAMES)
def test_a_crash_costs_no_answer(stack: Stack, service: str) -> None:
    """Its container is started again, and meanwhile, or then, the next one is answered."""
    before = stack.project.containers()[service]["State"]["Pid"]
    stack.project.kill(service)
    answers: list[httpx.Response] = []

    def answered() -> bool:
        try:
            answers.append(ask(stack, max_tokens=4))
        except httpx.TransportError:  # the door itself was killed
            return False
        return answers[-1].status_code == 200

    assert wait_until(answered, ANSWER_SECONDS, every_seconds=0.5), (answers[-1:], stack.project.logs())

    def started_again() -> bool:
        now = stack.project.containers()[service]
        return now["RestartCount"] >= 1 and now["State"]["Pid"] not in (0, before)

    assert wait_until(started_again, 60, every_seconds=0.5), stack.project.logs()


def test_all_are_ready_again(stack: Stack) -> None:
    """After their crashes."""
    stack.await_ready()


def test_keys_close_the_doors(stack: Stack, tmp_path: Path) -> None:
    """KEYS_FILE is all that it takes."""
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [{"name": "one", "digest": sha256(b"one").hexdigest(), "tenant": "team"}]}))
    for path in (keys, *tmp_path.parents[:3]):
        path.chmod(path.stat().st_mode | 0o055)
    stack.project.compose("up", "-d", "--no-build", "ingress", "sink", "cache", KEYS_FILE=str(keys))
    stack.await_ready()
    assert ask(stack).status_code == 401
    assert ask(stack, {"authorization": "Bearer one"}).status_code == 200
    assert httpx.get(f"{stack.url('sink')}/v1/usage", timeout=10).status_code == 401


def test_the_simulator_runs_by_itself(stack: Stack) -> None:
    """Profile `simulator`, in a project beside."""
    beside: Project = stack.project.beside("simulator")
    try:
        beside.compose("up", "-d", "--no-deps", "--no-build", "simulator")
        assert wait_until(lambda: not beside.ready(), 60, every_seconds=1.0), beside.logs()
    finally:
        beside.down()
