"""Work in the planner that fails for a reason nobody expected concerns one record or one job: it is given up after a few tries, and the
others of its partition go on (simulated, virtual time; the failures are planted).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from services.planner.budgets.shares import Shares
from services.planner.deciding import admission, attempts, delayed, driving, funding
from services.planner.history import recovery
from services.planner.job.live import LiveJob
from services.planner.kept import Kind
from services.planner.round import Round
from services.planner.schedules import clockwork
from services.planner.shard import effects
from services.planner.state import dates, snapshots
from services.planner.state.book import Book
from shared.contracts.budget import TenantLimits
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.failure import FailureKind
from shared.contracts.outcome import StepFailed, StepSucceeded
from shared.contracts.reply import Final
from shared.contracts.result import Result
from shared.contracts.schedule import KIND, Schedule
from shared.errors import RecordTooLarge
from shared.kafka import sizes
from shared.kafka.memory import memory_producer
from shared.kafka.port import Message, TopicPartition
from shared.processing.registry import registry_key
from shared.processing.tries import TRIES
from tests.support.planner_traces import simulated
from tests.support.planner_world import World

ODD, GOOD = b'{"prompt": "odd", "id": "odd"}', b'{"prompt": "good"}'
WAITS = (("correlation-id", b"c"), ("reply-topic", b"replies.test"), ("reply-partition", b"0"))


def failing(patch: pytest.MonkeyPatch, owner: Any, name: str, odd: Callable[..., bool], times: int = 10**6) -> list[int]:
    """Let `owner.name` raise where `odd` says so, so many times; returns a list that grows with every failure."""
    real, failures = getattr(owner, name), list[int]()

    def work(*args: Any, **options: Any) -> Any:
        if len(failures) < times and odd(*args):
            failures.append(1)
            raise OverflowError("int too large to convert to float")
        return real(*args, **options)

    patch.setattr(owner, name, work)
    return failures


def is_odd(*args: Any) -> bool:
    """Whether one of the arguments is the odd job, or about it."""
    return any("odd" in (getattr(arg, "id", None), getattr(arg, "job", None)) for arg in args if not isinstance(arg, Book))


def letters(world: World) -> list[DeadLetter]:
    return [DeadLetter.model_validate_json(value) for value in world.values(world.topics.dead_letters)]


def results(world: World) -> list[Result]:
    return [Result.model_validate_json(value) for value in world.values(world.topics.results)]


def ends(world: World) -> dict[str, FailureKind | None]:
    """Job → why it failed."""
    return {result.job: result.failure.kind if result.failure else None for result in results(world)}


@pytest.fixture
def patch() -> Any:
    with pytest.MonkeyPatch.context() as context:
        yield context


async def others_go_on(world: World, among: int) -> None:
    """Jobs before and behind the odd one succeed."""
    await world.until(lambda: world.finished() >= among, 60.0)
    assert [kind for job, kind in ends(world).items() if job != "odd"].count(None) == among - ("odd" in ends(world))


def asks_odd(*args: Any) -> bool:
    """Whether one of the arguments is what the odd job asks for, or holds it."""
    asked = [getattr(arg, "request", getattr(arg, "job", arg)) for arg in args]
    return any(getattr(job, "prompt", None) == "odd" or getattr(job, "calls", None) == 77 for job in asked)


TAKING_IN: dict[str, tuple[Any, str, Callable[..., bool]]] = {
    "pattern": (admission, "check_job", asks_odd),
    "limits": (admission, "filled", asks_odd),
    "event": (Round, "add", asks_odd),
    "fold": (Round, "enter", asks_odd),
    "acceptance": (effects, "accept", asks_odd),
    "whether it waits": (effects, "must_wait", asks_odd),
    "the wait": (delayed, "digest_of", lambda body: b"odd" in body),
    "the step": (effects, "of_effect", lambda effect, _: getattr(getattr(effect, "step", None), "job", "") == "odd"),
}
"""What may fail between reading a job and its first step: where, and for which arguments."""


@pytest.mark.parametrize("where", TAKING_IN)
def test_a_job_whose_taking_in_fails_has_its_one_result(where: str, patch: pytest.MonkeyPatch) -> None:
    """Across take-overs: the fold is thrown away each time, what failed is remembered. Then the job ends: a letter, a reply, a result; also
    where the planner dies while the result waits. Sent again it has the same end.
    """

    async def scenario(world: World) -> None:
        failures = failing(patch, *TAKING_IN[where])
        body = {"prompt": "odd", "id": "odd", "limits": {"calls": 77}}
        odd = json.dumps(body | ({"not_before": world.clock.wall() + 3_600.0} if where == "the wait" else {})).encode()
        world.log.faults.away[world.topics.results] = 0.0
        world.start("p")
        world.produce(GOOD)
        world.produce(odd, headers_=WAITS)
        world.produce(GOOD)
        await world.until(lambda: bool(letters(world)))
        assert len(failures) == TRIES
        [letter] = letters(world)
        assert (letter.offset, letter.code, letter.reason) == (1, "internal", "work on it failed 3 times")
        world.kill("p")
        world.log.faults.heal()
        planner = world.start("q")
        await others_go_on(world, 3)
        assert ends(world)["odd"] is FailureKind.INTERNAL
        world.produce(odd, headers_=WAITS)
        await world.until(lambda: len(world.values("replies.test")) >= 2)
        await asyncio.sleep(30.0)
        told = [Final.model_validate_json(reply).result for reply in world.values("replies.test")]
        assert all(result in results(world) for result in told)
        assert planner.readiness().ready
        await world.check_laws(3)

    simulated(scenario)()


@simulated
async def test_a_job_that_cannot_even_be_ended_is_a_dead_letter_and_its_caller_is_told(world: World) -> None:
    """The last resort: nothing of it is in history."""
    with pytest.MonkeyPatch.context() as patch:
        failing(patch, effects, "accept", is_odd)
        planner = world.start("p")
        world.produce(GOOD)
        world.produce(ODD, headers_=WAITS)
        world.produce(GOOD)
        await others_go_on(world, 2)
        await world.until(lambda: bool(letters(world)))
        assert [(letter.offset, letter.code) for letter in letters(world)] == [(1, "internal")]
        [reply] = world.values("replies.test")
        failure = Final.model_validate_json(reply).result.failure
        assert failure is not None
        assert failure.kind is FailureKind.INTERNAL
        await world.until(lambda: planner.readiness().ready)


@simulated
async def test_a_passing_failure_costs_nobody_anything(world: World) -> None:
    """Twice, and the third try succeeds."""
    with pytest.MonkeyPatch.context() as patch:
        failures = failing(patch, effects, "accept", is_odd, times=TRIES - 1)
        world.start("p")
        world.produce(ODD)
        world.produce(GOOD)
        await world.until(lambda: world.finished() == 2)
        assert len(failures) == TRIES - 1
        assert set(ends(world).values()) == {None}
        assert letters(world) == []
        await world.check_laws(2)


@simulated
async def test_an_outcome_whose_folding_fails_is_a_dead_letter_and_ends_its_job(world: World) -> None:
    """The job is known, so its result says `internal`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(attempts._ON, StepSucceeded, _failing_outcome(attempts._ON[StepSucceeded]))
        world.start("p")
        world.produce(GOOD)
        world.produce(ODD)
        world.produce(GOOD)
        await others_go_on(world, 3)
        assert ends(world)["odd"] is FailureKind.INTERNAL
        assert {letter.code for letter in letters(world)} == {"internal"}
        await world.check_laws(3)


