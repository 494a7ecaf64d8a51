"""KEDA's triggers: their metadata by KEDA's own source, what they count on a real Kafka, what their queries give on a real Prometheus."""

from __future__ import annotations

import asyncio
import json
import math
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from aiokafka import AIOKafkaProducer

from infra.lab.kubernetes.tools import Tools
from infra.native import http
from infra.native.cluster import LocalCluster
from infra.native.ports import free_ports
from infra.native.processes import Daemon
from infra.native.waiting import wait_until
from shared.clock import SystemClock
from shared.kafka.client.aio import AioLog
from shared.kafka.port import Admin, Consumer
from shared.services import group_of
from tests.helm.conftest import Render
from tests.support.keda import TriggerError, kafka_lag, metadata_choices, metadata_fields, prometheus_value
from tests.support.native import StartCluster, missing

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]
SECONDS = 60.0
CLOCK = SystemClock()


def scaled(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What is scaled → its ScaledObject."""
    return {one["spec"]["scaleTargetRef"]["name"]: one["spec"] for one in objects if one["kind"] == "ScaledObject"}


def triggers(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """All of one kind."""
    return [trigger for spec in scaled(objects).values() for trigger in spec["triggers"] if trigger["type"] == kind]


@pytest.mark.parametrize("variant", ["keda", "agents", "secrets"])
def test_metadata_are_kedas(variant: str, render: Render, tools: Tools) -> None:
    """A free map to Kubernetes; a misspelt name would be passed over in silence, so names and choices are read from KEDA's source."""
    objects = render(variant)
    found = [trigger for spec in scaled(objects).values() for trigger in spec["triggers"]]
    assert {trigger["type"] for trigger in found} <= {"cpu", "kafka", "prometheus"}
    for kind in ("kafka", "prometheus"):
        source = tools.keda / f"{kind}_scaler.go"
        for trigger in triggers(objects, kind):
            assert set(trigger["metadata"]) <= metadata_fields(source)
            for name, value in trigger["metadata"].items():
                assert isinstance(value, str), name
                assert not (choices := metadata_choices(source, name)) or value in choices, name


@pytest.mark.parametrize("variant", ["keda", "agents", "secrets"])
def test_an_unknown_number_never_scales_to_nothing(variant: str, render: Render) -> None:
    """KEDA does nothing on errors where there is a fallback of some replicas; and nothing that it takes for 0 by itself is left to it."""
    objects = render(variant)
    for name, spec in scaled(objects).items():
        assert spec["fallback"]["replicas"] >= 1, name
        assert spec["fallback"]["behavior"] == "currentReplicasIfHigher"
        assert spec["minReplicaCount"] >= 1 or all(trigger["type"] == "prometheus" for trigger in spec["triggers"])
        assert "idleReplicaCount" not in spec
    for trigger in triggers(objects, "kafka"):
        metadata = trigger["metadata"]
        assert metadata["topic"], "without one KEDA takes all topics of the broker while a group has committed nothing"
        assert (metadata["scaleToZeroOnInvalidOffset"], metadata["offsetResetPolicy"]) == ("false", "earliest")
    assert all(trigger["metadata"]["ignoreNullValues"] == "false" for trigger in triggers(objects, "prometheus"))


class Scene:
    """A cluster with two pools' triggers, as KEDA asks them."""

    def __init__(self, at: LocalCluster, objects: list[dict[str, Any]], admin: Admin, reader: Consumer) -> None:
        self.at, self.admin, self.reader = at, admin, reader
        self.metadata = [trigger["metadata"] for trigger in triggers(objects, "kafka")]
        running = {group_of(name, at.prefix) for name in at.services}
        self.there = [metadata for metadata in self.metadata if metadata["consumerGroup"] in running]

    async def lags(self) -> dict[tuple[str, str], int]:
        """(group, topic) → what the autoscaler is told."""
        return {(m["consumerGroup"], m["topic"]): (await kafka_lag(m, self.admin, self.reader))[0] for m in self.there}

    async def until(self, condition: Callable[[dict[tuple[str, str], int]], bool]) -> dict[tuple[str, str], int]:
        """The first lags of which it is true."""
        try:
            async with asyncio.timeout(SECONDS):
                while not condition(lags := await self.lags()):
                    await CLOCK.sleep(0.3)
        except TimeoutError:
            pytest.fail(f"still {lags}")
        return lags


@asynccontextmanager
async def scene(at: LocalCluster, render: Render) -> AsyncIterator[Scene]:
    objects = render(
        "keda", "--set", f"topics.settings.prefix={at.prefix}", "--set", f"kafka.servers={at.servers.replace(',', chr(92) + ',')}"
    )
    log = AioLog(at.servers, CLOCK)
    admin, reader = await log.admin(), await log.consumer(client_id="keda")
    try:
        yield Scene(at, objects, admin, reader)
    finally:
        await reader.close()
        await admin.close()
        await log.close()


def ask(at: LocalCluster, count: int, **job: str) -> None:
    """Jobs that nobody waits for."""
    for _ in range(count):
        httpx.post(f"{at.url}/v1/jobs", json={"prompt": "q", "class": "standard", **job}, timeout=30).raise_for_status()


async def test_lag_is_what_waits(cluster: StartCluster, render: Render) -> None:
    """Nothing while nothing is asked; the steps that wait while routers stand still, and so many replicas; then nothing again."""
    at = await asyncio.to_thread(cluster, "keda-lag", copies={"sink": 1}, environment={"TUTTI_PLANNER__EAGER": "false"})
    async with scene(at, render) as it:
        assert len(it.there) == 21 + 6 + 2, "of what each pool serves, in each class; of outcomes and of job-events"
        ask(at, 5)
        await it.until(lambda lags: not any(lags.values()))
        router = at.services["router"].daemon
        router.signal(signal.SIGSTOP)
        ask(at, 12)
        waiting = (f"{at.prefix}tutti-router", f"{at.prefix}steps.chat.standard")
        lags = await it.until(lambda lags: lags[waiting] >= 12)
        assert lags[waiting] == 12
        each = next(int(m["lagThreshold"]) for m in it.there if m["topic"] == waiting[1])
        assert math.ceil(lags[waiting] / each) == 3
        assert {of for of, lag in lags.items() if lag and of[0] == waiting[0]} == {waiting}, "no other pool is woken"
        router.signal(signal.SIGCONT)
        await it.until(lambda lags: not any(lags.values()))


async def test_what_a_group_has_never_read_is_not_nothing(cluster: StartCluster, render: Render) -> None:
    """All that is retained counts; a topic that is not there is an error."""
    at = await asyncio.to_thread(cluster, "keda-unknown", environment={"TUTTI_PLANNER__EAGER": "false"})
    async with scene(at, render) as it:
        ask(at, 3)
        await it.until(lambda lags: not any(lags.values()))
        metadata = next(m for m in it.there if m["topic"].endswith("outcomes"))
        value, active = await kafka_lag({**metadata, "consumerGroup": "never-seen"}, it.admin, it.reader)
        assert (value >= 3, active) == (True, True)
        with pytest.raises(TriggerError):
            await kafka_lag({**metadata, "topic": "nowhere"}, it.admin, it.reader)


async def test_marks_of_transactions_are_no_work(cluster: StartCluster, render: Render) -> None:
    """A producer of jobs may use transactions. What an open one holds back would count in a trigger on jobs.*; no trigger does."""
    at = await asyncio.to_thread(cluster, "keda-marks")
    async with scene(at, render) as it:
        topic = f"{at.prefix}jobs.batch"
        of_jobs = {**it.there[0], "topic": topic, "consumerGroup": f"{at.prefix}tutti-planner"}
        foreign: Any = AIOKafkaProducer(bootstrap_servers=at.servers, transactional_id="keda-marks", acks="all")
        await foreign.start()
        for number in range(3):
            await foreign.begin_transaction()
            await foreign.send_and_wait(
                topic, json.dumps({"id": f"marked-{number}", "prompt": "q"}).encode(), key=f"marked-{number}".encode()
            )
            await (foreign.abort_transaction() if number == 1 else foreign.commit_transaction())
        await foreign.begin_transaction()
        for number in range(20):
            await foreign.send_and_wait(topic, b'{"prompt": "q"}', key=f"open-{number}".encode())
        held_back, _ = await kafka_lag({**of_jobs, "lagThreshold": "1000"}, it.admin, it.reader)
        assert held_back >= 20, "read by nobody before the transaction ends, whatever number of planners there is"
        await it.until(lambda lags: not any(lags.values()))  # the two that were committed are done; what is held back is no work
        await foreign.abort_transaction()
        await foreign.stop()


def _prometheus(tools: Tools, folder: Path, router: str) -> tuple[Daemon, str]:
    program = tools.find_prometheus()
    if program is None:
        missing("prometheus", "there is none on the PATH, and Debian's could not be fetched")
    config = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [
            {
                "job_name": "tutti",  # labels as the Prometheus operator puts them
                "static_configs": [{"targets": [router], "labels": {"namespace": "models", "service": "release-tutti-router"}}],
            }
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_ports(1)[0]
    command = [
        program,
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    daemon = Daemon("prometheus", command, folder / "prometheus.json", folder / "prometheus.log", dies_with_parent=True)
    daemon.start()
    url = f"http://127.0.0.1:{port}"
    if not wait_until(lambda: http.answers(f"{url}/-/ready"), SECONDS):
        raise daemon.failure("is not ready")
    return daemon, url


def test_queries_see_steps_that_no_node_can_take(cluster: StartCluster, render: Render, tools: Tools, tmp_path: Path) -> None:
    """A pool of none is woken by its own steps alone, although these lie in delays most of the time; a router that is gone is no 0."""
    at = cluster("keda-query", nodes=[{"TUTTI_WORKER__AGENTS": "chat"}])
    daemon, url = _prometheus(tools, tmp_path, at.services["router"].url.removeprefix("http://"))
    try:
        metadata = {name: spec["triggers"][0]["metadata"] for name, spec in scaled(render("agents")).items() if "worker" in name}
        chat, research = (metadata[f"release-tutti-worker-{pool}"] for pool in ("chat", "research"))

        def value(of: dict[str, str]) -> float:
            try:
                return prometheus_value(of, url)
            except TriggerError:
                return -1.0

        assert wait_until(lambda: value(chat) == value(research) == 0.0, SECONDS), "what waits nowhere is 0, not unknown"
        ask(at, 3, capability="research")
        assert wait_until(lambda: value(research) >= 1.0, SECONDS)
        assert value(chat) == 0.0
        for _ in range(5):  # whatever the moment
            assert value(research) > 0.0
            wait_until(lambda: False, 0.7)
        at.services["router"].daemon.kill()
        assert wait_until(lambda: value(research) == -1.0, SECONDS), "an error to KEDA, which leaves things as they are"
    finally:
        daemon.kill()
