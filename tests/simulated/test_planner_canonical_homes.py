"""A client's id has one home: wherever its records lie they meet there, and are one job (simulated, virtual time)."""

from __future__ import annotations

import asyncio
import json
from itertools import product
from typing import Any

from infra.lab.virtual_loop import within
from services.planner.settings import PlannerSettings
from shared.contracts import headers, ids
from shared.contracts.base import CLASSES, PriorityClass
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.event import JobAccepted
from shared.contracts.reply import Final
from shared.contracts.result import Result, Status
from tests.support.planner_world import World

HOMES = 3
BATCH, STANDARD = PriorityClass.BATCH, PriorityClass.STANDARD
WAITS = (("correlation-id", b"c"), ("reply-topic", b"replies.test"), ("reply-partition", b"0"))
CANCEL = (("type", b"cancel"),)
KEYS = {"no key": None, "its id": b"mine", "another": b"customer-7"}
simulated = within(lambda: World(7, homes=HOMES))


def body(id_: str | None = "mine", **fields: Any) -> bytes:
    return json.dumps({"prompt": "q", **fields} | ({} if id_ is None else {"id": id_})).encode()


def home(id_: str) -> int:
    return ids.home_of(id_, HOMES)


def accepted(world: World) -> list[tuple[int, str]]:
    """(home, job) of every job that was taken in."""
    return [(number, event.job) for number in range(HOMES) for event in world.history(number) if isinstance(event, JobAccepted)]


def letters(world: World) -> list[DeadLetter]:
    return [DeadLetter.model_validate_json(value) for value in world.values(world.topics.dead_letters)]


@simulated
async def test_one_id_is_one_job_wherever_its_records_lie(world: World) -> None:
    """Every class, every partition, every key, at once and after its end: one job at its home, one run, one result."""
    world.start("p")
    for _ in range(2):
        for priority_class, number, key in product(CLASSES, range(HOMES), KEYS.values()):
            world.produce(body(), home=number, priority_class=priority_class, key=key)
        await asyncio.sleep(20)
    assert accepted(world) == [(home("mine"), "mine")]
    assert world.node.runs == 1
    assert letters(world) == []
    await world.check_laws(1)


@simulated
async def test_two_tenants_with_one_id_have_two_jobs(world: World) -> None:
    """At the same home, each with its own result."""
    world.start("p")
    for number, tenant in enumerate(("default", "a", "b")):
        world.produce(body(tenant=tenant), home=number)
    await world.until(lambda: world.finished() == 3)
    assert set(world.results()) == {"mine", "a/mine", "b/mine"}
    assert {where for where, _ in accepted(world)} == {home("mine")}
    await world.check_laws(3)


@simulated
async def test_what_is_rightly_keyed_is_not_sent_on(world: World) -> None:
    """Nor is a job without an id of its own."""
    world.start("p")
    world.produce(body(), home=home("mine"), key=b"mine")
    world.produce(body(None), home=0)
    world.produce(body(None), home=1)
    await world.until(lambda: world.finished() == 3)
    assert sum(len(world.values(world.topics.jobs(c))) for c in CLASSES) == 3


@simulated
async def test_another_body_under_a_live_id_is_told_to_its_sender(world: World) -> None:
    """From anywhere: a dead letter that names the sender's record, and a `conflict` final."""
    world.node.seconds = (100.0, 100.0)
    await _another_body(world)


@simulated
async def test_another_body_under_an_id_that_has_ended_is_told_to_its_sender(world: World) -> None:
    """In the same way."""
    await _another_body(world)


async def _another_body(world: World) -> None:
    world.start("p")
    world.produce(body(), home=0)
    await asyncio.sleep(10)
    for number in range(HOMES):
        world.produce(body(prompt="other"), home=number, priority_class=BATCH, key=b"k", headers_=WAITS)
    await asyncio.sleep(20)
    found = letters(world)
    assert sorted((x.topic, x.partition, x.offset) for x in found if x.code == "conflict") == [
        (world.topics.jobs(BATCH), n, 0) for n in range(HOMES)
    ]
    assert all(headers.FORWARDED_FROM not in dict(letter.headers) for letter in found)
    finals = [Final.model_validate_json(value).result.failure for value in world.values("replies.test")]
    assert [f is not None and f.kind.value for f in finals] == ["conflict"] * HOMES
    assert len(accepted(world)) == 1


@simulated
async def test_a_cancel_finds_its_job_from_anywhere(world: World) -> None:
    """By the id as `results` shows it, on every topic and partition; of a tenant's job too, and of one whose id was derived."""
    world.node.seconds = (1_000.0, 1_000.0)
    world.options = PlannerSettings(claim_timeout_seconds=5_000, lease_seconds=5_000)
    world.start("p")
    names = [f"x{number}" for number in range(9)]
    for number, name in enumerate(names):
        world.produce(body(name, tenant="a" if number % 2 else "default"), home=number % HOMES)
    world.produce(body(None), home=1)
    await world.until(lambda: len(accepted(world)) == 10)
    jobs = [job for _, job in accepted(world)]
    for number, job in enumerate(jobs):
        world.produce(b"", home=number % HOMES, priority_class=CLASSES[number % 3], key=job.encode(), headers_=CANCEL)
    await world.until(lambda: world.finished() == 10, 30.0)
    assert {Result.model_validate_json(values[0]).status for values in world.results().values()} == {Status.CANCELLED}
    assert letters(world) == []


