"""Budgets of tenants on the in-memory log: several homes and planners never accept more together than a limit allows, and everything ends.

Each seed draws its own faults; a failure names its seed. Simulated: no model answers here.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from typing import Any

import pytest

from infra.lab.virtual_loop import run
from services.planner.settings import PlannerSettings
from shared.contracts.budget import TenantAccount, TenantLimitNeared, TenantLimits, TenantShare
from shared.contracts.event import JobAccepted, JobSettled, StepAnswered
from shared.contracts.failure import FailureKind
from shared.contracts.result import Result, Status
from shared.contracts.step import Step
from shared.contracts.usage import Usage
from shared.kafka.port import TopicPartition
from shared.topics import partition_of
from tests.support.planner_world import World
from tests.support.storms import draw_faults, heal, quick_options, storm

CHAIN = b"""{"prompt": "q%d", "pattern": "chain", "chain": [
  {"name": "first", "template": "one {input}"},
  {"name": "second", "template": "two {first}"},
  {"name": "third", "template": "{second}"}]}"""
SEEDS = range(int(os.environ.get("TUTTI_SEEDS", "12")))


def as_estimated(step: Step) -> Usage:
    """All that was reserved is used."""
    return Usage(calls=1, prompt_tokens=step.estimated_tokens, completion_tokens=0, cost=step.estimated_tokens / 1e4)


def submit(world: World, tenant: str, home: int, *, chain: bool = False, number: int = 0) -> None:
    body = CHAIN % number if chain else b'{"prompt": "q%d"}' % number
    world.produce(body[:-1] + b', "tenant": "%b"}' % tenant.encode(), home=home)


def accepted(world: World) -> dict[str, dict[str, float]]:
    """tenant → what valid history has accepted."""
    tenant_of: dict[str, str] = {}
    found: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for home in range(world.topics.settings.home_partitions):
        for event in world.history(home):
            if isinstance(event, JobAccepted):
                tenant_of[event.job] = event.request.tenant
            elif isinstance(event, StepAnswered):
                sums = found[tenant_of[event.job]]
                sums["calls"] += event.usage.calls
                sums["tokens"] += event.usage.prompt_tokens + event.usage.completion_tokens
                sums["cost"] += event.usage.cost
    return found


def running_at_once(world: World, tenant: str, home: int | None = None) -> int:
    """The most jobs of a tenant, on one home or on all, between first charged step and end, by the order of all records in time."""
    begun: dict[str, float] = {}
    ended: dict[str, float] = {}
    mine: set[str] = set()
    for number in range(world.topics.settings.home_partitions) if home is None else (home,):
        for event in world.history(number):
            if isinstance(event, JobAccepted) and event.request.tenant == tenant:
                mine.add(event.job)
            elif getattr(event, "charged_day", None) is not None and event.job in mine:
                begun.setdefault(event.job, event.at)
            elif isinstance(event, JobSettled):
                ended[event.job] = event.at
    moments = sorted([(at, 1) for at in begun.values()] + [(ended[job], -1) for job in begun])
    most = now = 0
    for _, change in moments:
        now += change
        most = max(most, now)
    return most


def outcomes(world: World) -> list[Result]:
    return [Result.model_validate_json(values[0]) for values in world.results().values()]


def events(world: World, kind: type) -> list[Any]:
    return [e for home in range(world.topics.settings.home_partitions) for e in world.history(home) if isinstance(e, kind)]


def test_the_whole_limit_is_used_and_no_more() -> None:
    """Four homes, one limit, more jobs than it allows: exactly so many succeed, the others are told which limit it was."""

    async def scenario() -> None:
        async with World(1, homes=4) as world:
            world.declare("small", TenantLimits(calls=30))
            world.start("a")
            world.start("b")
            for number in range(60):
                submit(world, "small", number % 4, number=number)
                submit(world, "free", number % 4, number=number)
                await asyncio.sleep(0.05)
            await world.until(lambda: world.finished() == 120)
            await world.check_laws(120)
            assert accepted(world)["small"]["calls"] == 30
            assert accepted(world)["free"]["calls"] == 60
            failed = [result.failure for result in outcomes(world) if result.status is Status.FAILED and result.failure]
            assert {failure.message for failure in failed} == {"the tenant's limit of 30 calls a day is reached"}
            near = events(world, TenantLimitNeared)
            assert [(event.tenant, event.limit, event.bound) for event in near] == [("small", "calls", 30)]

    run(scenario())


def test_tenants_without_limits_pay_nothing() -> None:
    """No event and no message about budgets, though another tenant has limits."""

    async def scenario() -> None:
        async with World(1) as world:
            world.declare("other", TenantLimits(calls=30))
            world.start("a")
            for number in range(20):
                submit(world, "free", number % 2, number=number, chain=True)
            await world.until(lambda: world.finished() == 20)
            assert not any(b"budget" in value for value in world.values(world.topics.outcomes))
            assert not any(b"tenant_" in value or b"charged" in value for value in world.values(world.topics.job_events))

    run(scenario())


def test_concurrent_jobs_of_a_tenant_are_bounded_over_all_homes() -> None:
    """Three at a time over four homes and two planners; every job has its turn."""

    async def scenario() -> None:
        async with World(2, homes=4) as world:
            world.node.seconds = (0.2, 0.6)
            world.declare("few", TenantLimits(concurrent_jobs=3))
            world.start("a")
            world.start("b")
            for number in range(40):
                submit(world, "few", number % 4, chain=number % 3 == 0, number=number)
            await world.until(lambda: world.finished() == 40)
            await world.check_laws(40)
            assert all(result.status is Status.SUCCEEDED for result in outcomes(world))
            assert 2 <= running_at_once(world, "few") <= 3

    run(scenario())


def test_a_new_day_has_a_new_budget() -> None:
    """What is refused before midnight UTC runs after it."""

    async def scenario() -> None:
        async with World(3) as world:
            world.declare("small", TenantLimits(calls=3))
            world.start("a")
            await asyncio.sleep(86_400 - world.clock.wall() % 86_400 - 60)
            for number in range(6):
                submit(world, "small", number % 2, number=number)
            await world.until(lambda: world.finished() == 6, 50)
            assert accepted(world)["small"]["calls"] == 3
            await asyncio.sleep(70)
            for number in range(6):
                submit(world, "small", number % 2, number=6 + number)
            await world.until(lambda: world.finished() == 12, 50)
            assert accepted(world)["small"]["calls"] == 6

    run(scenario())


def test_a_raised_limit_holds_at_once() -> None:
    """Administrators change limits while jobs come; taking them away frees whoever waits."""

    async def scenario() -> None:
        async with World(4) as world:
            world.declare("t", TenantLimits(calls=0))
            world.start("a")
            submit(world, "t", 0)
            await world.until(lambda: world.finished() == 1, 20)
            world.declare("t", TenantLimits(calls=2, concurrent_jobs=0))
            await asyncio.sleep(1)
            submit(world, "t", 0, number=1)
            await asyncio.sleep(5)
            assert world.finished() == 1
            world.declare("t", TenantLimits(calls=2))
            await world.until(lambda: world.finished() == 2, 20)
            assert accepted(world)["t"]["calls"] == 1

    run(scenario())


def test_an_unused_share_is_given_back() -> None:
    """One home asks for much and uses little; later the other may use all the rest without asking for it back."""

    async def scenario() -> None:
        async with World(5) as world:
            world.declare("t", TenantLimits(calls=1_000))
            world.start("a")
            submit(world, "t", 0)
            await world.until(lambda: world.finished() == 1, 20)
            await asyncio.sleep(60)
            last = events(world, TenantShare)[-1]
            assert (last.total.calls, last.used.calls, last.gives_back) == (1, 1, False)

    run(scenario())


def test_a_step_does_not_wait_for_ever_for_an_owner_that_is_away() -> None:
    """Requests that nobody answers end the job with a typed failure within the bound."""

    async def scenario() -> None:
        async with World(6, options=PlannerSettings(budget_wait_seconds=10)) as world:
            world.declare("t", TenantLimits(calls=5))
            world.start("a")
            await asyncio.sleep(5)
            owner = partition_of(b"t", 2)
            world.log.faults.delivery_of[TopicPartition(world.topics.outcomes, owner)] = (1_000.0, 1_000.0)
            submit(world, "t", 1 - owner)
            await world.until(lambda: world.finished() == 1, 12)
            [result] = outcomes(world)
            assert result.failure is not None
            assert (result.failure.kind, accepted(world)["t"]["calls"]) == (FailureKind.LIMIT, 0)

    run(scenario())


@pytest.mark.parametrize("seed", SEEDS)
def test_no_seed_accepts_more_than_a_limit(seed: int) -> None:
    """Planners die, pause, wake as zombies; records are lost, late and double: limits hold, laws 1-3 hold, everything ends."""

    async def scenario() -> None:
        world = World(seed, homes=3)
        random = world.random
        world.options = quick_options(random.random()).model_copy(update={"budget_wait_seconds": 20.0, "budget_idle_seconds": 2.0})
        world.node.usage = as_estimated
        limits = {
            "calls": TenantLimits(calls=random.randint(0, 40), concurrent_jobs=random.choice([None, 2, 5])),
            "tokens": TenantLimits(tokens=random.randint(200, 20_000)),
            "cost": TenantLimits(cost=random.uniform(0.0, 2.0)),
        }
        async with world:
            for tenant, given in limits.items():
                world.declare(tenant, given)
            for name in ("a", "b", "c"):
                world.start(name)
            await asyncio.sleep(1)
            draw_faults(world)
            world.log.faults.duplicable = frozenset({world.topics.outcomes})
            world.log.faults.duplicated = random.choice([0.0, 0.2])
            storming = asyncio.create_task(storm(world, ["a", "b", "c"]))
            for number in range(40):
                await asyncio.sleep(random.uniform(0.0, 0.6))
                submit(
                    world,
                    random.choice(["calls", "tokens", "cost", "free"]),
                    random.randrange(3),
                    chain=random.random() < 0.4,
                    number=number,
                )
            await storming
            heal(world)
            await world.until(lambda: world.finished() >= 40, 1_000)
            await world.check_laws(40)
            _check_limits(world, limits)

    try:
        run(scenario())
    except BaseException as error:
        error.add_note(f"seed {seed}: TUTTI_SEEDS={seed + 1} pytest tests/simulated/test_tenant_budgets.py -k {seed}")
        raise


def _check_limits(world: World, limits: dict[str, TenantLimits]) -> None:
    found = accepted(world)
    for tenant, given in limits.items():
        spent = found[tenant]
        assert given.calls is None or spent["calls"] <= given.calls
        assert given.tokens is None or spent["tokens"] <= given.tokens
    concurrent = limits["calls"].concurrent_jobs
    assert concurrent is None or running_at_once(world, "calls") <= concurrent
    most = max((step.estimated_tokens for step in world.node.steps_seen), default=0) / 1e4
    cost = limits["cost"].cost
    assert cost is not None
    # Before a home knows a price an attempt reserves nothing: what runs there then may be too much, one call a job.
    unpriced = sum(running_at_once(world, "cost", home) for home in range(world.topics.settings.home_partitions))
    assert found["cost"]["cost"] <= cost + most * unpriced + 1e-6


async def _after_five_weeks(world: World, partition: int, days: float) -> Result:
    """A tenant's job; then nothing for five weeks; then retention deletes from this partition what is older than `days`, and the
    tenant's next job comes.
    """
    world.declare("few", TenantLimits(concurrent_jobs=1))
    world.start("p")
    home = 1 - partition_of(b"few", 2)
    submit(world, "few", home)
    await world.until(lambda: world.finished() == 1)
    await asyncio.sleep(120.0)
    for _ in range(5):
        world.clock.ahead += 7.5 * 86_400.0
        await asyncio.sleep(3_700.0)
    events = world.log.existing(TopicPartition(world.topics.job_events, partition))
    events.expire(int((world.clock.wall() - days * 86_400.0) * 1e3))
    await world.stop("p")
    world.start("q")
    await asyncio.sleep(30.0)
    submit(world, "few", home, number=2)
    await world.until(lambda: world.finished() == 2, 300.0)
    return Result.model_validate_json(list(world.results().values())[-1][0])


@pytest.mark.parametrize("partition", [0, 1])
@pytest.mark.parametrize("days", [30.0, 0.0])
def test_a_ledger_outlives_a_quiet_log_and_heals_when_one_side_is_lost(partition: int, days: float) -> None:
    """Concurrent jobs are counted for ever: what is kept is written again by age (30 days: all that matters is younger), and two sides
    of which one is lost altogether come to agree again.
    """

    async def main() -> None:
        async with World(3) as world:
            result = await _after_five_weeks(world, partition, days)
            assert result.status is Status.SUCCEEDED, result.failure
            shares = [e for home in range(2) for e in world.history(home) if isinstance(e, TenantShare | TenantAccount)]
            assert len(shares) >= (4 if days else 2)

    run(main())
