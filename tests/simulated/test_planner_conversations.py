"""Conversations through planners that die: one turn at a time, in order, each added once, and history that does not grow with prompts.

The pretended node reads no blobs: what a model would read is put together here as a worker does it.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from infra.lab.virtual_loop import run
from services.planner.settings import PlannerSettings
from services.worker.contexts import Contexts
from shared.contracts import ids
from shared.contracts.conversation import (
    MOST_WAITING,
    ConversationChanged,
    ConversationDropped,
    TurnAsked,
    TurnBegun,
    TurnEnded,
    TurnGranted,
)
from shared.contracts.event import EVENT, JobAccepted, JobSettled, facts_of
from shared.contracts.failure import FailureKind
from shared.contracts.outcome import CancelRequested
from shared.contracts.result import Result, Status
from shared.contracts.step import Step
from shared.kafka.port import Message, TopicPartition
from shared.processing.blobs import Blobs
from shared.services import group_of
from tests.support import storms
from tests.support.planner_world import World
from tests.support.storms import quick_options

DAY = 86_400.0
SAID = "We talked at length about this and about that, and then about something else again. "


def ask(world: World, job: str, text: str = "hello", conversation: str = "c", **more: Any) -> None:
    body = {"id": job, "prompt": text, "conversation": conversation, **more}
    world.produce(json.dumps(body).encode(), key=job.encode(), home=home_of(world, job))


def home_of(world: World, name: str) -> int:
    return ids.home_of(name, world.topics.settings.home_partitions)


def facts(world: World, kind: type[Any]) -> list[Any]:
    homes = range(world.topics.settings.home_partitions)
    return [event for home in homes for event in world.history(home) if isinstance(event, kind)]


def known(world: World, conversation: str = "c") -> ConversationChanged:
    return [event for event in facts(world, ConversationChanged) if event.conversation == conversation][-1]


def results(world: World) -> dict[str, Result]:
    return {job: Result.model_validate_json(values[0]) for job, values in world.results().items()}


async def read(world: World, step: Step) -> list[tuple[str, str]]:
    """What the model of this step reads."""
    blobs = Blobs(world.log.process("reader"), world.clock, world.topics, service="worker", instance="reader")
    whole = await Contexts(blobs.fetch).whole(step)
    return [(message.role, message.content) for message in whole.messages]


def step_of(world: World, job: str) -> Step:
    return next(step for step in world.node.steps_seen if step.job == job)


def the_law(world: World) -> None:
    """By history and the log's time: no turn of a conversation begins before the job of the one before it has ended; none begins twice."""
    begun, settled, of = dict[str, int](), dict[str, int](), dict[str, str]()
    for home in range(world.topics.settings.home_partitions):
        valid = Counter((event.job, event.at) for event in world.history(home) if isinstance(event, TurnBegun | JobSettled))
        for record in world.log.existing(TopicPartition(world.topics.job_events, home)).records:
            for event in facts_of(EVENT.validate_json(record.value or b"")):
                if isinstance(event, JobAccepted) and event.request.conversation:
                    of[event.job] = event.request.conversation
                if not isinstance(event, TurnBegun | JobSettled) or not valid[event.job, event.at]:
                    continue
                times = begun if isinstance(event, TurnBegun) else settled
                assert times.setdefault(event.job, record.timestamp) == record.timestamp, f"{event.job}: {event.type} twice"
    for conversation in set(of.values()):
        turns = sorted((at, settled.get(job, at), job) for job, at in begun.items() if of[job] == conversation)
        for (_, ends, one), (begins, _, other) in pairwise(turns):
            assert ends <= begins, f"{other} began before {one} had ended"


def test_the_next_turn_reads_what_was_said() -> None:
    """Question and answer, oldest first, before the job's own words and behind those of the system; in another conversation nothing."""

    async def body() -> None:
        async with World() as world:
            world.start("planner")
            for number in range(3):
                ask(world, f"job-{number}", f"question {number}", system="be brief")
                await world.until(lambda number=number: world.finished() == number + 1)  # type: ignore[misc]
            ask(world, "other", "question", conversation="d")
            await world.until(lambda: world.finished() == 4)
            answers = {job: result.answer.text for job, result in results(world).items() if result.answer is not None}
            assert await read(world, step_of(world, "job-2")) == [
                ("system", "be brief"),
                ("user", "question 0"),
                ("assistant", answers["job-0"]),
                ("user", "question 1"),
                ("assistant", answers["job-1"]),
                ("user", "question 2"),
            ]
            assert await read(world, step_of(world, "other")) == [("user", "question")]
            await world.until(lambda: known(world).current is None)
            assert known(world).ended == 3
            await world.check_laws(4)
            the_law(world)

    run(body())


