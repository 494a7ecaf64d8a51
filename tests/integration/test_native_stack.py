"""The promise of `tutti up|down|status|logs`: everything on one machine, from one command, with real Kafka and Redis.

What: up starts all eight components and says that a simulator is one; a second up changes nothing; an answer comes over REST and says
that it is simulated; down ends every process and keeps the data; `down --clean` removes it.
A service that is killed is started again, and the status tells.
How: the commands as a user types them, on free ports, in a directory of our own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.native.ports import free_ports
from infra.native.processes import identity
from infra.native.waiting import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(480)]
SERVICES = ("PLANNER", "ROUTER", "WORKER", "DELAY", "SINK", "CACHE", "INGRESS")


class Stack:
    """The commands, in a directory and on ports of their own."""

    def __init__(self, home: Path) -> None:
        names = ["TUTTI_KAFKA_PORT", "TUTTI_KAFKA_CONTROLLER_PORT", "TUTTI_REDIS_PORT", "TUTTI_REDIS_CACHE_PORT"]
        names += ["TUTTI_MONGO_PORT", "TUTTI_NODE_PORT"]
        names += [f"TUTTI_HTTP_PORTS__{service}" for service in SERVICES]
        ports = {name: str(port) for name, port in zip(names, free_ports(len(names)), strict=True)}
        self.home = home
        self._environment = {**os.environ, **ports, "TUTTI_HOME": str(home)}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from infra.cli.main import main; main()", *arguments]
        return subprocess.run(command, env=self._environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)

    def rows(self, *arguments: str) -> dict[str, dict[str, Any]]:
        done = self.run(*arguments, "--json")
        rows = {row["component"]: row for row in json.loads(done.stdout)}
        assert (done.returncode == 0) == ({row["state"] for row in rows.values()} == {"ready"}), (done.stderr, rows)
        return rows


@pytest.fixture
def stack(tmp_path: Path, kafka: str, redis_url: str) -> Iterator[Stack]:
    """`kafka` and `redis_url` decide whether the components can be had at all."""
    one = Stack(tmp_path / "home")
    yield one
    one.run("down", "--clean")


def test_the_whole_stack_from_up_to_clean(stack: Stack) -> None:
    """The life of a stack on one machine."""
    rows = stack.rows("up", "--node", "simulator")
    assert len(rows) == 13
    assert {row["state"] for row in rows.values()} == {"ready"}
    assert rows["model node"]["simulated"]
    pids = {name: row["pid"] for name, row in rows.items()}

    assert {name: row["pid"] for name, row in stack.rows("up").items()} == pids
    assert "SIMULATED" in stack.run("status").stdout
    assert "planner" in stack.run("logs", "planner").stdout

    answer = httpx.post(
        f"{rows['ingress']['address']}/v1/chat/completions",
        json={"model": "auto", "messages": [{"role": "user", "content": "hello"}]},
        timeout=120,
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"]

    os.kill(pids["planner"], signal.SIGKILL)

    def again() -> bool:
        planner = stack.rows("status")["planner"]
        return planner["state"] == "ready" and planner["pid"] != pids["planner"]

    assert wait_until(again, 60)
    planner = stack.rows("status")["planner"]
    assert "restarts: 1, the last because it was killed by SIGKILL" in planner["about"]
    pids["planner"] = planner["pid"]

    assert stack.run("down").returncode == 0
    assert [name for name, pid in pids.items() if identity(pid) is not None] == []
    assert (stack.home / "data" / "kafka" / "logs" / "meta.properties").exists()
    assert stack.run("down", "--clean").returncode == 0
    assert not (stack.home / "data").exists()
