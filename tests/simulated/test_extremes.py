"""Values at the very bounds of the contracts go through the whole planner, and through the routers: nothing overflows, others go on."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from shared.contracts.base import MOST, MOST_COST
from shared.contracts.bounds import parse_job
from tests.support.planner_traces import simulated as planner
from tests.support.planner_traces import starts
from tests.support.planner_world import World
from tests.support.routing import step
from tests.support.routing_cluster import Cluster
from tests.support.routing_cluster import simulated as router

LIMITS: dict[str, float] = {
    "calls": 10_000,
    "tokens": MOST,
    "cost": MOST_COST,
    "wall_seconds": 1e12,
    "steps": 10_000,
    "depth": 32,
    "width": 1_000,
    "attempts": 20,
    "soft": 5e-324,
}
YEAR_9999 = 253_402_300_799.0
EXTREMES: list[dict[str, Any]] = [
    {"limits": LIMITS},
    {"limits": {"tokens": 1, "soft": 5e-324}},
    {"limits": {"cost": 5e-324, "wall_seconds": 5e-324}},
    {"deadline_at": YEAR_9999},
    {"deadline_at": 0},
    {"options": {"max_tokens": 1_000_000, "top_k": 2**31 - 1, "seed": -(2**31), "temperature": 5, "repeat_penalty": 5e-324}},
    {"needs": {"min_vram_bytes": MOST, "min_context": MOST, "tags": ["a" * 32] * 16, "node": "n" * 128}},
    {"model": "\U0002a6a5" * 200, "fallback_models": ["/" * 200] * 8},
    {"format": {"maximum": 2**64 - 1, "minimum": -(2**63)}, "metadata": {"k" * 256: "v" * 4_096}},
    {"id": "i" * 128, "tenant": "t" * 64, "capability": "chat", "tools": [{"a": ["\u20ac"] * 1_000}]},
]


def body(fields: dict[str, Any]) -> bytes:
    raw = json.dumps({"prompt": "x", **fields}).encode()
    parse_job(raw)
    return raw


@planner
async def test_a_home_folds_values_at_their_bounds(world: World) -> None:
    """Each job ends, and so does one behind them; nothing was taken over again."""
    world.start("p")
    await asyncio.sleep(2)
    for fields in EXTREMES:
        world.produce(body(fields))
    world.produce(b'{"prompt": "somebody else", "id": "other"}')
    await asyncio.sleep(60)
    assert "other" in world.results()
    assert starts(world) == 1


@router
async def test_routers_say_what_values_at_their_bounds_need(it: Cluster) -> None:
    """A step that no node can run is told so; one behind it runs."""
    node = it.node("n1", 0)
    it.router("r1")
    await it.clock.sleep(3.0)
    for number, fields in enumerate(EXTREMES):
        job = parse_job(body({name: value for name, value in fields.items() if name in ("needs", "model", "fallback_models")}))
        it.ask(
            step(
                job=f"x{number}",
                id=f"{number:032x}",
                needs=job.needs,
                model=job.model,
                fallback_models=job.fallback_models,
                estimated_tokens=MOST,
            )
        )
    it.ask(step(job="other", id="f" * 32))
    await it.clock.sleep(60.0)
    assert it.gone() == []
    assert "other" in [done.job for done in node.done]


@pytest.mark.parametrize("fields", EXTREMES, ids=range(len(EXTREMES)))
def test_the_bounds_themselves_are_accepted(fields: dict[str, Any]) -> None:
    """Or the tests above would be about nothing."""
    assert parse_job(body(fields)).to_bytes()
