"""What the planner's trace tests share: a World per test under virtual time, and what they look at."""

from __future__ import annotations

from typing import Any

from shared.kafka.port import TopicPartition
from tests.support.planner_world import World
from tests.support.virtual_loop import run

TWO_STEPS = b"""{"prompt": "q", "pattern": "chain",
  "chain": [{"name": "first", "template": "one {input}"}, {"name": "second", "template": "two {first}"}]}"""


def simulated(test: Any) -> Any:
    """Run an async test of a World under virtual time."""

    def wrapper() -> None:
        async def body() -> None:
            async with World(7, homes=1) as world:
                await test(world)

        run(body())

    wrapper.__name__, wrapper.__doc__ = test.__name__, test.__doc__
    return wrapper


def events(world: World) -> TopicPartition:
    return TopicPartition(world.topics.job_events, 0)


def starts(world: World) -> int:
    return sum(b'"planner_started"' in v for v in world.values(world.topics.job_events))


async def settled(world: World, count: int = 1) -> None:
    await world.until(lambda: world.finished() == count)
