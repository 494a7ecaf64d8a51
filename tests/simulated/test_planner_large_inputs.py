"""Inputs above the inline bound by Kafka: kept before history knows the job, fetched by who runs it, renewed by age (simulated)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest

from infra.lab.virtual_loop import within
from services.planner.settings import PlannerSettings
from shared.contracts import headers
from shared.contracts.base import CLASSES, INLINE_BYTES, RECORD_BYTES
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.event import InputMoved, JobAccepted
from shared.contracts.failure import FailureKind
from shared.contracts.job import HeldJob, Input, InputRef
from shared.contracts.reply import Final
from shared.contracts.result import Result, Status
from shared.kafka.memory.memory_partition import MemoryRecord
from shared.kafka.port import TopicPartition
from shared.patterns import BUILT_IN
from shared.processing.blobs import AT_ONCE, CHUNK_BYTES, BlobGone, Blobs
from shared.topics import BLOB_DAYS
from tests.support.planner_world import World

HOMES = 3
DAY = 86_400.0
WAITS = (("correlation-id", b"c"), ("reply-topic", b"replies.test"), ("reply-partition", b"0"))
simulated = within(lambda: World(11, homes=HOMES))


def body(id_: str | None = "large", size: int = 200_000, **fields: Any) -> bytes:
    given = {"prompt": "x" * size, "system": "Be brief.", **fields}
    return json.dumps(given | ({} if id_ is None else {"id": id_})).encode()


def accepted(world: World) -> list[JobAccepted]:
    return [event for number in range(HOMES) for event in world.history(number) if isinstance(event, JobAccepted)]


def letters(world: World) -> list[DeadLetter]:
    return [DeadLetter.model_validate_json(value) for value in world.values(world.topics.dead_letters)]


async def read(world: World, lies: InputRef | None, tenant: str = "default") -> Input:
    assert lies is not None
    blobs = Blobs(world.log, world.clock, world.topics, service="test", instance="t")
    return Input.model_validate_json(await blobs.fetch(tenant, lies.blob))


@simulated
async def test_a_large_job_is_one_job_by_reference(world: World) -> None:
    """Wherever it lies, with an id or without: history, steps and snapshots hold none of it, and what runs it finds all of it."""
    world.start("p")
    for priority_class, number in product(CLASSES, range(HOMES)):
        world.produce(body(), home=number, priority_class=priority_class)
    world.produce(body(None, tenant="t"), home=1)
    await world.until(lambda: world.finished() == 2)
    await asyncio.sleep(20)
    assert {event.job[:2] for event in accepted(world)} == {"la", "j_"}
    assert (world.node.runs, len(accepted(world)), letters(world)) == (2, 2, [])
    for step in world.node.steps_seen:
        assert (step.messages, step.prompt) == ((), None)
        assert step.estimated_tokens > 50_000
        given = await read(world, step.input_ref, step.tenant)
        assert [(turn.role, len(turn.content)) for turn in given.messages] == [("system", 9), ("user", 200_000)]
    kept = [world.topics.job_events, world.topics.outcomes, world.topics.results, *world.topics.all_steps()]
    assert max(len(value) for topic in kept for value in world.values(topic)) < INLINE_BYTES
    await world.check_laws(2)


@simulated
async def test_what_its_pattern_asks_for_stays_with_it(world: World) -> None:
    """Of each pattern that takes a large job: with an `input` it is done; one that it cannot read fails as that of a small job."""
    world.start("p")
    world.produce(body("picks", pattern="auto", input={"among": ["vote"], "seconds": 30}), home=0)
    takers = [pattern.name for pattern in BUILT_IN.current.values() if pattern.hands_on]
    for name in takers:
        for size in (10, 200_000):
            world.produce(body(f"{name}-{size}", size, pattern=name, input={"nobody_reads": 1}), home=1)
    await world.until(lambda: world.finished() == 1 + 2 * len(takers))
    await asyncio.sleep(20)
    ends = {job: Result.model_validate_json(values[0]) for job, values in world.results().items()}
    assert ends.pop("picks").status is Status.SUCCEEDED
    assert {end.failure and end.failure.kind for end in ends.values()} == {FailureKind.INVALID_JOB}
    assert [event.request.input for event in accepted(world) if event.job == "picks"] == [{"among": ["vote"], "seconds": 30}]
    await world.check_laws(len(accepted(world)))


@simulated
async def test_another_large_body_under_one_id_is_a_conflict(world: World) -> None:
    """As of small ones; the same again is the same job."""
    world.start("p")
    world.produce(body(), home=0)
    world.produce(body(size=200_001), home=1, headers_=WAITS)
    await asyncio.sleep(30)
    assert (len(accepted(world)), [letter.code for letter in letters(world)]) == (1, ["conflict"])


@simulated
async def test_killed_at_any_moment_it_is_there_once(world: World) -> None:
    """While chunks are under way, and while the reference is: nothing is committed past before it is there."""
    faults = world.log.faults
    faults.ack_seconds = faults.send_seconds = (0.0, 2.0)
    for number in range(6):
        world.produce(body(f"x{number}"), home=number % HOMES)
        world.produce(body(None), home=number % HOMES)
    for life in range(6):
        world.start("p")
        await asyncio.sleep(0.3 + 1.5 * life)
        world.kill("p")
    faults.heal()
    world.start("p")
    await world.until(lambda: world.finished() == 12)
    await asyncio.sleep(20)
    await world.check_laws(12)
    for event in accepted(world):
        assert isinstance(event.request, HeldJob)
        await read(world, event.request.input_ref)


@simulated
async def test_where_nothing_can_be_kept_the_others_go_on(world: World) -> None:
    """Large jobs wait for their topic, in all classes; small ones pass them, and no position passes what waits."""
    world.log.faults.away[world.topics.blobs] = 5.0
    world.start("p")
    for number in range(40):
        world.produce(body(f"x{number}"), home=number % HOMES, priority_class=CLASSES[number % 3])
        world.produce(body(f"s{number}", size=10), home=number % HOMES, priority_class=CLASSES[number % 3])
    await world.until(lambda: world.finished() == 40, seconds=60)
    assert all(job.startswith("s") for job in world.results())
    world.kill("p")
    world.log.faults.heal()
    world.start("p")
    await world.until(lambda: world.finished() == 80)
    await world.check_laws(80)


@simulated
async def test_what_cannot_go_by_reference_is_refused(world: World) -> None:
    """A chain reads its input itself; what is left without the input is too much. The caller hears it, the record is kept."""
    world.start("p")
    world.produce(body(pattern="chain", chain=[{"name": "a", "template": "{input}"}]), headers_=WAITS)
    metadata = {f"k{number}": "y" * 4_000 for number in range(30)}
    world.produce(body(metadata=metadata), headers_=WAITS)
    await asyncio.sleep(20)
    assert [letter.code for letter in letters(world)] == ["too_large", "too_large"]
    finals = [Final.model_validate_json(value).result for value in world.values("replies.test")]
    assert [final.failure.kind for final in finals if final.failure] == [FailureKind.TOO_LARGE] * 2
    assert accepted(world) == []


@simulated
async def test_headers_that_are_too_large_to_go_on_are_told(world: World) -> None:
    """Whatever tutti reads of them: each record becomes a job or a dead letter, and none is passed over."""
    world.start("p")
    every = [(name, b"9" * RECORD_BYTES) for name in vars(headers).values() if isinstance(name, str)]
    names = sorted({name for name, _ in headers.read_ones(every)})
    for number, name in enumerate(names):
        world.produce(body(f"x{number}"), home=number % HOMES, key=b"x%d" % number, headers_=((name, b"9" * RECORD_BYTES),))
    await asyncio.sleep(60)
    told = {letter.key for letter in letters(world)} | {job.encode() for job in world.results()}
    assert told == {b"x%d" % number for number in range(len(names))}


@simulated
async def test_a_large_job_may_be_delayed(world: World) -> None:
    """By reference it fits the delay's record, too."""
    world.start("p")
    world.produce(body(not_before=world.clock.wall() + 3_600))
    await asyncio.sleep(20)
    delayed = [value for topic in world.topics.all() if topic.name.startswith("delays.") for value in world.values(topic.name)]
    assert len(delayed) == 1
    assert len(delayed[0]) < INLINE_BYTES


