"""The promise of the `cluster` fixture: real processes of all services that answer over REST, and leave nothing behind.

What: five services and a simulated node come up on free ports; a chat completion is answered; afterwards no process is left.
How: start, ask through the ingress, stop, look at the pids.
"""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from infra.native.processes import identity
from tests.support.native import StartCluster

pytestmark = pytest.mark.kafka


def ask(url: str, body: dict[str, Any]) -> Any:
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30).raise_for_status().json()


def test_a_cluster_of_real_processes_answers_and_leaves_nothing_behind(cluster: StartCluster) -> None:
    """REST in, REST out, through five processes and a broker; `stop` ends every one of them."""
    one = cluster("native")
    answer = ask(one.url, {"model": "auto", "messages": [{"role": "user", "content": "hello"}]})
    assert answer["choices"][0]["message"]["content"]
    pids = [pid for pid in one.pids().values() if pid is not None]
    assert len(pids) == 5
    one.stop()
    assert [identity(pid) for pid in pids] == [None] * 5
