"""TUTTI_TEST_CONTAINERS: integration tests on Kafka, Redis and MongoDB in containers, by testcontainers, as docker-compose.yml has them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.lab.compose.engine import Engine
from infra.lab.compose.project import LOCAL, ROOT

pytestmark = pytest.mark.timeout(300)
TESTS = (  # one for each fixture
    "tests/integration/test_platform_assumptions.py::test_2_paused_partitions_can_be_committed",
    "tests/integration/test_ingress_redis.py::test_views_and_positions_are_written_together",
    "tests/integration/test_sink_store.py::test_a_sum_takes_each_record_once",
)


def test_fixtures_are_containers_where_that_is_asked_for(engine: Engine, tmp_path: Path) -> None:
    """On the images made here; nothing is left of them."""
    before = engine.docker("ps", "-aq")
    told = {
        "TUTTI_TEST_CONTAINERS": f"{ROOT / 'docker-compose.yml'}:{LOCAL}",
        "PATH": "/usr/bin:/bin",
    }  # no Java, no redis-server of one's own
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS],
        cwd=ROOT,
        env={**os.environ, **engine.environment, **told, "TUTTI_REQUIRE_REAL": "kafka,redis,mongodb"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5_000:]
    assert "3 passed" in done.stdout
    assert engine.docker("ps", "-aq") == before
