"""A simulated cluster that seals: every law holds as without, under faults; what a tenant's shredded keys leave behind stops nobody."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import pytest

from shared.contracts.result import Status
from shared.sealing.entries import DataKeys
from tests.support.cluster import processes
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.laws import bounds, service_ends, streams, verified
from tests.support.cluster.simulation import simulate
from tests.support.cluster.workload import Workload
from tests.support.cluster.world import World
from tests.support.sealing import keys_file

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.mark.parametrize("seed", [2, 7])
def test_the_laws_hold_sealed(seed: int, tmp_path: Path) -> None:
    """Odd seeds compress."""
    report = simulate(seed, sealed=keys_file(tmp_path))
    assert report.sealed > 300
    if report.violations:
        pytest.fail(report.text(f"this test, seed {seed}"), pytrace=False)


ERASED = "red"


async def _shred(world: World) -> tuple[set[str], set[str]]:
    """(jobs of the erased tenant that have no result, violations of everybody else's)."""
    load = Workload(world, Random(11), 90, 8.0, {"single": 4.0, "chain": 4.0, "pattern": 2.0})
    world.start_all()
    arriving = asyncio.create_task(load.run())
    await world.clock.sleep(6.0)
    keys = DataKeys(world.log.process("administrator"), world.topics.data_keys)
    assert await keys.shred(ERASED) > 0
    await world.clock.sleep(1.0)
    for name in [name for name in world.names if name.startswith("planner")]:
        world.kill(name)
        world.start(name)
    await arriving
    history = world.history

    def tenants() -> dict[str, str]:
        return {id_: given[0].job.job.tenant for id_, given in history.jobs().items() if given[0].job is not None}

    assert await world.until(lambda: all(id_ in history.results for id_, tenant in tenants().items() if tenant != ERASED), 240.0)
    await world.clock.sleep(60.0)  # what is left of the erased tenant's ends, or is forgotten
    whose = tenants()
    forgotten = {id_ for id_, tenant in whose.items() if tenant == ERASED and id_ not in history.results}
    seen = await verified.check(world)
    seen += [*streams.check(world), *service_ends.check(world)]
    broken = {str(found) for found in seen if found.job is None or whose.get(found.job) != ERASED}
    # Its ids are as any other's afterwards: a new job ends as it should.
    load.produce({"id": "later", "prompt": "q", "tenant": ERASED})
    assert await world.until(lambda: f"{ERASED}/later" in history.results, 60.0)
    assert history.results[f"{ERASED}/later"][0].value.status is Status.SUCCEEDED
    return forgotten, broken


def test_what_a_shredded_tenant_leaves_stops_nobody(tmp_path: Path) -> None:
    """Its keys go in the middle of its jobs, then every planner dies: its history is dark. All others' jobs end, once; its own end, or are
    forgotten; what comes later is a tenant's like any.
    """

    async def run() -> tuple[set[str], set[str]]:
        async with World(3, FaultMix(), (), keys_file(tmp_path)) as world:
            watching = asyncio.create_task(bounds.watch(world))
            try:
                return await _shred(world)
            finally:
                watching.cancel()

    forgotten, broken = processes.run(run())
    assert not broken
    assert 0 < len(forgotten) < 20
