"""Promise: on a real Kafka a share of the jobs of patterns is compared with its baseline, in time and at its tenant's cost, and reported.

How: processes, every job in the share; a node whose answers are simulated, so verdicts mean nothing, and ratios are counts of calls.
"""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from infra.cli.main import main
from infra.native.cluster import LocalCluster
from infra.native.waiting import wait_until
from tests.support.native import StartCluster

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]
JOBS = 6


def report(at: LocalCluster) -> dict[str, Any]:
    environment = {"TUTTI_KAFKA_SERVERS": at.servers, "TUTTI_TOPICS__PREFIX": at.prefix}
    found = CliRunner().invoke(main, ["patterns", "report", "--json"], env=environment, catch_exceptions=False)
    told: dict[str, Any] = json.loads(found.stdout)
    return told


def counted(told: dict[str, Any]) -> int:
    return sum(gain["comparisons"] for gain in told["gains"]) + sum(told["without_verdict"].values())


def test_jobs_of_patterns_are_compared_and_reported(cluster: StartCluster) -> None:
    """Each once; a single call never; what the user gets says nothing of it."""
    at = cluster("compared", environment={"TUTTI_PLANNER__COMPARED_SHARE": "1.0"})
    for number in range(JOBS):
        for body in ({"pattern": "vote", "input": {"samples": 3, "at_once": 1}}, {"pattern": "cascade"}, {}):
            ended = httpx.post(f"{at.url}/v1/jobs?wait=60", json={"prompt": f"Question {number}?", **body}, timeout=90).json()
            assert (ended["state"], ended["result"]["status"]) == ("settled", "succeeded"), ended
            assert "baseline" not in json.dumps(ended)
    assert wait_until(lambda: counted(report(at)) >= 2 * JOBS, 60.0, every_seconds=1.0), report(at)
    told = report(at)
    assert counted(told) == 2 * JOBS, told
    assert {gain["pattern"] for gain in told["gains"]} <= {"vote", "cascade"}
    voted = next(gain for gain in told["gains"] if gain["pattern"] == "vote")
    assert (voted["baselines"], voted["cost_ratio"] >= 1.0) == (["first sample"], True)
    assert voted["evidence"] == f"no evidence: {voted['comparisons']} of 20 comparisons"
