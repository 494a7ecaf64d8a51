"""What the planner's trace tests share: a World per test under virtual time, and what they look at."""

from __future__ import annotations

from infra.lab.virtual_loop import within
from shared.kafka.port import TopicPartition
from tests.support.planner_world import World

TWO_STEPS = b"""{"prompt": "q", "pattern": "chain",
  "chain": [{"name": "first", "template": "one {input}"}, {"name": "second", "template": "two {first}"}]}"""
simulated = within(lambda: World(7, homes=1))
"""Run an async test of a World under virtual time."""


def events(world: World) -> TopicPartition:
    return TopicPartition(world.topics.job_events, 0)


def starts(world: World) -> int:
    return sum(b'"planner_started"' in v for v in world.values(world.topics.job_events))


async def settled(world: World, count: int = 1) -> None:
    await world.until(lambda: world.finished() == count)
