"""Promise: what becomes of a node is seen within one heartbeat (10 s), and an administrator's word on it outlives its worker.

What: a node is taken out of service, its worker started again, the node taken back; then its worker is killed.
How: real processes on a real broker, a simulated node, `/v1/nodes` over REST.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from infra.native.waiting import wait_until
from tests.support.native import StartCluster

pytestmark = pytest.mark.kafka

HEARTBEAT = 10.0


def seconds_until(url: str, condition: Callable[[dict[str, Any]], bool]) -> float:
    """Until the first node is shown so."""
    last: dict[str, Any] = {}
    began = time.monotonic()  # noqa: TID251  (what a person with a watch sees)

    def so() -> bool:
        nonlocal last
        shown = httpx.get(f"{url}/v1/nodes", timeout=10).raise_for_status().json()["nodes"]
        last = shown[0] if shown else {}
        return bool(last) and condition(last)

    assert wait_until(so, HEARTBEAT), last
    return time.monotonic() - began  # noqa: TID251


def test_what_becomes_of_a_node_is_seen_within_a_heartbeat(cluster: StartCluster) -> None:
    """Live, out of service, still so after a restart, back, dead."""
    at = cluster("nodes")
    took = {"joined": seconds_until(at.url, lambda node: node["state"] == "live" and bool(node["models"]))}
    node, worker = "nodes-node-1", at.services["worker-1"]
    assert httpx.put(f"{at.url}/v1/nodes/{node}/maintenance", json={"reason": "a fan"}).status_code == 200
    took["maintenance"] = seconds_until(at.url, lambda node: node["state"] == "maintenance" and node["draining"])
    boot = httpx.get(f"{at.url}/v1/nodes/{node}").json()["boot"]
    worker.stop(10.0)
    worker.start()
    assert wait_until(lambda: worker.reason() is not None, 60.0), "its process is up: its imports are no news of the node"
    took["again"] = seconds_until(at.url, lambda node: node["boot"] != boot and node["state"] == "maintenance")
    assert httpx.delete(f"{at.url}/v1/nodes/{node}/maintenance").status_code == 204
    took["back"] = seconds_until(at.url, lambda node: node["state"] == "live")
    answer = httpx.post(f"{at.url}/v1/chat/completions", json={"model": "auto", "messages": [{"role": "user", "content": "x"}]}, timeout=30)
    assert answer.status_code == 200
    worker.daemon.signal(signal.SIGKILL)
    took["dead"] = seconds_until(at.url, lambda node: node["state"] == "silent")
    print({name: round(seconds, 1) for name, seconds in took.items()})
