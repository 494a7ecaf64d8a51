"""A machine joins a cluster of real processes with a token, beside an Ollama that listens on localhost only, answers jobs, and leaves."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from infra.native import http
from infra.native.cluster import LocalCluster
from infra.native.processes import identity
from infra.native.waiting import wait_until
from tests.support.joining import Machine
from tests.support.native import StartCluster

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]


def asked(cluster: LocalCluster, prompt: str) -> tuple[str, str]:
    """(state, node) of a job that is answered."""
    machine = {"TUTTI_URL": cluster.url, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "infra.cli", "submit", "--json", prompt]
    done = subprocess.run(command, env={**os.environ, **machine}, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout[done.stdout.index("\n{\n") :])  # behind the pieces
    return result["status"], result["answer"]["node"]


def test_a_machine_joins_answers_and_leaves(cluster: StartCluster, simulator_url: str, tmp_path: Path) -> None:
    """With nothing but a token. Its files are its owner's alone; the name is taken then; when it has left nothing of it is there."""
    running = cluster("joined", workers=0)
    first, second = Machine(tmp_path / "one", simulator_url), Machine(tmp_path / "two", simulator_url)
    names = {"TUTTI_KAFKA_SERVERS": running.servers, "TUTTI_TOPICS__PREFIX": running.prefix}
    token = first.tutti("join-token", "--name", "office", **names).stdout.strip()
    try:
        done = first.join(token, "--name", "desk-7")
        assert done.returncode == 0, done.stderr
        assert "node desk-7 of office: ready" in done.stdout
        assert token not in done.stdout + done.stderr
        assert wait_until(lambda: http.answers(f"{running.url}/readyz"), 30)
        assert asked(running, "who are you?") == ("succeeded", "desk-7")
        settings = first.home / "worker.env"
        assert (stat.S_IMODE(settings.stat().st_mode), stat.S_IMODE(first.home.stat().st_mode)) == (0o600, 0o700)
        again = first.join(token)
        assert (again.returncode, "is node desk-7 of office already" in again.stderr) == (1, True)
        taken = second.join(token, "--name", "desk-7")
        assert (taken.returncode, "works in this cluster already" in taken.stderr) == (1, True)
        assert not second.home.exists()
        pid = json.loads((first.home / "run" / "worker.json").read_text())["pid"]
    finally:
        left = first.leave()
    assert left.returncode == 0, left.stderr
    assert identity(pid) is None
    assert not first.home.exists()
    nodes = first.tutti("nodes", "--json", **names)
    assert json.loads(nodes.stdout) == []