async def storm(seed: int) -> None:
    """Jobs of two conversations, on homes of their own; planners that die, or sleep and do not know it; a log that is slow and loses."""
    random = Random(seed)
    async with World(seed, homes=3, options=quick_options(random.random())) as world:
        storms.draw_faults(world)
        world.log.faults.posthumous = 0.5
        for name in "abc":
            world.start(name)
        for wave in range(3):
            for number in range(8):
                ask(world, f"job-{8 * wave + number}", f"question {8 * wave + number}", conversation="cd"[number % 2])
            await storms.storm(world, "abc")
        storms.heal(world)
        await world.until(lambda: world.finished() == 24)
        await world.until(lambda: all(known(world, c).current is None and known(world, c).ended == 12 for c in "cd"))
        await world.check_laws(24)
        the_law(world)
        for conversation in "cd":
            await one_after_the_other(world, conversation)


@pytest.mark.parametrize("seed", range(4))
def test_turns_run_one_by_one_whatever_dies(seed: int) -> None:
    """One after the other, in order, each once, with all that came before it."""
    run(storm(seed))


async def one_after_the_other(world: World, conversation: str) -> None:
    """In the order in which the owner was asked; the chain of turns holds each job once, and each read all that came before it."""
    outcomes = TopicPartition(world.topics.outcomes, home_of(world, conversation))
    told = (record.value or b"" for record in world.log.existing(outcomes).records)
    asked = [TurnAsked.model_validate_json(value) for value in told if b'"type":"turn_asked"' in value]
    jobs = {event.job for event in facts(world, JobAccepted) if event.request.conversation == conversation}
    begun = sorted((event for event in facts(world, TurnBegun) if event.job in jobs), key=lambda event: event.turn)
    assert len(begun) == len(jobs) == known(world, conversation).ended
    assert [event.job for event in begun] == list(dict.fromkeys(one.job for one in asked if one.conversation == conversation))
    for number, event in enumerate(begun):
        said = [text for role, text in await read(world, step_of(world, event.job)) if role == "user"]
        assert said == [f"question {one.job.removeprefix('job-')}" for one in begun[: number + 1]]


def test_who_waits_holds_no_place_and_can_be_cancelled() -> None:
    """A conversation whose turn takes an hour keeps no other job from running; a cancelled job leaves the queue."""

    async def body() -> None:
        options = PlannerSettings(live_jobs=8)
        async with World(homes=1, options=options) as world:
            planner = world.start("planner")
            world.node.silent = 1.0
            ask(world, "slow")
            await world.until(lambda: bool(facts(world, TurnBegun)))
            world.node.silent = 0.0
            for number in range(10):
                ask(world, f"wait-{number}")
            await world.until(lambda: len(facts(world, JobAccepted)) == 11)
            await asyncio.sleep(1)
            assert planner.homes.owned[0].home.live == 1
            for number in range(20):
                world.produce(json.dumps({"id": f"free-{number}", "prompt": "x"}).encode())
            await world.until(lambda: world.finished() == 20, 5.0)
            world.outcome(CancelRequested(job="wait-0"))
            await world.until(lambda: world.finished() == 21, 5.0)
            world.outcome(CancelRequested(job="slow"))
            await world.until(lambda: world.finished() == 31)
            begun = [event.job for event in facts(world, TurnBegun)]
            assert begun == ["slow", *(f"wait-{number}" for number in range(1, 10))]
            the_law(world)

    run(body())


def test_too_many_wait() -> None:
    """More than the queue holds: each fails typed, and says which bound; the others run."""

    async def body() -> None:
        async with World(homes=1) as world:
            world.start("planner")
            for number in range(MOST_WAITING + 4):
                ask(world, f"job-{number:02}")
            await world.until(lambda: world.finished() == MOST_WAITING + 4)
            failed = [result for result in results(world).values() if result.status is Status.FAILED]
            assert [(f.failure.kind, f.failure.limit) for f in failed if f.failure] == [(FailureKind.LIMIT, "conversation.waiting")] * 3
            the_law(world)

    run(body())


def test_default_deadlines_stand_still_and_given_ones_hold() -> None:
    async def body() -> None:
        async with World(homes=1, options=PlannerSettings(deadline_standard_seconds=60.0)) as world:
            world.start("planner")
            world.node.silent = 1.0
            ask(world, "first", deadline_seconds=300)
            ask(world, "patient")
            ask(world, "hasty", deadline_seconds=100)
            await world.until(lambda: "hasty" in world.results(), 150)
            world.node.silent = 0.0
            await world.until(lambda: world.finished() == 3, 400)
            ends = {job: result.status for job, result in results(world).items()}
            assert ends == {"first": Status.EXPIRED, "patient": Status.SUCCEEDED, "hasty": Status.EXPIRED}
            waited = {job: "its turn" in result.failure.message for job, result in results(world).items() if result.failure is not None}
            assert waited == {"first": False, "hasty": True}, "it is told what it waited for"

    run(body())


