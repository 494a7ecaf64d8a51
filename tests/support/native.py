"""Fixtures that give tests real components: started here by infra/native, on free ports, with data in a temporary directory.

| fixture | gives | scope |
|---|---|---|
| `kafka` | bootstrap servers of a real broker | session; `TUTTI_TEST_KAFKA` names one that runs already |
| `own_kafka` | a `Kafka` of one's own, to stop, kill and start | function |
| `redis_url` | a real Redis; use keys of your own | session; `TUTTI_TEST_REDIS` names one that runs already |
| `empty_redis` | the same, without any keys | function |
| `mongo_url` | a stand-in for MongoDB (SecantusDB) unless there is a mongod; a database each | session; `TUTTI_TEST_MONGO` names one |
| `ollama_url` | a real Ollama with the models of `make ollama` | session |
| `simulator_url` | a simulated Ollama without latency | session |
| `cluster` | `cluster(namespace, **options)`: a started `LocalCluster` on `kafka`; stopped at the end, logs shown on failure | function |

With TUTTI_TEST_CONTAINERS=docker-compose.yml `kafka`, `redis_url` and `mongo_url` are containers (tests/support/containers.py).
Test processes that run beside each other (`-n`) have a broker, a Redis and a range of ports each, and run whole modules (`--dist
loadfile`): a cluster or browser that a module starts once is started once indeed.
A component that cannot be had skips the test on a laptop and fails it where it is required (`required`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, Protocol

import pytest
from redis import Redis

from infra.native import kafka as kafka_files
from infra.native import node, ollama_server, ports
from infra.native.cluster import LocalCluster
from infra.native.errors import NativeError
from infra.native.kafka import Kafka
from infra.native.mongo import MongoServer
from infra.native.paths import REPOSITORY, StackHome
from infra.native.ports import free_ports
from infra.native.processes import Daemon
from infra.native.redis import RedisServer
from infra.native.settings import NativeSettings
from infra.native.waiting import wait_until
from tests.support import containers

START_SECONDS = 120.0
"""Three brokers that start at once on a busy machine need more than the one that a person waits for."""
_FAILED = pytest.StashKey[bool]()


def pytest_configure() -> None:
    """Take this process's part of the ports."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is not None:
        ports.own_range = part_of(ports.own_range, int(worker.removeprefix("gw")), int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))


def part_of(whole: range, number: int, count: int) -> range:
    """Of `count` parts that do not meet the one of process `number`; one that replaces a crashed process has a higher number."""
    size = len(whole) // count
    return whole[number % count * size :][:size]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that may take longest go first, so that processes beside each other end together. Otherwise the order stays."""
    items.sort(key=_limit_seconds, reverse=True)


def _limit_seconds(item: pytest.Item) -> float:
    mark = item.get_closest_marker("timeout")
    return float(mark.args[0]) if mark else 0.0


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


def new_kafka(directory: Path, kind: type[Kafka] = Kafka, **options: Any) -> Kafka:
    """A broker, not started, on free ports, that ends with the test run whatever happens. `options` are fields of Kafka."""
    port, controller_port = free_ports(2)
    cache = NativeSettings().cache_directory
    chosen = {"tier": 1, **options}
    return kind(StackHome(directory), cache, port=port, controller_port=controller_port, dies_with_parent=True, **chosen)


def started_kafka(directory: Path, **options: Any) -> Kafka:
    """A broker as `new_kafka` makes it. One that is there and does not start is an error, not a missing component."""
    try:
        kafka_files.prepare(NativeSettings().cache_directory)
    except NativeError as error:
        missing("kafka", error.message)
    broker = new_kafka(directory, **options)
    try:
        broker.start(timeout_seconds=START_SECONDS)
    except NativeError:
        broker.kill()
        raise
    return broker


KAFKA_FOLDERS: list[Path] = []
"""Where the session's broker keeps what it is given; none of one that somebody else runs."""


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap servers of a real broker, shared by the session: use a topic prefix of your own."""
    if running := os.environ.get("TUTTI_TEST_KAFKA"):
        yield running
        return
    directory = tmp_path_factory.mktemp("kafka")
    if containers.asked():
        broker = new_kafka(directory)
        with containers.running("kafka", 19_092, broker.port, KAFKA_PORT=str(broker.port)):
            _await(broker)
            yield broker.servers
        return
    broker = started_kafka(directory)
    KAFKA_FOLDERS.append(directory)
    yield broker.servers
    broker.stop()
    shutil.rmtree(directory, ignore_errors=True)


def _await(server: Kafka | RedisServer | MongoServer) -> None:
    assert wait_until(server.healthy, START_SECONDS), "a container does not answer"


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[Kafka]:
    """A real broker for this test alone. Its methods block: from a coroutine call them with `asyncio.to_thread`."""
    broker = started_kafka(tmp_path, session_timeout_ms=2_000)
    yield broker
    broker.kill()
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Redis, shared by the session."""
    yield from _store(RedisServer, "redis", 6_379, tmp_path_factory)


