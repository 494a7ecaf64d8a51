"""Promise: queued jobs wait in Kafka; no service's memory grows with their number.

How: `python -m infra.lab.bench backlog`, on a real Kafka with real processes; opt-in, for it takes minutes and wants the machine alone:

    TUTTI_BACKLOG_JOBS=100000 .venv/bin/pytest tests/load/test_backlog_memory.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

JOBS = os.environ.get("TUTTI_BACKLOG_JOBS")
pytestmark = [pytest.mark.kafka, pytest.mark.timeout(3_600), pytest.mark.skipif(JOBS is None, reason="opt-in: set TUTTI_BACKLOG_JOBS")]


def test_memory_is_flat_while_jobs_queue_up(kafka: str, tmp_path: Path) -> None:
    """Largest resident memory of every service, within the bench's bound and the budget of 120 MB."""
    file = tmp_path / "backlog.json"
    options = ["--jobs", str(JOBS), "--repeats", "1", "--servers", kafka, "--json", str(file)]
    command = [sys.executable, "-m", "infra.lab.bench", "backlog", *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=3_500, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr[-2_000:]
    written = json.loads(file.read_text())
    assert [budget["met"] for budget in written["budgets"]] == [True]
    [run] = written["runs"]
    most = {name.removesuffix(".most_mib"): value for name, value in run.items() if name.endswith(".most_mib")}
    assert set(most) == {"planner", "router", "delay", "ingress", "worker-1"}
    assert all(value <= 120 for value in most.values())