def _failing_outcome(real: Any) -> Any:
    def work(round_: Any, outcome: Any) -> None:
        if outcome.job == "odd":
            raise OverflowError
        real(round_, outcome)

    return work


@simulated
async def test_a_job_that_cannot_be_driven_ends_as_internal(world: World) -> None:
    """At once: driving depends on nothing but the job."""
    with pytest.MonkeyPatch.context() as patch:
        failing(patch, driving, "refusal", is_odd)
        planner = world.start("p")
        world.produce(GOOD)
        world.produce(ODD)
        world.produce(GOOD)
        await others_go_on(world, 3)
        assert ends(world)["odd"] is FailureKind.INTERNAL
        assert letters(world) == []
        assert planner.readiness().ready
        await world.check_laws(3)


@simulated
async def test_a_job_whose_timer_fails_ends_as_internal(world: World) -> None:
    """After a few tries; each begins with a take-over."""
    world.node.silent, world.options = 1.0, world.options.model_copy(update={"resend_seconds": 60.0})
    with pytest.MonkeyPatch.context() as patch:
        failures = failing(patch, attempts, "_step_due", is_odd)
        world.start("p")
        world.produce(ODD)
        await world.until(lambda: "odd" in ends(world), 3_600.0)
        world.node.silent = 0.0
        world.produce(GOOD)
        await others_go_on(world, 2)
        assert ends(world)["odd"] is FailureKind.INTERNAL
        assert len(failures) == TRIES


@simulated
async def test_a_job_whose_retry_cannot_be_written_ends_as_internal(world: World) -> None:
    """It is in history: its result tells."""
    world.node.fails = 1.0
    with pytest.MonkeyPatch.context() as patch:
        failing(patch, effects, "of_effect", lambda effect, _: getattr(effect, "step", None) is not None and effect.step.attempt == 2)
        world.start("p")
        world.produce(ODD)
        await world.until(lambda: "odd" in ends(world))
        assert ends(world)["odd"] is FailureKind.INTERNAL


@pytest.mark.parametrize("topic", ["steps.", "delays."])
def test_what_comes_back_and_cannot_be_folded_ends_its_own_job(topic: str, patch: pytest.MonkeyPatch) -> None:
    """Of jobs whose steps cannot be sent, or that cannot wait: what returns with the odd one's is not blamed, and ends as it is."""

    def check_record(message: Message) -> int:
        if message.topic.startswith(topic):
            raise RecordTooLarge
        return sizes.check_record(message)

    async def scenario(world: World) -> None:
        patch.setattr(memory_producer, "check_record", check_record)
        patch.setitem(attempts._ON, StepFailed, _failing_outcome(attempts._ON[StepFailed]))
        if topic == "delays.":
            failing(patch, effects, "accept", is_odd, times=TRIES)
        later = {"not_before": world.clock.wall() + 5_000.0} if topic == "delays." else {}
        world.start("p")
        for name in ("before", "odd", "behind"):
            world.produce(json.dumps({"prompt": name, "id": name, **later}).encode())
        await world.until(lambda: world.finished() == 3, 60.0)
        assert ends(world) == {"before": FailureKind.TOO_LARGE, "odd": FailureKind.INTERNAL, "behind": FailureKind.TOO_LARGE}

    simulated(scenario)()


