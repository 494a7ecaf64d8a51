"""Callbacks over the whole ingress on the in-memory log: what the door takes, and what becomes of an end, whatever its receiver does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from services.ingress.callbacks.port import Heard
from services.ingress.callbacks.rendering import delivery_id
from services.ingress.settings import CallbackSettings
from shared.clock import SystemClock
from shared.contracts.callback import Callback
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.delayed import Delayed
from shared.contracts.delivery import Delivery
from shared.contracts.headers import CALLBACK, REPLAY_OF, envelope, waiting
from shared.contracts.result import Result, Status
from shared.errors import ConfigurationError
from shared.kafka.port import TopicPartition
from shared.scheduling.host_lanes import LaneBounds
from shared.services import group_of
from shared.topics import partition_of
from tests.support.ingress_world import World, opening, running, until, world
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


class Telling(World):
    """An ingress that tells `receivers`."""

    def __init__(self, secrets: str, **settings: Any) -> None:
        super().__init__()
        self.callbacks = CallbackSettings(secrets_file=secrets, hosts="*", **settings)

    @asynccontextmanager
    async def telling(self, instance: str = "test-1", grace_seconds: float = 3.0) -> AsyncIterator[Receivers]:
        self.ingress = opening(self, instance, grace_seconds=grace_seconds, callbacks=self.callbacks)
        self.receivers = self.ingress.deliveries.post = Receivers()
        async with running(self.ingress):
            yield self.receivers

    def ended(self, *jobs: str, host: str = "a.example", tenant: str = "acme", **fields: Any) -> None:
        """Their results, as planners write them."""
        callback = Callback(url=f"https://{host}/hook", **fields.pop("callback", {}))
        given = {"tenant": tenant, "status": Status.SUCCEEDED, "callback": callback, "accepted_at": 1.0, "finished_at": 2.0, **fields}
        self.put(self.topics.results, {job: Result(job=job, **given).to_bytes() for job in jobs}, (CALLBACK, b"1"))

    def put(self, topic: str, values: Mapping[str, bytes], *headers: tuple[str, bytes]) -> None:
        for job, value in values.items():
            self.write(topic, partition_of(job.encode(), 6), value, (*envelope("x"), *headers), job.encode())

    def delayed(self) -> list[Delayed]:
        tiers = ("1s", "5s", "30s", "2m", "10m", "1h", "6h", "1d")
        return [Delayed.model_validate_json(value) for tier in tiers for value in self.values(self.topics.delay(tier))]

    def letters(self) -> list[DeadLetter]:
        return [DeadLetter.model_validate_json(value) for value in self.values(self.topics.dead_letters)]

    def passed(self) -> int:
        """Results that are committed past."""
        return sum(self.committed(self.topics.results, n, group_of("ingress-callbacks", "")) or 0 for n in range(6))


@asynccontextmanager
async def stage(secrets: str, **settings: Any) -> AsyncIterator[Telling]:
    on = Telling(secrets, **settings)
    async with on.telling():
        yield on


async def test_an_end_is_told_and_committed_past(secrets: str) -> None:
    async with stage(secrets) as on:
        on.put(on.topics.results, {"plain": Result(job="plain", status=Status.FAILED, accepted_at=1, finished_at=2).to_bytes()})
        on.ended("j1", "j2")
        await until(lambda: len(on.receivers.got) == 2, "told")
        assert sorted(on.receivers.jobs("a.example")) == ["j1", "j2"]
        _, headers, body = on.receivers.got[0]
        assert headers["webhook-signature"].startswith("v1,")
        assert body["type"] == "job.succeeded"

        await until(lambda: on.passed() == 3, "committed past")
        assert on.delayed() == on.letters() == []


async def test_only_ends_that_were_asked_for(secrets: str) -> None:
    async with stage(secrets) as on:
        on.ended("quiet", callback={"events": ("failed",)})
        on.ended("loud", status=Status.FAILED, callback={"events": ("failed",)})
        await until(lambda: on.receivers.got != [], "told")
        await SystemClock().sleep(0.1)
        assert on.receivers.jobs("a.example") == ["loud"]


async def test_what_fails_comes_back_by_delays(secrets: str) -> None:
    """Later each time; never before a receiver wants it; and with the same id."""
    async with stage(secrets) as on:
        on.receivers.answers = {"down.example": [Heard(False, "status 500")], "busy.example": [Heard(False, "status 429", 400.0)]}
        on.ended("d", host="down.example")
        on.ended("b", host="busy.example")
        await until(lambda: len(on.delayed()) == 2, "delayed")
        found = {(again := Delivery.model_validate_json(each.value)).result.job: (each, again) for each in on.delayed()}
        assert {each.topic for each, _ in found.values()} == {on.topics.callbacks}
        assert 2.5 <= (found["d"][0].seconds or 0) <= 5
        assert found["b"][0].seconds == 400
        assert found["d"][1].attempts == 1
        on.put(on.topics.callbacks, {"d": found["d"][0].value}, waiting(5.0))
        await until(lambda: len(on.receivers.got) == 3, "told again")
        assert on.receivers.got[2][1]["webhook-id"] == delivery_id(found["d"][1].result)
        await until(lambda: len(on.delayed()) == 3, "delayed again")
        last = max((Delivery.model_validate_json(each.value) for each in on.delayed()), key=lambda each: each.attempts)
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
        on.put(on.topics.callbacks, {"j": worn.to_bytes()}, waiting(3.0))
        await until(lambda: on.letters() != [], "given up")
        [letter] = on.letters()
        assert (letter.topic, letter.service, letter.code) == (on.topics.callbacks, "ingress", "callback_failed")
        assert "a.example" not in letter.reason
        on.put(on.topics.callbacks, {"j": letter.value or b""}, (REPLAY_OF, b"callbacks/0/0/0"))
        await until(lambda: len(on.receivers.got) == 2, "told again")
        if why != "gone":
            await until(lambda: on.delayed() != [], "delayed")
            [again] = [Delivery.model_validate_json(each.value) for each in on.delayed()]
            assert (again.attempts, again.age_seconds < 1) == (1, True), "replayed, it begins anew"


async def test_what_is_not_allowed_is_a_dead_letter_and_stops_nobody(secrets: str) -> None:
    """However many there are: whoever may write to `jobs.*` can name any address."""
    async with stage(secrets) as on:
        for number in range(300):
            on.ended(f"bad{number}", host="127.0.0.1")
        on.ended("unsigned", tenant="nobody")
        on.ended("good")
        await until(lambda: on.receivers.jobs("a.example") == ["good"], "told", 20)
        await until(lambda: len(on.letters()) == 301, "kept")
        assert {letter.code for letter in on.letters()} == {"callback_not_allowed"}
        assert on.ingress.deliveries.intake.stopped == ()


async def test_odd_records_stop_nobody(secrets: str) -> None:
    async with stage(secrets) as on:
        bare = Result(job="x", status=Status.FAILED, accepted_at=1, finished_at=2)
        for topic, values in ((on.topics.results, (b"{", bare.to_bytes())), (on.topics.callbacks, (b"\xff", b"{}", b'{"result":{}}'))):
            for number, value in enumerate(values):
                on.put(topic, {f"odd{number}": value}, (CALLBACK, b"1"))
        on.ended("good")
        await until(lambda: on.receivers.jobs("a.example") == ["good"], "told")
        await until(lambda: len(on.letters()) == 5, "kept")
        assert {letter.code for letter in on.letters()} == {"invalid_record"}


async def test_a_slow_receiver_holds_up_no_other(secrets: str) -> None:
    """What finds no room, or waits too long, goes to `delays`, and that is no try."""
    lanes = LaneBounds(host_sends=2, host_held=25)
    async with stage(secrets, lanes=lanes, patience_seconds=0.3) as on:
        on.receivers.slow["slow.example"] = asyncio.Event()
        on.ended(*(f"s{number}" for number in range(20)), host="slow.example")
        on.ended(*(f"q{number}" for number in range(20)), host="quick.example")
        await until(lambda: len(on.receivers.jobs("quick.example")) == 20, "told")
        assert len(on.receivers.jobs("slow.example")) == 2
        await until(lambda: len(on.delayed()) == 18, "delayed")
        assert {Delivery.model_validate_json(each.value).attempts for each in on.delayed()} == {0}
        on.receivers.slow["slow.example"].set()


async def test_who_waits_for_his_turn_comes_back_less_often_the_longer_he_waits(secrets: str) -> None:
    """Or those who wait for a receiver that takes too little would keep the cluster busy with nothing else."""
    async with stage(secrets, lanes=LaneBounds(host_sends=1, host_held=1)) as on:
        on.receivers.slow["slow.example"] = asyncio.Event()
        on.ended("first", host="slow.example")
        await until(lambda: len(on.receivers.got) == 1, "told")
        callback = Callback(url="https://slow.example/")
        ended = {"tenant": "acme", "status": Status.FAILED, "accepted_at": 1.0, "finished_at": 2.0, "callback": callback}
        ages = (0.0, 100.0, 10_000.0, 200_000.0)
        on.put(on.topics.callbacks, {f"{age}": Delivery(result=Result(job=f"{age}", **ended), age_seconds=age).to_bytes() for age in ages})
        await until(lambda: len(on.delayed()) == len(ages), "delayed")
        pauses = {Delivery.model_validate_json(each.value).result.job: each.seconds or 0.0 for each in on.delayed()}
        for age, least, most in zip(ages, (2.5, 12.5, 1_250, 21_600), (5, 25.1, 2_501, 21_600), strict=True):
            assert least <= pauses[f"{age}"] <= most
        on.receivers.slow["slow.example"].set()


async def test_an_instance_that_leaves_lets_the_next_one_tell_what_it_did_not(secrets: str) -> None:
    """And what was on its way may be told twice, never not at all."""
    on = Telling(secrets)
    told: list[str] = []
    for number in range(2):
        async with on.telling(f"i{number}", 2.5) as receivers:
            if number == 0:
                receivers.slow["a.example"] = asyncio.Event()
                on.ended(*(f"j{n}" for n in range(10)))
            await until(lambda got=receivers.got: len(got) >= 4, "told")  # type: ignore[misc]
            if number == 1:
                await until(lambda got=receivers.got: len({each[2]["data"]["job"] for each in got}) == 10, "told")  # type: ignore[misc]
        told += receivers.jobs("a.example")
    assert set(told) == {f"j{n}" for n in range(10)}


async def test_the_door_says_what_it_does_not_take(secrets: str) -> None:
    callbacks = CallbackSettings(secrets_file=secrets, hosts="hooks.example.org")
    async with world(settings={"callbacks": callbacks}) as at:
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
    async with world() as at:
        response = await at.client.post("/v1/jobs", json={"prompt": "x", "callback": {"url": "https://hooks.example.org/"}})
        assert (response.status_code, response.json()["error"]["code"]) == (400, "callback_not_allowed")
        assert "switched off" in response.json()["error"]["message"]


def test_certificates_that_are_not_there_are_told_at_once() -> None:
    """Also where callbacks are switched off: what is set and cannot be used is no setting."""
    with pytest.raises(ConfigurationError, match=r"/nowhere\.pem"):
        opening(World(), callbacks=CallbackSettings(ca_file="/nowhere.pem"))


async def test_a_cluster_of_before_tells_what_it_can(secrets: str) -> None:
    """The topic for what is tried again comes later (`tutti topics create`): until then nothing that failed is passed."""
    on = Telling(secrets)
    on.log.delete([on.topics.callbacks])
    async with on.telling() as receivers:
        on.ended("j1")
        await until(lambda: receivers.jobs("a.example") == ["j1"], "told")


async def test_records_of_every_odd_kind_stop_nobody(secrets: str) -> None:
    """Of `callbacks` all are dead letters; of `results` nobody looks at those that no planner has marked."""
    async with stage(secrets) as on:
        for number, write in enumerate(KINDS.values()):
            for topic in (on.topics.callbacks, on.topics.results):
                write(on.log, TopicPartition(topic, number % 6))
        on.ended(*(f"good{number}" for number in range(12)))
        await until(lambda: len(set(on.receivers.jobs("a.example"))) == 12, "told", 20)
        assert on.ingress.deliveries.intake.stopped == ()
        assert on.ingress.deliveries.tries.undone == ()
        await until(lambda: {each.partition for each in on.letters() if each.topic == on.topics.callbacks} == {*range(6)}, "given up")
        assert {letter.topic for letter in on.letters()} <= {on.topics.callbacks, on.topics.results}
