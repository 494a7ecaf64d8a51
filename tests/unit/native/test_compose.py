"""docker-compose.yml and the Dockerfile agree with the services: ports, grace periods, bounds, no root. Docker itself is not needed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.services import PORTS
from shared.settings import ClusterSettings

ROOT = Path(__file__).parents[3]
FILE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_every_service_of_the_cluster_is_there() -> None:
    """Beside Kafka, both Redis, MongoDB, the container that makes the topics, and a simulator that is started only when asked for."""
    assert set(SERVICES) == {*PORTS, "kafka", "redis", "redis-cache", "mongodb", "topics", "simulator"}
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["simulator"]


@pytest.mark.parametrize("name", PORTS)
def test_a_service_listens_and_is_probed_on_its_own_port(name: str) -> None:
    """The port of the table in the README; the probe takes it from the same variable."""
    service = SERVICES[name]
    assert service["command"] == ["run", name]
    assert service["environment"]["TUTTI_HTTP_PORT"] == PORTS[name]
    assert "$$TUTTI_HTTP_PORT" in service["healthcheck"]["test"][-1]


@pytest.mark.parametrize("name", PORTS)
def test_a_service_may_end_its_work_and_nothing_more(name: str) -> None:
    """The grace period covers the service's own; no root, no capabilities, no writable files, bounded memory and processes."""
    service = SERVICES[name]
    assert int(service["stop_grace_period"].removesuffix("s")) > ClusterSettings().grace_seconds
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert "volumes" not in service


def test_nothing_listens_beyond_this_machine() -> None:
    """A door without keys is not opened to the network by default."""
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_what_must_survive_is_on_a_volume_and_everything_is_bounded() -> None:
    """Kafka's log and Redis's file; memory and log files of every container."""
    assert set(FILE["volumes"]) == {"kafka", "redis", "mongodb"}
    assert all("mem_limit" in service and "max-size" in service["logging"]["options"] for service in SERVICES.values())


def test_the_image_runs_as_a_number_that_is_not_root_on_the_tested_python() -> None:
    """Kubernetes can check a number only; the lock file is resolved for the oldest Python."""
    users = re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE)
    assert users == ["10001:10001"]
    assert "ARG PYTHON=python:3.11-slim" in DOCKERFILE
    assert "--require-hashes -r requirements.lock" in DOCKERFILE


def test_the_broker_has_the_version_of_the_native_one() -> None:
    """What is tested natively is what runs in containers."""
    from infra.native.kafka import VERSION

    assert SERVICES["kafka"]["image"] == f"apache/kafka:{VERSION}"
