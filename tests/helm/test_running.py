"""What the chart makes of pods is run: the test plays the kubelet, each container a process with the pod's own arguments and environment.

Nothing but addresses of the test's Kafka, Redis and simulated node is said to Helm; ports are given out as pods get addresses.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from infra.lab.kubernetes.plane import ControlPlane
from infra.native import http
from infra.native.node import await_answer, simulator_command
from infra.native.paths import REPOSITORY
from infra.native.ports import free_ports
from infra.native.processes import Daemon
from infra.native.waiting import wait_until
from shared.services import NAMES
from tests.support.chart import CHART, VALUES

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(400)]
SECONDS = 90.0
NAMESPACE = "running"
JOBS = 16
"""While each change is carried out."""


class Kubelet:
    """Runs the pods that the API server has, and ends those that it has no longer."""

    def __init__(self, plane: ControlPlane, directory: Path) -> None:
        self._plane, self._directory = plane, directory
        self._running: dict[str, tuple[str, Daemon, int]] = {}

    def sync(self) -> None:
        """As a rollout does it: a new one is ready before an old one ends, but a worker's, whose node has one at a time."""
        pods = [pod for pod in self._plane.get("pods", "-n", NAMESPACE) if "deletionTimestamp" not in pod["metadata"]]
        there = {pod["metadata"]["uid"]: pod for pod in pods if pod["spec"]["containers"][0]["args"][0] == "run"}
        gone = {uid: of for uid, of in self._running.items() if uid not in there}
        self._end({uid: of for uid, of in gone.items() if of[0] == "worker"})
        started = [self._start(uid, pod) for uid, pod in there.items() if uid not in self._running]
        for daemon, port in started:
            if not wait_until(lambda port=port: http.answers(f"http://127.0.0.1:{port}/readyz"), SECONDS):  # type: ignore[misc]
                raise daemon.failure(f"is not ready: {http.refusal(f'http://127.0.0.1:{port}/readyz')}")
        self._end({uid: of for uid, of in gone.items() if of[0] != "worker"})

    def stop(self) -> None:
        """End everything."""
        self._end(dict(self._running))

    def url(self, service: str) -> str:
        """Of one of its pods."""
        return next(f"http://127.0.0.1:{port}" for name, _, port in self._running.values() if name == service)

    def environment(self, pod: Mapping[str, Any]) -> dict[str, str]:
        """Of the main container, with what its references say."""
        found: dict[str, str] = {}
        for entry in pod["spec"]["containers"][0]["env"]:
            value = entry.get("value", "")
            if (source := entry.get("valueFrom", {})).get("secretKeyRef"):
                (secret,) = self._plane.get("secret", source["secretKeyRef"]["name"], "-n", NAMESPACE)
                value = b64decode(secret["data"][source["secretKeyRef"]["key"]]).decode()
            elif source.get("fieldRef"):
                value = pod["spec"]["nodeName"] if source["fieldRef"]["fieldPath"] == "spec.nodeName" else pod["metadata"]["name"]
            for name, known in found.items():
                value = value.replace(f"$({name})", known)
            found[entry["name"]] = value
        return found

    def _start(self, uid: str, pod: Mapping[str, Any]) -> tuple[Daemon, int]:
        name, (port,) = pod["metadata"]["name"], free_ports(1)
        main = pod["spec"]["containers"][0]
        own = self.environment(pod) | {"TUTTI_HTTP_PORT": str(port), "PYTHONPATH": str(REPOSITORY)}
        command = [sys.executable, "-m", "infra.cli", *main["args"]]
        daemon = Daemon(name, command, self._directory / f"{name}.json", self._directory / f"{name}.log", own, dies_with_parent=True)
        daemon.start()
        self._running[uid] = main["name"], daemon, port
        return daemon, port

    def _end(self, gone: Mapping[str, tuple[str, Daemon, int]]) -> None:
        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(lambda of: of[1].stop(60.0), gone.values()))
        for uid in gone:
            del self._running[uid]


