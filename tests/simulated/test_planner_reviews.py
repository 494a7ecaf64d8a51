"""Reviews through planners that die: an approval after days goes on once, and nothing is held meanwhile."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from infra.lab.virtual_loop import run
from services.planner.settings import PlannerSettings
from shared.contracts.event import PlannerStarted, StepAsked
from shared.contracts.failure import FailureKind
from shared.contracts.result import Result, Status
from shared.contracts.review import ReviewDecided, ReviewGiven, ReviewOpened, Verdict
from tests.support.planner_world import World

DAY = 86_400.0
VERDICTS: tuple[Verdict, ...] = ("approve", "approve", "edit", "reject")


def reviewed(**review: Any) -> bytes:
    steps = [
        {"name": "draft", "template": "{input}", "review": {"deadline_seconds": 30 * DAY, **review}},
        {"name": "final", "template": "say {draft}"},
    ]
    return json.dumps({"prompt": "x", "pattern": "chain", "chain": steps}).encode()


def of_kind(world: World, kind: type[Any]) -> list[Any]:
    homes = range(world.topics.settings.home_partitions)
    return [event for home in homes for event in world.history(home) if isinstance(event, kind)]


def say(world: World, by: str, verdict: Verdict = "approve", text: str = "", *, opened: ReviewOpened | None = None, home: int = 0) -> None:
    opened = opened or of_kind(world, ReviewOpened)[0]
    given = ReviewGiven(job=opened.job, step=opened.step, digest=opened.digest, by=by, verdict=verdict, text=text)
    world.outcome(given, home)


def results(world: World) -> list[Result]:
    return [Result.model_validate_json(value) for values in world.results().values() for value in values]


def starts(world: World) -> int:
    return sum(PlannerStarted.model_fields["type"].default.encode() in value for value in world.values(world.topics.job_events))


def test_an_approval_after_seven_days_and_two_restarts_goes_on_once() -> None:
    """Whatever the job's class gives it by default, which is an hour. Planners that live for days take long to simulate: they are away."""

    async def body() -> None:
        async with World(homes=1) as world:
            planner = world.start("planner")
            world.produce(reviewed())
            await world.until(lambda: bool(of_kind(world, ReviewOpened)))
            assert planner.homes.owned[0].home.live == 0
            for _ in range(2):
                world.kill("planner")
                await asyncio.sleep(3.5 * DAY)
                world.start("planner")
                await asyncio.sleep(5)
            assert starts(world) == 3
            say(world, "ann", "edit", "better")
            say(world, "ann", "edit", "better")
            say(world, "bob", "reject")
            await world.until(lambda: world.finished() == 1)
            await world.check_laws(1)
            assert [event.by for event in of_kind(world, ReviewDecided)] == ["ann"]
            assert len(of_kind(world, StepAsked)) == 2
            assert results(world)[0].status is Status.SUCCEEDED
            assert "say better" in str(world.node.steps_seen[-1].messages)

    run(body())


def test_more_jobs_wait_for_people_than_may_be_live() -> None:
    """They leave their places, so the jobs behind them run; all go on when all are approved at once, whatever the room."""

    async def body() -> None:
        async with World(homes=1, options=PlannerSettings(live_jobs=8, waiting_jobs=100)) as world:
            planner = world.start("planner")
            for _ in range(40):
                world.produce(reviewed())
            await world.until(lambda: len(of_kind(world, ReviewOpened)) == 40)
            world.produce(b'{"prompt": "behind them"}')
            await world.until(lambda: world.finished() == 1)
            home = planner.homes.owned[0].home
            assert (home.live, home._book.live_count.waiting) == (0, 40)
            for opened in of_kind(world, ReviewOpened):
                say(world, "ann", opened=opened)
            await world.until(lambda: world.finished() == 41)
            await world.check_laws(41)

    run(body())


@pytest.mark.parametrize("seed", range(6))
def test_laws_with_people_and_planners_that_die(seed: int) -> None:
    """People decide at any time, several at once and more than once, around the end of the time; planners die meanwhile. Each review is
    decided once, by people or by default, and each job ends as its review says.
    """

    async def body() -> None:
        async with World(seed) as world:
            draw = world.random
            world.node.fails = 0.1
            names = ["one", "two"]
            for name in names:
                world.start(name)
            for number in range(20):
                home = number % 2
                quorum = draw.choice([1, 1, 2])
                world.produce(
                    reviewed(deadline_seconds=draw.uniform(1, 30), quorum=quorum, default=draw.choice(["approve", "reject"])), home=home
                )
            end = world.clock.monotonic() + 60
            while world.clock.monotonic() < end:
                await asyncio.sleep(draw.uniform(0, 2))
                for home in range(2):
                    for opened in (event for event in world.history(home) if isinstance(event, ReviewOpened)):
                        if draw.random() < 0.3:
                            verdict = draw.choice(VERDICTS)
                            say(world, draw.choice(("ann", "bob", "cem")), verdict, "other", opened=opened, home=home)
                if draw.random() < 0.3:
                    name = draw.choice(names)
                    world.kill(name)
                    await asyncio.sleep(draw.uniform(0, 12))
                    world.start(name)
            await world.until(lambda: world.finished() == 20)
            await world.check_laws(20)
            check_reviews(world)

    run(body())


def check_reviews(world: World) -> None:
    opened = {event.step: event for event in of_kind(world, ReviewOpened)}
    decided: dict[str, list[ReviewDecided]] = {}
    for event in of_kind(world, ReviewDecided):
        decided.setdefault(event.step, []).append(event)
    assert len(opened) > 10
    ends = {result.job: result for result in results(world)}
    for step, review in opened.items():
        said = decided[step]
        assert [event.over for event in said] == [False] * (len(said) - 1) + [True], "decided once, by the last"
        people = [event.by for event in said if event.by is not None]
        assert len(people) == len(set(people)), "each person once"
        last = said[-1]
        agreeing = [event for event in said if event.by is not None and (event.verdict, event.text) == (last.verdict, last.text)]
        assert last.by is None or last.verdict == "reject" or len(agreeing) == review.quorum
        failed = ends[review.job].failure
        if last.verdict == "reject":
            assert failed is not None
            assert failed.kind is FailureKind.GATE_FAILED
        elif failed is not None:
            assert failed.kind is FailureKind.MODEL_ERROR, "of the step behind it"
