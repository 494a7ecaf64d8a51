"""Ids that ended lately are known over take-overs, and nobody else waits for them (simulated, virtual time)."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

import pytest

from services.planner.history import gate, recent
from shared.contracts.base import PriorityClass
from shared.contracts.event import IdsRemembered
from tests.support.planner_traces import settled, simulated
from tests.support.planner_world import World

BATCH, INTERACTIVE = PriorityClass.BATCH, PriorityClass.INTERACTIVE


def ask(world: World, ids: range, priority_class: PriorityClass = BATCH) -> None:
    for number in ids:
        world.produce(b'{"prompt": "q", "id": "mine-%d"}' % number, priority_class=priority_class)


@simulated
async def test_every_id_of_the_window_is_known_over_take_overs(world: World) -> None:
    """Hundreds of ids, in several groups; killed, stopped, killed again: each is one job, whoever is asked again."""
    world.start("p0")
    for life in range(4):
        ask(world, range(150 * life, 150 * life + 150))
        await settled(world, 300 * life + 150)
        for number in range(150):
            world.produce(b'{"prompt": "%d"}' % number)
        await settled(world, 300 * life + 300)
        if life % 2:
            await asyncio.sleep(5)
            await world.stop(f"p{life}")
        else:
            world.kill(f"p{life}")
        world.start(f"p{life + 1}")
        ask(world, range(150 * life + 150))
        await asyncio.sleep(60)
        assert world.node.runs == 300 * life + 300
    await world.check_laws(1_200)
    groups = [event for event in world.history(0) if isinstance(event, IdsRemembered)]
    assert max(len(group.earlier) for group in groups) > 2


@simulated
async def test_nobody_waits_for_the_ids_of_others(world: World) -> None:
    """While a successor still reads what was remembered: jobs without an id go on, of the full class of those that wait and of others."""
    world.start("p")
    ask(world, range(400))
    await settled(world, 400)
    await world.stop("p")
    read_again = recent.read_again

    async def slow(*given: Any) -> Any:
        await asyncio.sleep(20.0)
        return await read_again(*given)

    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(gate, "read_again", slow)
        world.start("q")
        ask(world, range(400, 800))
        await asyncio.sleep(2.0)
        for priority_class in (INTERACTIVE, PriorityClass.STANDARD):
            world.produce(b'{"prompt": "somebody waits"}', priority_class=priority_class)
        await asyncio.sleep(5.0)
        assert world.finished() == 402
        await settled(world, 802)
    await world.check_laws(802)


@simulated
async def test_what_is_read_after_a_take_over_is_bounded(world: World) -> None:
    """Of thousands of events a few dozen; none twice."""
    world.start("p")
    for start in range(0, 1_200, 300):
        ask(world, range(start, start + 300))
        await settled(world, start + 300)
    world.kill("p")
    asked: list[int] = []
    read_again = recent.read_again

    async def counted(wiring: Any, partition: Any, offsets: Collection[int], kind: Any) -> Any:
        asked.extend(offsets)
        return await read_again(wiring, partition, offsets, kind)

    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(gate, "read_again", counted)
        world.start("q")
        ask(world, range(1_200, 1_210))
        await settled(world, 1_210)
    assert 0 < len(asked) == len(set(asked)) < 40
