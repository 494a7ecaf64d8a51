"""A broker that lets nobody in without TLS and a password and denies what no ACL allows: each service works with just what
`tutti topics acls` gives it, and is refused, in words, with what is another's.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from infra.cli.exits import Exit
from infra.native.cluster import LocalCluster
from infra.native.kafka import BrokerSecurity, Kafka
from infra.native.paths import StackHome
from infra.native.ports import free_ports
from infra.native.services import ServiceProcess
from infra.native.waiting import wait_until
from shared.clock import SystemClock
from shared.contracts.base import PriorityClass
from shared.contracts.headers import envelope
from shared.contracts.job import Job
from shared.errors import LogError
from shared.kafka.client.aio import AioLog
from shared.kafka.client.security import security_of
from shared.kafka.port import Message, Record, TopicPartition
from shared.services import NAMES, SERVICES
from shared.settings import KafkaSettings
from tests.support.certificates import Authority
from tests.support.joining import Machine
from tests.support.native import started_kafka

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(240)]

PREFIX = "acl-"
WORD = "pass-word-of-"
[HOOK] = free_ports(1)
USERS = ("admin", *(f"tutti-{name}" for name in (*NAMES, "cli", "producer", "reader")), "stranger")


@dataclass
class Place:
    broker: Kafka
    guard: BrokerSecurity
    directory: Path

    def environment(self, user: str, **changes: str) -> dict[str, str]:
        """As whom a process reaches the broker."""
        return {
            "TUTTI_KAFKA_SERVERS": self.broker.servers,
            "TUTTI_TOPICS__PREFIX": PREFIX,
            "TUTTI_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "TUTTI_KAFKA_CA_FILE": str(self.guard.authorities),
            "TUTTI_KAFKA_SASL_USERNAME": user,
            "TUTTI_KAFKA_SASL_PASSWORD": self.guard.users[user],
        } | changes

    def tutti(self, user: str, *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **self.environment(user, **changes)}
        command = [sys.executable, "-m", "infra.cli", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    def log(self, user: str) -> AioLog:
        return AioLog(self.broker.servers, SystemClock(), security=security_of(self.guard.settings(user)))

    def service(self, name: str, user: str, instance: str, **changes: str) -> ServiceProcess:
        """A process that is only looked at from outside."""
        port = free_ports(1)[0]
        return ServiceProcess(name, StackHome(self.directory), port, self.environment(user, **changes), instance, dies_with_parent=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("guarded")
    authority = Authority(directory / "certificates")
    guard = BrokerSecurity(authority.sign("broker").both, authority.file, {name: WORD + name for name in USERS})
    broker = started_kafka(directory, security=guard)
    place = Place(broker, guard, directory)
    made = place.tutti("admin", "topics", "acls", "--apply")
    assert made.returncode == 0, made.stderr
    yield place
    broker.kill()


@pytest.fixture(scope="module")
def cluster(place: Place, redis_url: str) -> Iterator[LocalCluster]:
    """Every service as its own principal, topics made by the command line's."""
    made = place.tutti("tutti-cli", "topics", "create")
    assert made.returncode == 0, made.stderr
    secrets = place.directory / "secrets.toml"
    secrets.write_text('[default]\ndefault = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="\n')
    hooks = {"SECRETS_FILE": str(secrets), "HOSTS": "localhost", "NETWORKS": "127.0.0.0/8, ::1/128", "HTTP": "true", "PORTS": f"[{HOOK}]"}
    own = {
        "ingress": {f"TUTTI_INGRESS__CALLBACKS__{name}": value for name, value in hooks.items()},
        "cache": {"TUTTI_CACHE__STORE": redis_url, "TUTTI_CACHE__STORE_TIMEOUT_SECONDS": "1"},
        "planner": {"TUTTI_PLANNER__CACHE_EXACT_SECONDS": "2"},
    }
    one = LocalCluster(
        place.broker.servers,
        PREFIX.removesuffix("-"),
        place.directory / "cluster",
        simulator=("--profile", "instant", "--set", "default_context=131072"),
        copies={service.name: 1 for service in SERVICES if service.aside},
        of_service={name: place.environment(f"tutti-{name}") | own.get(name, {}) for name in NAMES},
        reached=place.guard.settings(),
    )
    yield one.start()
    one.stop()


async def ask(cluster: LocalCluster, method: str, path: str, body: Any = None, **headers: str) -> Any:
    async with aiohttp.ClientSession() as session, session.request(method, cluster.url + path, json=body, headers=headers) as response:
        assert response.status < 300, await response.text()
        return (await response.json() if response.status != 204 else {}) | {"headers": dict(response.headers)}


