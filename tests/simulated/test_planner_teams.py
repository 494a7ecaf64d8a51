"""Promise: a job that was accepted under one version of an agent goes on under it on another planner, whatever the registry says by then
(simulated, virtual time).
"""

from __future__ import annotations

import pytest

from services.planner import app
from shared.agents.table import Declarations
from shared.contracts import headers
from shared.contracts.agents import Agent
from shared.contracts.chat import Answer, ChatMessage
from shared.contracts.job import Job
from shared.kafka.port import Message, TopicPartition
from shared.patterns import BUILT_IN, Patterns
from shared.patterns.context import Context
from shared.patterns.port import Pattern, PatternInput
from shared.processing.registry import registry_key
from tests.support.planner_traces import events, settled, simulated
from tests.support.planner_world import World

JOB = b'{"prompt": "q", "pattern": "twice_asked", "input": {"agent": "mine"}}'


class TwiceAskedInput(PatternInput):
    agent: str


async def twice_asked(ctx: Context, job: Job, ask: TwiceAskedInput) -> Answer:
    answer = Answer()
    for number in range(2):
        answer = await ctx.ask(ctx.request(job, ask.agent, ChatMessage(role="user", content=f"{number} {answer.text}")))
    return answer


def declare(world: World, table: Declarations, system: str) -> None:
    registry = TopicPartition(world.topics.registry, 0)
    for key, value in table.to_declare("agent", "mine", Agent(system=system), at=0.0, by="").items():
        table.on_entry("agent", key, value)
        world.log.write(registry, [Message(registry.topic, value, registry_key("agent", key), 0)])


def told(world: World) -> list[str]:
    return [(step.messages or ())[0].content for step in world.node.steps_seen]


@simulated
async def test_a_job_goes_on_under_its_version(world: World) -> None:
    with pytest.MonkeyPatch.context() as patching:
        patterns = Patterns([*BUILT_IN.current.values(), Pattern("twice_asked", 1, twice_asked, TwiceAskedInput)])
        patching.setattr(app, "load", lambda _: patterns)
        table = Declarations()
        declare(world, table, "A")
        world.start("p")
        world.node.silent = 1.0
        world.produce(JOB)
        await world.until(lambda: len(world.node.steps_seen) == 1)
        world.kill("p")
        declare(world, table, "B")
        world.node.silent = 0.0
        world.start("q")
        await settled(world)
        assert set(told(world)) == {"A"}
        before = len(world.node.steps_seen)
        assert before >= 3, "asked, asked again, and the second"
        world.produce(JOB)
        await settled(world, 2)
        assert told(world)[before:] == ["B", "B"]
        accepted = [r for r in world.log.existing(events(world)).records if b'"job_accepted"' in (r.value or b"")]
        assert {headers.Envelope(record.headers).version() for record in accepted} == {4}