@simulated
async def test_the_input_of_a_job_that_lives_long_is_written_again(world: World) -> None:
    """Before retention comes to it, as often as it must be; attempts from then on name the new place, also after a take-over."""
    world.options = PlannerSettings(resend_seconds=1_000)
    world.node.silent = 1.0
    world.start("p")
    world.produce(body(deadline_seconds=30 * DAY))
    for week in range(4):
        await asyncio.sleep(3_700)
        world.clock.ahead += 7.1 * DAY
        _expire(world)
        if week == 2:
            world.kill("p")
            world.start("p")
    await asyncio.sleep(3_700)
    moved = [event for number in range(HOMES) for event in world.history(number) if isinstance(event, InputMoved)]
    assert len(moved) >= 3
    assert world.node.steps_seen[-1].input_ref == moved[-1].input_ref
    assert len({step.id for step in world.node.steps_seen}) == 1
    await read(world, world.node.steps_seen[-1].input_ref)
    world.node.silent = 0.0
    await world.until(lambda: world.finished() == 1, seconds=2 * DAY)
    assert b'"succeeded"' in world.results()["large"][0]
    await world.check_laws(1)


@simulated
async def test_few_inputs_are_in_memory_however_many_grow_old(world: World) -> None:
    """All of a home are seen to be old in one look; they are written again a few at a time."""
    world.options = PlannerSettings(resend_seconds=1_000)
    world.node.silent = 1.0
    world.start("p")
    for number in range(30):
        world.produce(body(f"x{number}", size=CHUNK_BYTES // 2, deadline_seconds=30 * DAY), home=number % HOMES)
    await asyncio.sleep(3_700)
    assert len(accepted(world)) == 30
    held, most, collect = 0, 0, Blobs._collect

    async def collected(self: Blobs, *asked: Any) -> bytes:
        nonlocal held, most
        found = await collect(self, *asked)
        held += 1
        most = max(most, held)
        return found

    def written(records: Sequence[MemoryRecord]) -> None:
        nonlocal held
        held -= sum(record.topic == world.topics.blobs for record in records)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Blobs, "_collect", collected)
        world.log.written_listeners.append(written)
        world.log.faults.send_seconds = (1.0, 1.0)
        world.clock.ahead += 7.1 * DAY
        await asyncio.sleep(7_200)
    moved = {event.job for number in range(HOMES) for event in world.history(number) if isinstance(event, InputMoved)}
    assert (len(moved), held) == (30, 0)
    assert most <= AT_ONCE


def _expire(world: World) -> None:
    """What retention does to `blobs`."""
    bound = (world.clock.wall() - BLOB_DAYS * DAY) * 1_000
    for number in range(world.log.partition_count(world.topics.blobs)):
        partition = world.log.existing(TopicPartition(world.topics.blobs, number))
        young = [record.offset for record in partition.records if record.timestamp >= bound]
        partition.delete_before(young[0] if young else partition.end)


@simulated
async def test_who_is_not_tutti_names_no_blob(world: World) -> None:
    """A reference in a job is an unknown field; who forges tutti's own record names what his tenant has kept, and nobody else's."""
    world.start("p")
    world.produce(body("b", tenant="b"), home=0)
    await world.until(lambda: world.finished() == 1)
    [event] = accepted(world)
    assert isinstance(event.request, HeldJob)
    assert event.request.input_ref is not None
    stolen = {"operation": "chat", "tenant": "a", "input_ref": json.loads(event.request.input_ref.to_bytes())}
    world.produce(json.dumps(stolen).encode(), home=0)
    world.produce(json.dumps(stolen).encode(), home=0, headers_=((headers.TYPE, headers.HELD_JOB.encode()),))
    await asyncio.sleep(20)
    assert [letter.code for letter in letters(world)] == ["invalid_record"]
    forged = world.node.steps_seen[-1]
    assert forged.input_ref == event.request.input_ref
    with pytest.raises(BlobGone):  # what a worker gets of it
        await read(world, forged.input_ref, forged.tenant)


FORGED = ((headers.TYPE, headers.HELD_JOB.encode()),)


@simulated
async def test_what_is_said_to_be_by_reference_and_is_not_is_as_any_other_job(world: World) -> None:
    """Who forges the type of a large job's record gets no more into history by it; good jobs around it end."""
    world.start("p")
    metadata = {f"k{number}": "y" * 4_000 for number in range(32)}
    reference = {"blob": {"digest": "0" * 32, "partition": 0, "first": 0, "last": 0, "chunks": 1, "size": 1, "written_at": 0}}
    sizes = {"characters": 1, "longest": 1, "fewest_tokens": 1}
    world.produce(body("before", size=10), home=0)
    world.produce(body("forged", size=900_000), home=0, headers_=FORGED)
    held = {"id": "heavy", "operation": "chat", "input_ref": reference | sizes, "metadata": metadata}
    world.produce(json.dumps(held).encode(), home=0, headers_=FORGED)
    world.produce(json.dumps(held | {"id": "spaced", "metadata": {}}).encode() + b" " * INLINE_BYTES, home=0, headers_=FORGED)
    world.produce(body("behind", size=10), home=0)
    await world.until(lambda: world.finished() >= 3)
    await asyncio.sleep(20)
    assert {job: b'"succeeded"' in values[0] for job, values in world.results().items()} == {"before": True, "behind": True, "forged": True}
    assert [letter.code for letter in letters(world)] == ["too_large"] * 2
    assert max(len(value) for value in world.values(world.topics.job_events)) < INLINE_BYTES