@pytest.fixture
def kubelet(plane: ControlPlane, tmp_path: Path) -> Iterator[Kubelet]:
    """One that leaves nothing behind."""
    plane.kubectl("create", "namespace", NAMESPACE)
    one = Kubelet(plane, tmp_path)
    yield one
    one.stop()
    plane.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def tutti(environment: Mapping[str, str], *arguments: str) -> str:
    """What a command of the image prints."""
    command = [sys.executable, "-m", "infra.cli", *arguments]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def values(kafka: str, tmp_path: Path) -> Iterator[Path]:
    """Addresses, one copy of each service that there is, and a node at which a job takes a second."""
    (port,) = free_ports(1)
    command = simulator_command(port, "--profile", "workstation")
    node = Daemon(
        "simulator",
        command,
        tmp_path / "simulator.json",
        tmp_path / "simulator.log",
        {"PYTHONPATH": str(REPOSITORY)},
        dies_with_parent=True,
    )
    node.start()
    url = f"http://127.0.0.1:{port}"
    await_answer(node, f"{url}/api/version")
    said = {
        "kafka": {"servers": kafka},
        "topics": {"settings": {"prefix": "chart-", "replication": 1, "min_insync_replicas": 1}},
        "stores": {"redis": {"secret": {"name": "redis"}}},
        "services": {name: {"replicas": 1, "enabled": name in NAMES} for name in VALUES["services"]},
        "pools": [{"name": "simulated", "url": url, "slots": 2}],
    }
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(said))
    yield path
    node.stop(10.0)


def test_installed_it_answers_and_an_upgrade_loses_no_job(plane: ControlPlane, kubelet: Kubelet, redis_url: str, values: Path) -> None:
    """Topics by the hook, an answer over REST, jobs through an upgrade in the README's two steps and back, `tutti verify` at the end."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "redis"}, "stringData": {"url": redis_url}}
    plane.apply(secret, "-n", NAMESPACE)
    helm = (str(CHART), "-n", NAMESPACE, "-f", str(values), "--wait", "--timeout", "120s")
    plane.helm("install", "tutti", *helm)
    hook = next(one for one in yaml.safe_load_all(plane.helm("get", "hooks", "tutti", "-n", NAMESPACE)) if one)["spec"]["template"]
    told = kubelet.environment(hook)
    assert "topics created" in tutti(told, *hook["spec"]["containers"][0]["args"])
    kubelet.sync()
    question = {"model": "auto", "messages": [{"role": "user", "content": "Name a planet."}]}
    answer = httpx.post(f"{kubelet.url('ingress')}/v1/chat/completions", json=question, timeout=60).raise_for_status().json()
    assert answer["choices"][0]["message"]["content"]

    def submit(count: int) -> list[str]:
        url = f"{kubelet.url('ingress')}/v1/jobs"
        return [httpx.post(url, json={"prompt": "q"}, timeout=30).raise_for_status().json()["id"] for _ in range(count)]

    jobs: list[str] = []
    for change in (
        ("upgrade", "tutti", *helm, "--set", "poolDefaults.image.tag=next"),
        ("upgrade", "tutti", *helm, "--set", "image.tag=next"),
        ("rollback", "tutti", "2", "-n", NAMESPACE),
    ):
        plane.helm(*change)
        jobs += submit(JOBS)
        last = httpx.get(f"{kubelet.url('ingress')}/v1/jobs/{jobs[-1]}", timeout=30).json()
        assert last["state"] != "settled", "jobs are in flight"
        kubelet.sync()
    ended = [httpx.get(f"{kubelet.url('ingress')}/v1/jobs/{job}?wait=60", timeout=90).json() for job in jobs]
    assert {(job["state"], job["result"]["status"]) for job in ended} == {("settled", "succeeded")}
    assert len(ended) == 3 * JOBS
    tutti(told, "verify", "--settled")
    assert json.loads(tutti(told, "topics", "lag", "--json"))
