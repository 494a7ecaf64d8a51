"""Critics in a simulated cluster with drawn faults: by every law, each job of tenants with policies ends, and nothing forbidden leaves."""

from __future__ import annotations

import asyncio
import os
from random import Random

import pytest

from shared.contracts.failure import FailureKind
from shared.contracts.result import Status
from tests.support.cluster import processes
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.mutants.critics import CRITICS
from tests.support.cluster.simulation import simulate
from tests.support.cluster.workload import WEIGHTS, Workload
from tests.support.cluster.world import World

pytestmark = pytest.mark.usefixtures("quiet")
SEEDS = [int(one)] if (one := os.environ.get("TUTTI_SEED")) else list(range(int(os.environ.get("TUTTI_SEEDS", "10"))))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_laws_hold_with_policies(seed: int) -> None:
    report = simulate(seed, kinds=WEIGHTS | {"policed": 20.0}, aside=CRITICS)
    if report.violations:
        pytest.fail(report.text(f"TUTTI_SEED={seed} .venv/bin/pytest {__file__}"), pytrace=False)
    assert [ended for ended in report.ended if ended.startswith("critic")] == []


async def _without_faults(*, critics: bool) -> World:
    async with World(3, FaultMix(jobs=40, seconds=8.0), CRITICS) as world:
        load = Workload(world, Random(5), 40, 8.0, {"policed": 1.0})
        for name in world.names:
            if critics or not name.startswith("critic"):
                world.start(name)
        await asyncio.sleep(1.0)
        await load.run()
        await load.finish()
        jobs = world.history
        assert await world.until(lambda: jobs.accepted.keys() <= jobs.results.keys() and len(jobs.accepted) > 20, 120.0)
        return world


def test_without_faults_policies_do_what_they_say() -> None:
    world = processes.run(_without_faults(critics=True))
    results = [found[0].value for found in world.history.results.values()]
    flagged = {(each.direction, each.check, each.action) for result in results if result.answer for each in result.answer.flagged}
    assert {("input", "personal_data", "redact"), ("answer", "personal_data", "redact"), ("answer", "personal_data", "flag")} <= flagged
    assert not any(action == "unchecked" for _, _, action in flagged)
    kinds = {result.failure.kind for result in results if result.status is Status.FAILED}
    assert FailureKind.BLOCKED in kinds
    assert FailureKind.UNCHECKED not in kinds


def test_without_a_critic_every_job_ends_typed() -> None:
    """After the patience, what each policy says of that."""
    world = processes.run(_without_faults(critics=False))
    for found in world.history.results.values():
        result = found[0].value
        if result.tenant == "lax" and result.answer is not None:
            assert {each.action for each in result.answer.flagged} == {"unchecked"}
        if result.tenant == "shy":
            assert result.failure.kind in (FailureKind.UNCHECKED, FailureKind.CANCELLED)