@pytest.fixture(scope="session")
def mongo_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of MongoDB's protocol, shared by the session."""
    yield from _store(MongoServer, "mongodb", 27_017, tmp_path_factory)


def _store(kind: type[RedisServer | MongoServer], name: str, inner_port: int, directories: pytest.TempPathFactory) -> Iterator[str]:
    if running := os.environ.get(f"TUTTI_TEST_{name.removesuffix('db')}".upper()):
        yield running
        return
    server = kind(StackHome(directories.mktemp(name)), free_ports(1)[0], dies_with_parent=True)
    if containers.asked():
        with containers.running(name, inner_port, server.port):
            _await(server)
            yield server.url
        return
    try:
        server.start()
    except NativeError as error:
        missing(name, error.message)
    yield server.url
    server.stop()


@pytest.fixture
def empty_redis(redis_url: str) -> Iterator[str]:
    """`redis_url` without a key in it; what a test leaves is removed."""
    client: Any = Redis.from_url(redis_url)
    client.flushdb()
    yield redis_url
    client.flushdb()
    client.close()


@pytest.fixture(scope="session")
def ollama_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Ollama with gemma3:270m, tiny, tiny2 and all-minilm, as `make ollama` installs it."""
    cache = NativeSettings().cache_directory
    program = ollama_server.installed(cache)
    if not program.exists():
        missing("ollama", "`make ollama` installs it")
    port = free_ports(1)[0]
    daemon = _daemon("ollama", tmp_path_factory.mktemp("ollama"), [str(program), "serve"])
    daemon.environment = ollama_server.environment(port, str(program), cache, slots=2)
    yield from _serving(daemon, f"http://127.0.0.1:{port}", "ollama")


@pytest.fixture(scope="session")
def simulator_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A simulated Ollama that takes no time."""
    port = free_ports(1)[0]
    daemon = _daemon("simulator", tmp_path_factory.mktemp("simulator"), node.simulator_command(port, "--profile", "instant"))
    daemon.environment = {"PYTHONPATH": str(REPOSITORY)}
    yield from _serving(daemon, f"http://127.0.0.1:{port}", "simulator")


def _daemon(name: str, directory: Path, command: list[str]) -> Daemon:
    return Daemon(name, command, directory / "pid.json", directory / "output.log", dies_with_parent=True)


def _serving(daemon: Daemon, url: str, component: str) -> Iterator[str]:
    daemon.start()
    try:
        node.await_answer(daemon, f"{url}/api/version")
    except NativeError as error:
        missing(component, error.message)
    yield url
    daemon.stop(10.0)


class StartCluster(Protocol):
    """What the `cluster` fixture is."""

    def __call__(self, namespace: str, **options: Any) -> LocalCluster:
        """A started cluster; `options` are fields of LocalCluster."""
        ...


@pytest.fixture
def cluster(request: pytest.FixtureRequest, kafka: str, tmp_path: Path) -> Iterator[StartCluster]:
    """Starts clusters of real processes. They block while they start: from a coroutine use `asyncio.to_thread`."""
    started: list[LocalCluster] = []

    def start(namespace: str, **options: Any) -> LocalCluster:
        one = LocalCluster(kafka, namespace, tmp_path / namespace, **options)
        started.append(one)
        return one.start()

    yield start
    if request.node.stash.get(_FAILED, False):
        for one in started:
            print(one.log_ends())  # noqa: T201  (pytest shows it with the failure)
    for one in started:
        one.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember for the fixtures' teardown that the test failed."""
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report