def test_a_grant_of_a_job_that_nobody_knows_heals() -> None:
    """Asked for by hand, of a job that never was: its home says so, and the next one begins."""

    async def body() -> None:
        async with World(homes=1) as world:
            world.start("planner")
            world.outcome(TurnAsked(tenant="default", conversation="c", job="ghost", home=0))
            ask(world, "real")
            await world.until(lambda: world.finished() == 1, 30)
            assert known(world).ended in (0, 1)

    run(body())


def test_stale_messages_change_nothing() -> None:
    """All that was ever told is told again: no turn is added twice, none begins twice."""

    async def body() -> None:
        async with World(homes=1) as world:
            world.start("planner")
            for number in range(4):
                ask(world, f"job-{number}")
            await world.until(lambda: world.finished() == 4 and known(world).ended == 4)
            partition = TopicPartition(world.topics.outcomes, 0)
            for record in list(world.log.existing(partition).records):
                if any(kind.model_fields["type"].default.encode() in (record.value or b"") for kind in (TurnAsked, TurnGranted, TurnEnded)):
                    world.log.write(partition, [again(record)])
            await asyncio.sleep(60)
            assert (known(world).ended, known(world).current, known(world).waiting) == (4, None, ())
            the_law(world)

    run(body())


def again(record: Any) -> Any:
    return Message(record.topic, record.value, record.key, record.partition, record.headers)


def test_it_is_forgotten_after_a_day_and_when_deleted() -> None:
    async def body() -> None:
        async with World(homes=1) as world:
            world.start("planner")
            for name in "cd":
                ask(world, f"job-{name}", conversation=name)
            await world.until(lambda: world.finished() == 2)
            world.outcome(ConversationDropped(tenant="default", conversation="d"))
            await world.until(lambda: known(world, "d").gone)
            assert not known(world).gone
            await asyncio.sleep(2)  # what was told is committed
            world.kill("planner")
            await asyncio.sleep(0.4 * DAY)
            world.start("planner")
            await asyncio.sleep(5)
            world.kill("planner")
            await asyncio.sleep(0.65 * DAY)
            world.start("planner")
            await world.until(lambda: known(world).gone, 30)
            ask(world, "again")
            await world.until(lambda: world.finished() == 3)
            assert await read(world, step_of(world, "again")) == [("user", "hello")]

    run(body())


def test_history_grows_with_answers_not_with_prompts() -> None:
    """A hundred calls over a conversation of 200,000 tokens: what a turn costs its history does not depend on what was said before."""

    async def body() -> None:
        text = (SAID * 100)[:8_000]
        async with World(homes=2, options=PlannerSettings(conversation_tokens=1_000_000)) as world:
            world.start("planner")
            sizes = []
            for number in range(100):
                ask(world, f"job-{number}", f"{number} {text}")
                await world.until(lambda number=number: known_ended(world) == number + 1)  # type: ignore[misc]
                sizes.append(sum(map(len, world.values(world.topics.job_events))))
            said = step_of(world, "job-99").context
            assert said is not None
            assert said.longest > 4 * 198_000
            own = len(text)
            grown = [after - before - own for before, after in pairwise(sizes)]
            assert max(grown) < 4_000, max(grown)
            assert max(grown[50:]) - max(grown[:50]) < 500
            await asyncio.sleep(2)
            group = world.log.group(group_of("planner", "")).offsets
            events = [TopicPartition(world.topics.job_events, home) for home in range(2)]
            behind = [world.log.existing(lies).records[group[lies] :] for lies in events]
            assert sum(map(len, behind)) < 100 * 8, "remembered ids hold the watermark for 512 events of anything"
            assert sum(len(record.value or b"") for records in behind for record in records) < 100 * (own + 4_000)
            world.kill("planner")
            began, planner = world.clock.monotonic(), world.start("planner")
            ask(world, "after")
            await world.until(lambda: "after" in world.results(), 60)
            assert world.clock.monotonic() - began < 10
            assert planner.homes.owned[home_of(world, "c")].home.running

    run(body())


def known_ended(world: World) -> int:
    found = [event for event in facts(world, ConversationChanged) if event.conversation == "c"]
    return found[-1].ended if found else 0
