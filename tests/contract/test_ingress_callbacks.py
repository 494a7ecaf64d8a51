"""Callbacks over the whole ingress on the in-memory log: what the door takes, and what becomes of an end, whatever its receiver does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from services.ingress.app import Ingress
from services.ingress.callbacks.port import Heard
from services.ingress.callbacks.rendering import delivery_id
from services.ingress.settings import CallbackSettings, IngressSettings
from shared.clock import SystemClock
from shared.contracts.callback import Callback
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.delayed import Delayed
from shared.contracts.delivery import Delivery
from shared.contracts.headers import CALLBACK, REPLAY_OF, envelope, waiting
from shared.contracts.result import Result, Status
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.port import Message, TopicPartition
from shared.processing.provision import ensure_topics
from shared.scheduling.host_lanes import LaneBounds
from shared.services import group_of
from shared.topics import Topics, partition_of
from tests.support.ingress_world import QUICK, environment, running, until, world
from tests.support.odd_records import KINDS

OK = Heard(True)


@dataclass
class Receivers:
    """What each host answers, one after the other, the last for ever; `slow`: hosts that answer when released."""

    answers: dict[str, list[Heard]] = field(default_factory=dict)
    slow: dict[str, asyncio.Event] = field(default_factory=dict)
    got: list[tuple[str, Mapping[str, str], Any]] = field(default_factory=list)

    async def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> Heard:
        host = url.partition("://")[2].partition("/")[0]
        self.got.append((host, headers, json.loads(body)))
        if host in self.slow:
            await self.slow[host].wait()
        answers = self.answers.get(host, [OK])
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async def close(self) -> None:
        return None

    def jobs(self, host: str) -> list[str]:
        return [body["data"]["job"] for to, _, body in self.got if to == host]


@pytest.fixture
def secrets(tmp_path: Path) -> str:
    file = tmp_path / "secrets.toml"
    key = "whsec_" + "a2tra2tra2tra2tra2tra2tra2tra2tra2s="
    file.write_text(f'[acme]\ndefault = "{key}"\n[default]\ndefault = "{key}"\n')
    return str(file)


@dataclass
class Stage:
    log: MemoryLog
    topics: Topics
    receivers: Receivers
    ingress: Ingress

    async def ended(self, *jobs: str, host: str = "a.example", tenant: str = "acme", **fields: Any) -> None:
        """Their results, as planners write them."""
        callback = Callback(url=f"https://{host}/hook", **fields.pop("callback", {}))
        given = {"tenant": tenant, "status": Status.SUCCEEDED, "callback": callback, "accepted_at": 1.0, "finished_at": 2.0, **fields}
        await self.write(self.topics.results, {job: Result(job=job, **given).to_bytes() for job in jobs}, (CALLBACK, b"1"))

    async def write(self, topic: str, values: Mapping[str, bytes], *headers: tuple[str, bytes]) -> None:
        producer = await self.log.producer(client_id="test")
        messages = [
            Message(topic, value, job.encode(), partition_of(job.encode(), 6), (*envelope("x"), *headers)) for job, value in values.items()
        ]
        await producer.send_many(messages)
        await producer.close()

    async def read(self, topic: str, parse: Callable[[bytes], Any]) -> list[Any]:
        consumer = await self.log.consumer(client_id="test", reset="earliest")
        consumer.assign([TopicPartition(topic, number) for number in range(6)])
        found = []
        while batches := await consumer.poll(timeout_seconds=0.1):
            found += [parse(record.value) for records in batches.values() for record in records if record.value is not None]
        await consumer.close()
        return found

    async def delayed(self) -> list[Delayed]:
        found = []
        for tier in ("1s", "5s", "30s", "2m", "10m", "1h", "6h", "1d"):
            found += await self.read(self.topics.delay(tier), Delayed.model_validate_json)
        return found

    async def letters(self) -> list[DeadLetter]:
        return await self.read(self.topics.dead_letters, DeadLetter.model_validate_json)

    async def committed(self) -> dict[TopicPartition, int | None]:
        consumer = await self.log.consumer(client_id="test-committed", group=group_of("ingress-callbacks", ""))
        found = await consumer.committed([TopicPartition(self.topics.results, number) for number in range(6)])
        await consumer.close()
        return found


@asynccontextmanager
async def stage(secrets: str, **settings: Any) -> AsyncIterator[Stage]:
    log, topics = MemoryLog(SystemClock()), Topics()
    await ensure_topics(log, topics)
    callbacks = CallbackSettings(secrets_file=secrets, hosts="*", **settings)
    ingress = Ingress(environment(log, topics, SystemClock(), grace_seconds=3.0), IngressSettings(**QUICK, callbacks=callbacks))
    receivers = ingress.deliveries.post = Receivers()
    async with running(ingress):
        yield Stage(log, topics, receivers, ingress)


async def test_an_end_is_told_and_committed_past(secrets: str) -> None:
    async with stage(secrets) as on:
        await on.write(on.topics.results, {"plain": Result(job="plain", status=Status.FAILED, accepted_at=1, finished_at=2).to_bytes()})
        await on.ended("j1", "j2")
        await until(lambda: len(on.receivers.got) == 2, "told")
        assert sorted(on.receivers.jobs("a.example")) == ["j1", "j2"]
        _, headers, body = on.receivers.got[0]
        assert headers["webhook-signature"].startswith("v1,")
        assert body["type"] == "job.succeeded"

        async def passed() -> bool:
            return sum(offset or 0 for offset in (await on.committed()).values()) == 3

        for _ in range(100):
            if await passed():
                break
            await SystemClock().sleep(0.05)
        assert await passed()
        assert await on.delayed() == await on.letters() == []


async def test_only_ends_that_were_asked_for(secrets: str) -> None:
    async with stage(secrets) as on:
        await on.ended("quiet", callback={"events": ("failed",)})
        await on.ended("loud", status=Status.FAILED, callback={"events": ("failed",)})
        await until(lambda: on.receivers.got != [], "told")
        await SystemClock().sleep(0.1)
        assert on.receivers.jobs("a.example") == ["loud"]


async def test_what_fails_comes_back_by_delays(secrets: str) -> None:
    """Later each time; never before a receiver wants it; and with the same id."""
    async with stage(secrets) as on:
        on.receivers.answers = {"down.example": [Heard(False, "status 500")], "busy.example": [Heard(False, "status 429", 400.0)]}
        await on.ended("d", host="down.example")
        await on.ended("b", host="busy.example")
        await until(lambda: len(on.receivers.got) == 2, "told")
        await SystemClock().sleep(0.2)
        found = {(again := Delivery.model_validate_json(each.value)).result.job: (each, again) for each in await on.delayed()}
        assert {each.topic for each, _ in found.values()} == {on.topics.callbacks}
        assert 2.5 <= (found["d"][0].seconds or 0) <= 5
        assert found["b"][0].seconds == 400
        assert found["d"][1].attempts == 1
        await on.write(on.topics.callbacks, {"d": found["d"][0].value}, waiting(5.0))
        await until(lambda: len(on.receivers.got) == 3, "told again")
        assert on.receivers.got[2][1]["webhook-id"] == delivery_id(found["d"][1].result)
        await SystemClock().sleep(0.2)
        last = max((Delivery.model_validate_json(each.value) for each in await on.delayed()), key=lambda each: each.attempts)
        assert last.attempts == 2
        assert 5 <= last.age_seconds < 6


@pytest.mark.parametrize("why", ["attempts", "age", "gone"])
async def test_what_is_given_up_is_a_dead_letter(secrets: str, why: str) -> None:
    async with stage(secrets, attempts=3, oldest_seconds=1_000.0) as on:
        on.receivers.answers = {"a.example": [Heard(False, "status 410" if why == "gone" else "status 500", gone=why == "gone")]}
        result = Result(
            job="j", tenant="acme", status=Status.FAILED, accepted_at=1, finished_at=2, callback=Callback(url="https://a.example/")
        )
        worn = Delivery(result=result, attempts=2 if why == "attempts" else 0, age_seconds=996.0 if why == "age" else 0.0)
        await on.write(on.topics.callbacks, {"j": worn.to_bytes()}, waiting(3.0))
        for _ in range(100):
            if letters := await on.letters():
                break
        [letter] = letters
        assert (letter.topic, letter.service, letter.code) == (on.topics.callbacks, "ingress", "callback_failed")
        assert "a.example" not in letter.reason
        await on.write(on.topics.callbacks, {"j": letter.value or b""}, (REPLAY_OF, b"callbacks/0/0/0"))
        await until(lambda: len(on.receivers.got) == 2, "told again")
        await SystemClock().sleep(0.2)
        if why != "gone":
            [again] = [Delivery.model_validate_json(each.value) for each in await on.delayed()]
            assert (again.attempts, again.age_seconds < 1) == (1, True), "replayed, it begins anew"


async def test_what_is_not_allowed_is_a_dead_letter_and_stops_nobody(secrets: str) -> None:
    """However many there are: whoever may write to `jobs.*` can name any address."""
    async with stage(secrets) as on:
        for number in range(300):
            await on.ended(f"bad{number}", host="127.0.0.1")
        await on.ended("unsigned", tenant="nobody")
        await on.ended("good")
        await until(lambda: on.receivers.jobs("a.example") == ["good"], "told", 20)
        letters = await on.letters()
        assert {letter.code for letter in letters} == {"callback_not_allowed"}
        assert len(letters) == 301
        assert on.ingress.deliveries.intake.stopped == ()


async def test_odd_records_stop_nobody(secrets: str) -> None:
    async with stage(secrets) as on:
        bare = Result(job="x", status=Status.FAILED, accepted_at=1, finished_at=2)
        for topic, values in ((on.topics.results, (b"{", bare.to_bytes())), (on.topics.callbacks, (b"\xff", b"{}", b'{"result":{}}'))):
            for number, value in enumerate(values):
                await on.write(topic, {f"odd{number}": value}, (CALLBACK, b"1"))
        await on.ended("good")
        await until(lambda: on.receivers.jobs("a.example") == ["good"], "told")
        for _ in range(50):
            if len(letters := await on.letters()) == 5:
                break
        assert {letter.code for letter in letters} == {"invalid_record"}


async def test_a_slow_receiver_holds_up_no_other(secrets: str) -> None:
    """What finds no room, or waits too long, goes to `delays`, and that is no try."""
    lanes = LaneBounds(host_sends=2, host_held=25)
    async with stage(secrets, lanes=lanes, patience_seconds=0.3) as on:
        on.receivers.slow["slow.example"] = asyncio.Event()
        await on.ended(*(f"s{number}" for number in range(20)), host="slow.example")
        await on.ended(*(f"q{number}" for number in range(20)), host="quick.example")
        await until(lambda: len(on.receivers.jobs("quick.example")) == 20, "told")
        assert len(on.receivers.jobs("slow.example")) == 2
        for _ in range(100):
            if len(found := await on.delayed()) == 18:
                break
        assert {Delivery.model_validate_json(each.value).attempts for each in found} == {0}
        on.receivers.slow["slow.example"].set()


async def test_an_instance_that_leaves_lets_the_next_one_tell_what_it_did_not(secrets: str) -> None:
    """And what was on its way may be told twice, never not at all."""
    log, topics = MemoryLog(SystemClock()), Topics()
    await ensure_topics(log, topics)
    callbacks = CallbackSettings(secrets_file=secrets, hosts="*")
    told: list[str] = []
    for number in range(2):
        settings = environment(log, topics, SystemClock(), f"i{number}", grace_seconds=2.5)
        ingress = Ingress(settings, IngressSettings(**QUICK, callbacks=callbacks))
        receivers = ingress.deliveries.post = Receivers()
        async with running(ingress):
            on = Stage(log, topics, receivers, ingress)
            if number == 0:
                receivers.slow["a.example"] = asyncio.Event()
                await on.ended(*(f"j{n}" for n in range(10)))
            await until(lambda got=receivers.got: len(got) >= 4, "told")  # type: ignore[misc]
            if number == 1:
                await until(lambda got=receivers.got: len({each[2]["data"]["job"] for each in got}) == 10, "told")  # type: ignore[misc]
        told += receivers.jobs("a.example")
    assert set(told) == {f"j{n}" for n in range(10)}


async def test_the_door_says_what_it_does_not_take(secrets: str) -> None:
    callbacks = CallbackSettings(secrets_file=secrets, hosts="hooks.example.org")
    async with world(MemoryLog(SystemClock()), settings={"callbacks": callbacks}) as at:
        good = {"url": "https://hooks.example.org/x", "events": ["failed"]}
        taken = await at.client.post("/v1/jobs", json={"prompt": "x", "callback": good})
        assert taken.status_code == 202
        await until(lambda: len(at.planner.jobs) == 1, "accepted")
        [seen] = at.planner.jobs.values()
        assert seen.job.callback == Callback(**good)
        job = taken.json()["id"]
        await until(lambda: seen.ended is not None, "ended")
        shown = await at.client.get(f"/v1/jobs/{job}")
        told = await at.client.get(f"/v1/jobs/{job}/events")
        assert "hooks.example.org" not in shown.text + told.text, "its address may hold a token"
        bad: list[Any] = [
            {"url": "https://127.0.0.1/"},
            {"url": "http://hooks.example.org/"},
            {"url": "https://hooks.example.org/", "secret": "none"},
            {"url": "ftp://hooks.example.org/"},
            {"url": "https://hooks.example.org/", "headers": {}},
            {"url": "https://hooks.example.org/", "events": []},
            {},
            "https://hooks.example.org/",
        ]
        for callback in bad:
            response = await at.client.post("/v1/jobs", json={"prompt": "x", "callback": callback})
            assert response.status_code == 400, response.text
            assert response.json()["error"]["param"].startswith("callback")
        assert len(at.planner.jobs) == 1


async def test_the_door_says_that_callbacks_are_off() -> None:
    async with world(MemoryLog(SystemClock())) as at:
        response = await at.client.post("/v1/jobs", json={"prompt": "x", "callback": {"url": "https://hooks.example.org/"}})
        assert (response.status_code, response.json()["error"]["code"]) == (400, "callback_not_allowed")
        assert "switched off" in response.json()["error"]["message"]


async def test_a_cluster_of_before_tells_what_it_can(secrets: str) -> None:
    """The topic for what is tried again comes later (`tutti topics create`): until then nothing that failed is passed."""
    log, topics = MemoryLog(SystemClock()), Topics()
    await ensure_topics(log, topics)
    admin = await log.admin()
    await admin.delete_topics([topics.callbacks])
    callbacks = CallbackSettings(secrets_file=secrets, hosts="*")
    ingress = Ingress(environment(log, topics, SystemClock(), grace_seconds=3.0), IngressSettings(**QUICK, callbacks=callbacks))
    receivers = ingress.deliveries.post = Receivers()
    async with running(ingress):
        on = Stage(log, topics, receivers, ingress)
        await on.ended("j1")
        await until(lambda: receivers.jobs("a.example") == ["j1"], "told")


async def test_records_of_every_odd_kind_stop_nobody(secrets: str) -> None:
    """Of `callbacks` all are dead letters; of `results` nobody looks at those that no planner has marked."""
    async with stage(secrets) as on:
        for number, write in enumerate(KINDS.values()):
            for topic in (on.topics.callbacks, on.topics.results):
                write(on.log, TopicPartition(topic, number % 6))
        await on.ended(*(f"good{number}" for number in range(12)))
        await until(lambda: len(set(on.receivers.jobs("a.example"))) == 12, "told", 20)
        assert on.ingress.deliveries.intake.stopped == ()
        assert on.ingress.deliveries.tries.undone == ()
        assert {letter.topic for letter in await on.letters()} <= {on.topics.callbacks, on.topics.results}
