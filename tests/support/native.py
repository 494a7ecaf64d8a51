"""Fixtures that give tests real components: started here by infra/native, on free ports, with data in a temporary directory.

| fixture | gives | scope |
|---|---|---|
| `kafka` | bootstrap servers of a real broker | session; `TUTTI_TEST_KAFKA` names one that runs already |
| `own_kafka` | a `Kafka` of one's own, to stop, kill and start | function |
| `redis_url` | a real Redis | session |

A component that cannot be had skips the test on a laptop and fails it where it is required (`required`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import pytest

from infra.native.errors import NativeError
from infra.native.kafka import Kafka
from infra.native.paths import Home
from infra.native.ports import free_ports
from infra.native.settings import NativeSettings


def required(component: str, environment: Mapping[str, str]) -> bool:
    """Whether a missing `component` is a failure: listed in TUTTI_REQUIRE_REAL, or, without such a list, whenever CI is set."""
    listed = environment.get("TUTTI_REQUIRE_REAL")
    if listed is not None:
        return component in {name.strip() for name in listed.split(",")}
    return bool(environment.get("CI"))


def missing(component: str, reason: str) -> NoReturn:
    """Skip, or fail where `component` is required."""
    if required(component, os.environ):
        pytest.fail(f"{component} is required here and cannot be had: {reason}", pytrace=False)
    pytest.skip(f"no {component}: {reason}")


def new_kafka(directory: Path, *, tier: int = 1) -> Kafka:
    """A broker, not started, on free ports, that ends with the test run whatever happens."""
    port, controller_port = free_ports(2)
    cache = NativeSettings().cache_directory
    return Kafka(Home(directory), cache, port=port, controller_port=controller_port, tier=tier, dies_with_parent=True)


def _started(directory: Path) -> Kafka:
    broker = new_kafka(directory)
    try:
        broker.start()
    except NativeError as error:
        broker.kill()
        missing("kafka", error.message)
    return broker


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap servers of a real broker, shared by the session: use a topic prefix of your own."""
    if running := os.environ.get("TUTTI_TEST_KAFKA"):
        yield running
        return
    broker = _started(tmp_path_factory.mktemp("kafka"))
    yield broker.servers
    broker.stop()


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[Kafka]:
    """A real broker for this test alone. Its methods block: from a coroutine call them with `asyncio.to_thread`."""
    broker = _started(tmp_path)
    yield broker
    broker.kill()
