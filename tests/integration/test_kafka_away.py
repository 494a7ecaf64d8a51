"""The promise: while Kafka is away every service says so in /readyz, nothing crashes, and work goes on by itself when it is back.

What: five processes on a broker of their own; jobs are queued; the broker is killed -9 and started again.
How: /readyz of each service turns to 503 with a reason, no process ends, REST callers get a typed 503; afterwards the jobs accepted before
have their results and a new call is answered.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.native.cluster import LocalCluster
from infra.native.kafka import Kafka
from infra.native.waiting import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(180)]

JOBS = 30


def _ready(cluster: LocalCluster) -> dict[str, tuple[int, Any]]:
    answers = {name: httpx.get(f"{service.url}/readyz", timeout=5) for name, service in cluster.services.items()}
    return {name: (answer.status_code, answer.json()) for name, answer in answers.items()}


def _submit(cluster: LocalCluster, number: int) -> str:
    answer = httpx.post(f"{cluster.url}/v1/jobs", json={"prompt": f"job {number}"}, timeout=30).raise_for_status()
    return str(answer.json()["id"])


def _settled(cluster: LocalCluster, jobs: list[str]) -> bool:
    states = [httpx.get(f"{cluster.url}/v1/jobs/{job}", timeout=10) for job in jobs]
    return all(state.status_code == 200 and state.json()["state"] == "settled" for state in states)


def test_services_wait_say_so_and_go_on(own_kafka: Kafka, tmp_path: Path) -> None:
    """Nothing accepted is lost, nobody has to be restarted."""
    simulator = ("--profile", "instant", "--models", "small:0.3", "--set", "decode_gb_per_second=60")
    with LocalCluster(own_kafka.servers, "away", tmp_path / "cluster", simulator=simulator) as cluster:
        jobs = [_submit(cluster, number) for number in range(JOBS)]
        before = cluster.pids()
        own_kafka.kill()
        assert wait_until(lambda: all(status == 503 for status, _ in _ready(cluster).values()), 40), _ready(cluster)
        assert all(body["reasons"] for _, body in _ready(cluster).values())
        refused = httpx.post(f"{cluster.url}/v1/jobs", json={"prompt": "now"}, timeout=30)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"]
        own_kafka.start()
        assert wait_until(lambda: all(status == 200 for status, _ in _ready(cluster).values()), 60), _ready(cluster)
        assert wait_until(lambda: _settled(cluster, jobs), 60)
        assert cluster.pids() == before
        body = {"model": "auto", "messages": [{"role": "user", "content": "hello"}]}
        assert httpx.post(f"{cluster.url}/v1/chat/completions", json=body, timeout=60).status_code == 200