@pytest.mark.parametrize("where", ["fold", "enter", "resume", "rearm"])
def test_replay_of_one_bad_job_does_not_stop_the_partition(where: str) -> None:
    """An event that cannot be folded, an acceptance that cannot be entered, a job that cannot be gone on with."""

    async def scenario(world: World) -> None:
        world.node.seconds = (20.0, 20.0)
        world.start("p")
        world.produce(GOOD)
        world.produce(ODD)
        world.produce(GOOD)
        await asyncio.sleep(5.0)
        world.kill("p")
        with pytest.MonkeyPatch.context() as patch:
            match where:
                case "fold":
                    failing(patch, LiveJob, "apply", is_odd, times=1)
                case "enter":
                    failing(patch, dates, "soft_wall_seconds", lambda _: True)
                case "resume":
                    failing(patch, recovery.Replay, "_reserve", is_odd)
                case _:
                    failing(patch, recovery.Replay, "_rearm", is_odd)
            world.start("q")
            await others_go_on(world, 3)
        if where != "enter":
            assert ends(world)["odd"] is FailureKind.INTERNAL

    simulated(scenario)()


@simulated
async def test_a_schedule_that_fails_stops_neither_the_others_nor_jobs(world: World) -> None:
    """Its runs are lost and the log says so; the others begin in time."""
    with pytest.MonkeyPatch.context() as patch:
        failing(patch, clockwork, "due_runs", lambda entry, *_: entry.schedule.id == "odd")
        planner = world.start("p")
        for name in ("a", "odd", "z"):
            declared = Schedule.model_validate({"id": name, "cron": "* * * * *", "job": {"prompt": name}, "since": world.clock.wall()})
            entry = Message(world.topics.registry, declared.to_bytes(), registry_key(KIND, name), 0)
            world.log.write(TopicPartition(world.topics.registry, 0), [entry])
        await asyncio.sleep(130.0)
        world.produce(GOOD)
        await world.until(lambda: world.finished() >= 5)
        assert planner.readiness().ready


def _is_of(what: str, kind: Kind[Any, Any], *_: Any) -> bool:
    return kind.chore.name == f"writing {what} again"


UPKEEP: dict[str, tuple[Any, str, Callable[..., bool]]] = {
    **{
        f"writing {what} again": (Kind, "renew", partial(_is_of, what))
        for what in ("jobs", "guesses", "cancels", "runs", "ids", "accounts", "shares")
    },
    "the snapshot of odd": (snapshots, "write", is_odd),
    "budgets": (funding, "fund", lambda *_: True),
    "the budget of odd": (Shares, "ask", lambda _shares, _round, tenant: tenant == "odd"),
}


@pytest.mark.parametrize("part", UPKEEP)
def test_upkeep_that_fails_is_left_undone_and_said(part: str, patch: pytest.MonkeyPatch) -> None:
    """A few take-overs, then the home works on without it; the other tenants and jobs notice nothing."""

    async def scenario(world: World) -> None:
        world.options = world.options.model_copy(update={"snapshot_distance": 5})
        for tenant in ("odd", "good"):
            world.declare(tenant, TenantLimits(calls=1_000))
        planner = world.start("p")
        await world.until(lambda: planner.readiness().ready)
        serve = world.node.take
        patch.setattr(world.node, "take", lambda step: None if step.job == "odd" else serve(step))
        world.produce(ODD)
        failures = failing(patch, *UPKEEP[part])
        for number in range(30):
            world.produce(b'{"prompt": "%d", "tenant": "good"}' % number)
            if number % 5 == 0:
                world.produce(b'{"prompt": "%d", "tenant": "odd"}' % number)
            await asyncio.sleep(0.5)
        await world.until(lambda: world.finished() >= (30 if "budget" in part else 36), 60.0)
        assert 0 < len(failures) <= TRIES + 1
        assert planner.readiness().reasons == (f"partition 0: {part} fails again and again; the log says why",)

    simulated(scenario)()


@simulated
async def test_a_job_that_cannot_be_funded_ends_as_internal(world: World) -> None:
    """The others of its tenant are."""
    world.declare("default", TenantLimits(concurrent_jobs=1))
    with pytest.MonkeyPatch.context() as patch:
        failures = failing(patch, funding, "_begin", is_odd)
        planner = world.start("p")
        for name in ("a", "odd", "b"):
            world.produce(json.dumps({"prompt": name, "id": name}).encode())
        await others_go_on(world, 3)
        assert ends(world)["odd"] is FailureKind.INTERNAL
        assert len(failures) == TRIES
        assert planner.readiness().ready