@simulated
async def test_a_cancel_that_reaches_nobody_is_told_why(world: World) -> None:
    """By a key that is not the id, for a job without id or with another; a successor tells what its predecessor could not."""
    world.node.seconds = (60.0, 60.0)
    world.options = PlannerSettings(claim_timeout_seconds=5_000, lease_seconds=5_000)
    world.start("p")
    world.produce(body("order-1"), home=0, key=b"customer-1")
    world.produce(body(None), home=0, key=b"customer-2")
    await asyncio.sleep(1)
    for key in (b"customer-1", b"customer-2"):
        world.produce(b"", home=0, key=key, headers_=(*CANCEL, *WAITS))
    await asyncio.sleep(2)
    world.kill("p")
    world.start("q")
    await asyncio.sleep(20)
    assert {(x.topic, x.partition, x.offset, x.code) for x in letters(world)} == {
        (world.topics.jobs(STANDARD), 0, n, "unknown_job") for n in (2, 3)
    }
    assert world.values("replies.test")
    await world.until(lambda: world.finished() == 2)
    assert {Result.model_validate_json(values[0]).status for values in world.results().values()} == {Status.SUCCEEDED}


@simulated
async def test_a_cancel_ahead_of_its_job_waits_for_it(world: World) -> None:
    """Nobody is told of one whose job comes a little later, from another partition."""
    world.start("p")
    world.produce(b"", home=home("mine"), key=b"mine", headers_=CANCEL)
    await asyncio.sleep(2)
    world.produce(body(), home=(home("mine") + 1) % HOMES)
    await asyncio.sleep(20)
    assert b'"cancelled"' in world.results()["mine"][0]
    assert letters(world) == []


@simulated
async def test_a_record_is_sent_on_before_it_is_committed_past(world: World) -> None:
    """Killed while the hop is under way, again and again: the job is there, once."""
    world.log.faults.ack_seconds = world.log.faults.send_seconds = (0.0, 2.0)
    for number in range(12):
        world.produce(body(f"x{number}"), home=number % HOMES)
    for life in range(6):
        world.start("p")
        await asyncio.sleep(0.3 + 0.7 * life)
        world.kill("p")
    world.log.faults.heal()
    world.start("p")
    await world.until(lambda: world.finished() == 12)
    await asyncio.sleep(20)
    await world.check_laws(12)


@simulated
async def test_no_record_goes_round_in_circles(world: World) -> None:
    """One that says that it was sent on and lies wrong: somebody counts other homes, or lies. It is refused, not sent on."""
    mark = headers.Origin(world.topics.jobs(STANDARD), 9, 9, 9).header(headers.FORWARDED_FROM)
    world.start("p")
    wrong = [number for number in range(HOMES) if number != home("mine")]
    for number in wrong:
        world.produce(body(), home=number, headers_=(mark,))
        world.produce(b"", home=number, key=b"mine", headers_=(mark, *CANCEL))
    await asyncio.sleep(20)
    assert [(letter.partition, letter.offset, letter.code) for letter in letters(world)] == [(9, 9, "invalid_record")] * 2 * len(wrong)
    assert accepted(world) == []


@simulated
async def test_what_cannot_be_sent_on_is_refused(world: World) -> None:
    """A record so large that the mark does not fit: its sender is told."""
    large = tuple((f"h{number}", b"x" * 60_000) for number in range(4))
    world.start("p")
    offset = world.produce(body(prompt="y" * 22_000), home=(home("mine") + 1) % HOMES, headers_=large)
    await asyncio.sleep(20)
    assert [(letter.offset, letter.code) for letter in letters(world)] == [(offset, "too_large")]


@simulated
async def test_forging_a_maker_makes_no_second_job(world: World) -> None:
    """Whoever may write to `jobs.*` may say that an id is ours: while it is known it is one job all the same."""
    world.node.seconds = (5.0, 5.0)
    world.start("p")
    for maker, name in ((ids.Maker.INGRESS, "j_1"), (ids.Maker.KEY, "k_1"), (ids.Maker.PLANNER, "s_1")):
        mark = ((headers.MADE_BY, maker.value.encode()),)
        for number in range(HOMES):
            world.produce(body(name), home=number, headers_=mark)
            world.produce(body(name, prompt="other"), home=number, headers_=mark)
    await asyncio.sleep(30)
    assert sorted(job for _, job in accepted(world)) == ["j_1", "k_1", "s_1"]
    assert {letter.code for letter in letters(world)} == {"conflict"}


@simulated
async def test_cancels_need_no_room(world: World) -> None:
    """While a class is full, and while its queue is long: what they end is what keeps the room."""
    world.options = PlannerSettings(live_jobs=16, claim_timeout_seconds=5_000, lease_seconds=5_000)
    world.node.seconds = (1_000.0, 1_000.0)
    world.start("p")
    for number in range(300):
        world.produce(body(f"b{number}"), home=home(f"b{number}"), priority_class=BATCH)
    await asyncio.sleep(10)
    running = {job for _, job in accepted(world)}
    assert 0 < len(running) < 300
    for job in running:
        world.produce(b"", home=home(job), priority_class=BATCH, key=job.encode(), headers_=CANCEL)
    await asyncio.sleep(2)
    assert running <= set(world.results())
    assert len(accepted(world)) > len(running), "others have their room"