async def test_each_service_works_with_just_its_acls(place: Place, cluster: LocalCluster) -> None:
    chat = {"model": "auto", "messages": [{"role": "user", "content": "hello"}]}
    assert (await ask(cluster, "POST", "/v1/chat/completions", chat))["choices"]
    large = {"model": "auto", "messages": [{"role": "user", "content": "word " * 20_000}]}
    assert (await ask(cluster, "POST", "/v1/chat/completions", large))["choices"]  # by a blob
    voted = {"pattern": "vote", "prompt": "yes or no?", "conversation": "talk"}
    assert (await ask(cluster, "POST", "/v1/jobs?wait=20", voted))["state"] == "settled"
    await ask(cluster, "PUT", "/v1/tenants/somebody", {"calls": 10})
    await cached_judged_and_told(cluster)
    assert {name.rpartition("-")[0] or name for name in cluster.services} == set(NAMES)
    produced = await produce_and_read(place, cluster)
    assert json.loads(produced.value or b"")["job"] == "produced"
    assert place.tutti("tutti-cli", "nodes").returncode == 0
    assert place.tutti("tutti-cli", "topics", "lag").returncode == 0
    verified = place.tutti("tutti-cli", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    logged = "\n".join(path.read_text() for path in (place.directory / "cluster" / "log").glob("*.log"))
    assert "Authorization" not in logged, [line for line in logged.splitlines() if "Authorization" in line][:5]
    assert WORD not in logged


async def cached_judged_and_told(cluster: LocalCluster) -> None:
    """What caches, critics and callbacks write and read."""
    same = {"model": "llama3.2:1b", "messages": [{"role": "user", "content": "the same"}], "temperature": 0}
    async with asyncio.timeout(30):
        while (
            not (await ask(cluster, "POST", "/v1/chat/completions", same, **{"x-tutti-cache": "exact"}))["headers"]
            .get("x-tutti-cache", "")
            .startswith("hit")
        ):
            await SystemClock().sleep(0.2)
    judged = {"policies": [{"direction": "answer", "checks": {"max_chars": 1}, "action": "flag"}]}
    await ask(cluster, "PUT", "/v1/tenants/default", judged)
    async with asyncio.timeout(30):
        while "x-tutti-flagged" not in (await ask(cluster, "POST", "/v1/chat/completions", {**same, "temperature": 1}))["headers"]:
            await SystemClock().sleep(0.2)
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def hook(request: web.Request) -> web.Response:
        if not told.done():
            told.set_result(str((await request.json())["data"]["job"]))
        return web.Response(status=204)

    application = web.Application()
    application.router.add_post("/hook", hook)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", HOOK).start()
    try:
        made = await ask(cluster, "POST", "/v1/jobs", {"prompt": "hello", "callback": {"url": f"http://localhost:{HOOK}/hook"}})
        assert await asyncio.wait_for(told, 30) == made["id"]
    finally:
        await runner.cleanup()


async def produce_and_read(place: Place, cluster: LocalCluster) -> Record:
    """A job of a producer that is no service, which waits in `delays`, and what a reader of results sees."""
    topics, writing, reading = cluster.topics, place.log("tutti-producer"), place.log("tutti-reader")
    now = SystemClock().wall()
    job = Job(id="produced", prompt="later", not_before=now + 1.5)
    producer = await writing.producer(client_id="somebody")
    await producer.send(Message(topics.jobs(PriorityClass.STANDARD), job.to_bytes(), b"produced", None, envelope("job")))
    await producer.close()
    consumer = await reading.consumer(client_id="reader")
    try:
        consumer.assign([TopicPartition(topics.results, number) for number in range(6)])
        async with asyncio.timeout(30):
            while True:
                for records in (await consumer.poll(timeout_seconds=1.0)).values():
                    for record in records:
                        if record.key == b"produced":
                            return record
    finally:
        await consumer.close()


DENIED = [
    ("tutti-worker", "job-events"),
    ("tutti-router", "jobs.standard"),
    ("tutti-producer", "outcomes"),
    ("tutti-ingress", "job-events"),
]


@pytest.mark.parametrize(("user", "topic"), DENIED)
async def test_nobody_writes_what_is_anothers(place: Place, cluster: LocalCluster, user: str, topic: str) -> None:
    log = place.log(user)
    producer = await log.producer(client_id="denied")
    try:
        with pytest.raises(LogError):
            await producer.send(Message(PREFIX + topic, b"{}", b"k", 0, ()))
    finally:
        await producer.close()


@pytest.mark.parametrize(("user", "topic"), [("tutti-reader", "jobs.standard"), ("stranger", "results"), ("tutti-producer", "replies")])
async def test_nobody_reads_what_is_anothers(place: Place, cluster: LocalCluster, user: str, topic: str) -> None:
    consumer = await place.log(user).consumer(client_id="denied")
    try:
        with pytest.raises(LogError):
            await asyncio.wait_for(consumer.beginning_offsets([TopicPartition(PREFIX + topic, 0)]), 30)
    finally:
        await consumer.close()


async def test_a_service_with_anothers_acls_is_refused(place: Place, cluster: LocalCluster) -> None:
    wrong = place.service("delay", "tutti-sink", "as-sink")
    wrong.start()
    try:
        assert wait_until(lambda: "does not allow 'tutti-sink'" in (wrong.reason() or ""), 60.0, every_seconds=0.2), wrong.reason()
    finally:
        wrong.stop(5.0)


WRONG: dict[str, tuple[dict[str, str], str]] = {
    "password": ({"TUTTI_KAFKA_SASL_PASSWORD": "pass-word-of-nobody"}, "wrong name or password"),
    "authority": ({"TUTTI_KAFKA_CA_FILE": ""}, "does not hold"),
    "nobody": (
        {
            "TUTTI_KAFKA_SECURITY_PROTOCOL": "PLAINTEXT",
            **dict.fromkeys(("TUTTI_KAFKA_CA_FILE", "TUTTI_KAFKA_SASL_USERNAME", "TUTTI_KAFKA_SASL_PASSWORD"), ""),
        },
        "TUTTI_KAFKA_SECURITY_PROTOCOL",
    ),
    "mechanism": ({"TUTTI_KAFKA_SASL_MECHANISM": "SCRAM-SHA-256"}, "does not offer"),
}


@pytest.mark.parametrize("what", WRONG)
def test_who_is_not_let_in_is_told_why(place: Place, what: str) -> None:
    changes, reason = WRONG[what]
    service = place.service("delay", "tutti-delay", what, **changes)
    service.start()
    try:
        assert wait_until(lambda: reason in (service.reason() or ""), 60.0, every_seconds=0.2), service.reason()
        assert service.running()  # a password may be made a moment later
    finally:
        service.stop(5.0)
    told = place.tutti("tutti-cli", "topics", "list", **changes)
    assert told.returncode == Exit.UNREACHABLE, told.stderr
    assert reason in told.stderr
    assert WORD not in told.stderr + service.daemon.log.read_text()


def test_a_machine_joins_with_a_token(place: Place, cluster: LocalCluster, simulator_url: str, tmp_path: Path) -> None:
    """As the workers' user, with what that may and no more; the token brings the authority of the brokers' certificates. With another
    password Kafka's own word is told, and nothing is left.
    """
    words = ("--username", "tutti-worker", "--name", "guarded")
    (tmp_path / "password").write_text(place.guard.users["tutti-worker"])
    (tmp_path / "wrong").write_text("not that one")
    token = place.tutti("admin", "join-token", *words).stdout.strip()
    machine = Machine(tmp_path / "machine", simulator_url)
    refused = machine.join(token, "--name", "desk-7", "--password-file", str(tmp_path / "wrong"))
    assert (refused.returncode, "refuses the user 'tutti-worker'" in refused.stderr) == (Exit.UNREACHABLE, True), refused.stderr
    assert not machine.home.exists()
    try:
        done = machine.join(token, "--name", "desk-7", "--password-file", str(tmp_path / "password"))
        assert "node desk-7 of guarded: ready" in done.stdout, done.stderr
    finally:
        assert machine.leave().returncode == 0


def test_settings_that_contradict_each_other_end_a_service(place: Place) -> None:
    environment = {**os.environ, **place.environment("tutti-delay", TUTTI_KAFKA_SASL_PASSWORD_FILE="/nowhere")}
    ended = subprocess.run(
        [sys.executable, "-m", "services.delay"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 78
    assert "TUTTI_KAFKA_SASL_PASSWORD_FILE" in ended.stderr
    assert WORD not in ended.stderr + ended.stdout


def test_settings_of_the_test_reach_the_broker(place: Place) -> None:
    assert isinstance(place.guard.settings("stranger"), KafkaSettings)
    assert WORD not in repr(place.guard.settings("stranger"))
