"""A service from outside, of four small files (`tests/support/counter`): it stands on the kit, and all that know of services find it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from prometheus_client import REGISTRY

from infra.cli import run as cli
from infra.lab.virtual_loop import within
from infra.native import http
from infra.native.settings import NativeSettings
from infra.native.stack import Stack
from shared.contracts.headers import envelope
from shared.contracts.result import Result, Status
from shared.errors import ConfigurationError
from shared.service.configuration import ShellSettings, ports_of
from shared.services import NAMES, listed
from shared.topics import TopicSettings
from tests.support.counter.app import ResultCounter, build
from tests.support.stage import Stage

ROOT = Path(__file__).parents[2]
PACKAGE = "tests.support.counter"


class World(Stage):
    """A log with results in it, and counters."""

    lives = 0

    def ends(self, tenant: str, jobs: int) -> None:
        values = [
            Result(job=f"{tenant}-{n}", tenant=tenant, status=Status.SUCCEEDED, accepted_at=0.0, finished_at=1.0) for n in range(jobs)
        ]
        self.tell(0, *(value.to_bytes() for value in values))

    def tell(self, partition: int, *values: bytes) -> None:
        for value in values:
            self.write(self.topics.results, partition, value, envelope("result"), b"k")

    @asynccontextmanager
    async def counter(self) -> AsyncIterator[ResultCounter]:
        """One life of it; told to stop at the end."""
        self.lives += 1
        name = f"counter-{self.lives}"
        made = build(self.environment(name))
        self.run(name, made)
        yield made
        await self.stop(name)

    def counted_to(self) -> int | None:
        return self.committed(self.topics.results, group="tutti-counter")


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    yield World(TopicSettings())


simulated = within(world)


def counted(tenant: str) -> float:
    return REGISTRY.get_sample_value("counter_jobs_total", {"tenant": tenant}) or 0.0


@simulated
async def test_it_counts_and_goes_on_where_it_stopped(it: World) -> None:
    """What was told to stop has committed all that it counted: nothing is counted twice, and what came meanwhile is counted too."""
    it.ends("acme", 500)
    async with it.counter() as counter:
        assert counter.readiness().reasons == ("no answer from Kafka yet",)
        await it.clock.sleep(10.0)
        assert counter.readiness().ready
        assert counted("acme") == 500
        it.ends("acme", 7)
        await it.clock.sleep(0.2)
    assert it.counted_to() == 507
    it.ends("acme", 3)
    async with it.counter():
        await it.clock.sleep(10.0)
    assert counted("acme") == 510


@simulated
async def test_an_odd_record_is_a_dead_letter_and_stops_nobody(it: World) -> None:
    """Committed past only once it lies there."""
    it.tell(0, b"no result")
    it.ends("globex", 5)
    it.log.faults.away[it.topics.dead_letters] = 30.0
    async with it.counter():
        await it.clock.sleep(10.0)
        assert (counted("globex"), it.counted_to()) == (5, 0)
        it.log.faults.heal()
        await it.clock.sleep(60.0)
        assert it.counted_to() == 6


def test_all_who_know_of_services_find_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By one setting: the list, its port, `tutti run`, `tutti up`."""
    assert tuple(service.name for service in listed()) == NAMES
    monkeypatch.setenv("TUTTI_SERVICES", f"{PACKAGE}:9110")
    assert listed()[-1] == ("counter", 9110, True, PACKAGE, False)
    assert ports_of(ShellSettings(), ["planner", "counter"])["counter"] == 9110
    found: list[str] = []
    monkeypatch.setattr(
        cli, "run_process", lambda builds: found.extend(name for name, made in builds if made is build or name != "counter")
    )
    assert CliRunner().invoke(cli.run, ["counter"]).exit_code == 0
    assert CliRunner().invoke(cli.run, ["all"]).exit_code == 0
    assert found == ["counter", *NAMES, "counter"]
    processes = {process.service: process for process in Stack(NativeSettings(home=tmp_path), print).services(None)}
    assert list(processes) == [*NAMES, "counter"]
    assert processes["counter"].daemon.command[-2:] == ("-m", PACKAGE)


@pytest.mark.parametrize(
    "value", ["counter", "a.b", "a.b:x", "a.b:70000", "shop.planner:9110", "a.b:1,c.b:2", "a.b:9101", "a..b:1", "os.system('x'):1"]
)
def test_what_is_no_list_of_packages_is_a_wrong_setting(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dotted package and a port each; no name and no port twice."""
    monkeypatch.setenv("TUTTI_SERVICES", value)
    with pytest.raises(ConfigurationError, match="TUTTI_SERVICES"):
        listed()


def test_tutti_runs_it_while_kafka_is_away(unused_tcp_port: int) -> None:
    """A process of its own, as any service: it says why it is not ready, and ends in order when told to."""
    with socket.socket() as taken:  # bound and not listening: nobody answers there
        taken.bind(("127.0.0.1", 0))
        environment = {
            "PYTHONPATH": str(ROOT),
            "PATH": "",
            "TUTTI_SERVICES": f"{PACKAGE}:{unused_tcp_port}",
            "TUTTI_KAFKA_SERVERS": f"127.0.0.1:{taken.getsockname()[1]}",
        }
        process = subprocess.Popen([sys.executable, "-m", "infra.cli", "run", "counter"], env=environment, cwd=ROOT)
        try:
            url, last = f"http://127.0.0.1:{unused_tcp_port}/readyz", time.monotonic() + 60
            while (reason := http.refusal(url)) is None and time.monotonic() < last:
                assert process.poll() is None
                time.sleep(0.05)
            assert reason is not None
            assert "no answer from Kafka yet" in reason
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
