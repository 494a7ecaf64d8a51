"""Promise: `python -m infra.lab.bench --quick` runs both systems on a real Kafka, loses nothing, and writes a file that a later run reads.

How: the command itself. Figures are not judged: a machine that runs tests is not one to measure on.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


def bench(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "infra.lab.bench", "--quick", *options], capture_output=True, text=True, timeout=280, check=False
    )


def test_the_quick_bench_measures_everything_once(kafka: str, tmp_path: Path) -> None:
    """Every budget has a figure; every job of every run was answered; the comparison with itself is possible."""
    first = tmp_path / "first.json"
    ended = bench("--servers", kafka, "--json", str(first))
    assert ended.returncode == 0, ended.stderr[-2_000:]
    written = json.loads(first.read_text())
    assert [budget["name"] for budget in written["budgets"] if budget["measured"] is None] == []
    assert {name.split("/")[0] for run in written["runs"] for name in run} == {
        "rest_1",
        "rest_10",
        "rest_64",
        "rest_256",
        "queue",
        "first_token",
        "streams",
    }
    assert written["options"]["servers"] == "given"
    assert written["options"]["partitions"]["home_partitions"] > 0
    second = tmp_path / "second.json"
    again = bench("--servers", kafka, "--only-bare", "--scenario", "rest_1", "--compare", str(first), "--json", str(second))
    assert again.returncode == 0, again.stderr[-2_000:]
    assert "against" in again.stdout
    assert "partitions" not in json.loads(second.read_text())["options"]  # of tutti's topics: it was not started
