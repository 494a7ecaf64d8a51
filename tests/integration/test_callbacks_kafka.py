"""Callbacks on real Kafka: two ingresses and a delay as processes, one killed in mid-delivery; each end is taken or a dead letter.

results ──► ingress, ingress ──► receiver (fails, hangs, cuts off)
   ▲               └──► delays ──► delay ──► callbacks ──► ingress
"""

from __future__ import annotations

import asyncio
import hmac
import json
from base64 import b64decode, b64encode
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from random import Random
from secrets import token_hex

import pytest
from aiohttp import web

from infra.native.paths import StackHome
from infra.native.ports import free_ports
from infra.native.services import ServiceProcess
from infra.native.topics import delete_topics, ensure_topics
from shared.clock import SystemClock
from shared.contracts.callback import Callback
from shared.contracts.chat import Answer
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.headers import CALLBACK, envelope
from shared.contracts.result import Result, Status
from shared.kafka.client.aio import AioLog
from shared.kafka.port import Message, TopicPartition
from shared.services import group_of
from shared.topics import Topics, TopicSettings

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]
SECRET = "whsec_" + b64encode(b"a secret of the tests, 32 bytes.").decode()
JOBS = 120


class Receiver:
    """Takes a delivery when the signature is right; while `bad` it fails, hangs or cuts off two of three."""

    def __init__(self) -> None:
        self.random, self.bad, self.down = Random(7), True, False
        self.taken: defaultdict[str, list[str]] = defaultdict(list)
        """job → webhook-ids."""
        self.statuses: Counter[str] = Counter()
        self.forged = 0
        self.url = ""

    async def on_hook(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if not verified(body, dict(request.headers), SECRET):
            self.forged += 1
            return web.Response(status=401)
        draw = self.random.random() if self.bad else 1.0
        job = str(json.loads(body)["data"]["job"])
        if self.down or draw < 0.25:
            self.statuses["refused"] += 1
            return web.Response(status=self.random.choice((500, 429, 302)), headers={"retry-after": "1", "location": "/elsewhere"})
        if draw < 0.35:
            self.statuses["hung"] += 1
            await SystemClock().sleep(5.0)
        self.taken[job].append(request.headers["webhook-id"])
        if draw < 0.6 and request.transport is not None:
            self.statuses["cut off"] += 1
            request.transport.abort()
        return web.Response(status=204)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        application = web.Application()
        application.router.add_post("/hook", self.on_hook)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://localhost:{runner.addresses[0][1]}/hook"
        try:
            yield self.url
        finally:
            await runner.cleanup()


def verified(body: bytes, headers: dict[str, str], secret: str) -> bool:
    """What the README shows to receivers."""
    named = {name.lower(): value for name, value in headers.items()}
    signed = f"{named['webhook-id']}.{named['webhook-timestamp']}.".encode() + body
    mark = b64encode(hmac.digest(b64decode(secret.removeprefix("whsec_")), signed, sha256)).decode()
    return any(hmac.compare_digest(each, f"v1,{mark}") for each in named["webhook-signature"].split())


class Deployment:
    def __init__(self, servers: str, directory: Path, url: str) -> None:
        self.servers, self.directory = servers, directory
        self.topics = Topics(TopicSettings(prefix=f"hooks{token_hex(3)}-", capabilities=("chat",)))
        self.url = url
        secrets = directory / "secrets.toml"
        secrets.write_text(f'[acme]\ndefault = "{SECRET}"\n')
        callbacks = {
            "SECRETS_FILE": str(secrets), "HOSTS": "localhost", "NETWORKS": "127.0.0.0/8, ::1/128", "HTTP": "true",
            "PORTS": f"[{url.rpartition(':')[2].partition('/')[0]}]", "TIMEOUT_SECONDS": "2", "FIRST_PAUSE_SECONDS": "1",
            "LONGEST_PAUSE_SECONDS": "3", "ATTEMPTS": "30",
        }  # fmt: skip
        self.environment = {
            "TUTTI_KAFKA_SERVERS": servers,
            "TUTTI_TOPICS__PREFIX": self.topics.settings.prefix,
            "TUTTI_TOPICS__CAPABILITIES": '["chat"]',
            **{f"TUTTI_INGRESS__CALLBACKS__{name}": value for name, value in callbacks.items()},
        }
        self.services: list[ServiceProcess] = []

    def start(self, service: str, instance: str, **more: str) -> ServiceProcess:
        made = ServiceProcess(
            service, StackHome(self.directory), free_ports(1)[0], {**self.environment, **more}, instance, dies_with_parent=True
        )
        made.start()
        self.services.append(made)
        return made

    async def ended(self, jobs: list[str], url: str | None = None) -> None:
        log = AioLog(servers=self.servers, clock=SystemClock())
        producer = await log.producer(client_id="planner")
        messages = []
        for job in jobs:
            result = Result(
                job=f"acme/{job}", tenant="acme", status=Status.SUCCEEDED, answer=Answer(text="hi"), accepted_at=1.0, finished_at=2.0,
                callback=Callback(url=url or self.url),
            )  # fmt: skip
            messages.append(
                Message(self.topics.results, result.to_bytes(), result.job.encode(), None, (*envelope("result"), (CALLBACK, b"1")))
            )
        for fate in await producer.send_many(messages):
            assert not isinstance(fate, Exception)
        await producer.close()
        await log.close()

    async def letters(self) -> list[DeadLetter]:
        log = AioLog(servers=self.servers, clock=SystemClock())
        consumer = await log.consumer(client_id="letters", reset="earliest")
        consumer.assign([TopicPartition(self.topics.dead_letters, number) for number in range(6)])
        found: list[DeadLetter] = []
        while batches := await consumer.poll(timeout_seconds=2.0):
            found += [DeadLetter.model_validate_json(r.value or b"") for records in batches.values() for r in records]
        await consumer.close()
        await log.close()
        return found

    async def all_committed(self) -> bool:
        log = AioLog(servers=self.servers, clock=SystemClock())
        admin, consumer = await log.admin(), await log.consumer(client_id="ends")
        places = [TopicPartition(topic, n) for topic in (self.topics.results, self.topics.callbacks) for n in range(6)]
        try:
            committed = await admin.group_offsets(group_of("ingress-callbacks", self.topics.settings.prefix))
            ends = await consumer.end_offsets(places)
            return all(committed.get(place, 0) >= end for place, end in ends.items())
        finally:
            await consumer.close()
            await admin.close()
            await log.close()


async def eventually(what: str, condition: Callable[[], bool | Awaitable[bool]], seconds: float = 90.0) -> None:
    clock = SystemClock()
    last = clock.monotonic() + seconds
    while clock.monotonic() < last:
        found = condition()
        if found if isinstance(found, bool) else await found:
            return
        await clock.sleep(0.3)
    raise AssertionError(f"not within {seconds:g} s: {what}")


@pytest.fixture
async def stage(kafka: str, tmp_path: Path) -> AsyncIterator[tuple[Deployment, Receiver]]:
    receiver = Receiver()
    async with receiver.serving() as url:
        deployment = Deployment(kafka, tmp_path, url)
        await asyncio.to_thread(ensure_topics, kafka, deployment.topics)
        try:
            yield deployment, receiver
        finally:
            for service in deployment.services:
                await asyncio.to_thread(service.daemon.kill)
            await asyncio.to_thread(delete_topics, kafka, deployment.topics)


@pytest.mark.faults
async def test_whatever_dies_each_end_is_told(stage: tuple[Deployment, Receiver]) -> None:
    deployment, receiver = stage
    ingresses = [deployment.start("ingress", str(number)) for number in range(2)]
    delay = deployment.start("delay", "1")
    for service in (*ingresses, delay):
        await asyncio.to_thread(service.await_ready)
    jobs = [f"j{number}" for number in range(JOBS)]
    await deployment.ended(jobs[: JOBS // 2])
    await eventually("deliveries under way", lambda: len(receiver.taken) > 5)
    ingresses[0].daemon.kill()
    await deployment.ended(jobs[JOBS // 2 :])
    delay.daemon.kill()
    await SystemClock().sleep(2.0)
    ingresses[0].start()
    delay.start()
    await eventually("some more are taken", lambda: len(receiver.taken) > JOBS // 3, 150)
    receiver.bad = False
    await eventually("all are taken", lambda: set(receiver.taken) == set(jobs), 150)
    assert receiver.forged == 0
    assert min(receiver.statuses[what] for what in ("refused", "hung", "cut off")) > 0
    assert all(len(set(ids)) == 1 for ids in receiver.taken.values()), "repeats are known by their id"
    assert len({ids[0] for ids in receiver.taken.values()}) == JOBS
    await eventually("all positions pass", deployment.all_committed)
    assert await deployment.letters() == []


async def test_what_cannot_be_told_is_a_dead_letter(stage: tuple[Deployment, Receiver]) -> None:
    deployment, receiver = stage
    receiver.bad, receiver.down = False, True
    ingress = deployment.start("ingress", "1", TUTTI_INGRESS__CALLBACKS__ATTEMPTS="2")
    delay = deployment.start("delay", "1")
    for service in (ingress, delay):
        await asyncio.to_thread(service.await_ready)
    await deployment.ended(["down"])
    await deployment.ended(["inside"], "http://169.254.169.254/hook")
    await deployment.ended(["elsewhere"], deployment.url.replace("localhost", "127.0.0.1"))
    await eventually("all positions pass", deployment.all_committed)

    async def three() -> bool:
        return len(await deployment.letters()) == 3

    await eventually("dead letters", three)
    codes = sorted(letter.code for letter in await deployment.letters())
    assert codes == ["callback_failed", "callback_not_allowed", "callback_not_allowed"]
    assert receiver.taken == {}
