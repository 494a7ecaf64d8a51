"""What a record holds is that record's affair: odd records of every kind on every topic, in a whole cluster (simulated, virtual time).

odd record ──► any partition of any topic        good jobs before and behind it, by Kafka, by REST and through delay: all succeed
                                                 no process ends, all are ready, positions pass what is odd
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from shared.contracts.base import PriorityClass
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.result import Result, Status
from shared.kafka.memory.memory_partition import MemoryRecord
from shared.kafka.port import Message, TopicPartition
from tests.support.cluster import processes
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.rest import Request
from tests.support.cluster.settings import HOMES
from tests.support.cluster.world import World
from tests.support.odd_records import FAMILIES, KINDS

INSTANCES = ("planner-1", "router-1", "worker-1", "delay-1", "ingress-1", "sink-1", "critic-1", "cache-1")
OWNED = ("jobs", "outcomes", "steps", "work", "controls", "delays", "critiques", "cache")
"""Whoever reads these records owns them: what is refused becomes a dead letter."""
SECONDS = 60.0


def topics_of(world: World, family: str) -> list[str]:
    return [topic.name for topic in world.topics.all() if topic.name.split(".")[0] == family]


class Ends:
    """Job → how it ended, as it is published."""

    def __init__(self, world: World) -> None:
        self._topic = world.topics.results
        self.status: dict[str, Status] = {}
        world.log.written_listeners[:] = [self._on_written]  # the laws' own readers want sound records

    def _on_written(self, records: Sequence[MemoryRecord]) -> None:
        if records[0].topic == self._topic:
            for record in records:
                result = Result.model_validate_json(record.value or b"")
                self.status[result.job] = result.status


def unready(world: World) -> list[str]:
    states = {name: instance.service.readiness() for name, instance in world.instances.items()}
    return [f"{name}: {', '.join(state.reasons)}" for name, state in states.items() if not state.ready]


def submit(world: World, home: int, id_: str, **fields: Any) -> None:
    topic = world.topics.jobs(PriorityClass.STANDARD)
    body = json.dumps({"id": id_, "prompt": "q", **fields}).encode()
    world.log.write(TopicPartition(topic, home), [Message(topic, body, id_.encode(), home)])


async def check(world: World, ends: Ends, after: str) -> None:
    """Good jobs of every way in succeed, and everybody is well."""
    name = f"good{len(ends.status)}"
    wanted = [f"{name}-{home}" for home in range(HOMES)]
    for home, id_ in enumerate(wanted):
        submit(world, home, id_)
    submit(world, 0, f"{name}-later", not_before=world.clock.wall() + 3.0)
    wanted.append(f"{name}-later")
    request = Request("POST", "/v1/chat/completions", {"model": "auto", "messages": [{"role": "user", "content": "q"}]})
    world.call("ingress-1", request.run(world.instances["ingress-1"].service.asgi()))
    done = await world.until(lambda: ends.status.keys() >= set(wanted) and request.answer.complete, SECONDS)
    missing = [id_ for id_ in wanted if ends.status.get(id_) is not Status.SUCCEEDED]
    assert world.ended == [], f"after {after}"
    assert not missing, f"after {after}: not succeeded; {unready(world)}"
    assert done, f"after {after}: REST has no answer"
    assert request.answer.status == 200, f"after {after}: {request.answer}"
    assert unready(world) == [], f"after {after}"


async def odd_records_on(family: str) -> None:
    async with World(11, FaultMix()) as world:
        ends = Ends(world)
        for name in INSTANCES:
            world.start(name)
        assert await world.until(lambda: not unready(world), SECONDS), unready(world)
        partitions = [TopicPartition(topic, n) for topic in topics_of(world, family) for n in range(world.log.partition_count(topic))]
        assert partitions
        for kind, write in KINDS.items():
            for tp in partitions:
                write(world.log, tp)
            await check(world, ends, f"{kind} on {family}")
        if family in OWNED:
            await told(world, partitions)


async def told(world: World, partitions: list[TopicPartition]) -> None:
    """Every odd record is a dead letter that says where it lay and why, as far as its partition has a reader."""
    letters = [
        DeadLetter.model_validate_json(record.value or b"")
        for number in range(world.log.partition_count(world.topics.dead_letters))
        for record in world.log.existing(TopicPartition(world.topics.dead_letters, number)).records
    ]
    assert all(letter.reason for letter in letters)
    read = {(letter.topic, letter.partition) for letter in letters}
    assert read & set(partitions)
    for tp in read & set(partitions):
        spoilt = [letter for letter in letters if (letter.topic, letter.partition) == tp and "spoilt" in letter.reason]
        assert len(spoilt) == 1, tp


@pytest.mark.parametrize("family", FAMILIES)
def test_odd_records_stop_nobody(family: str) -> None:
    """One topic family at a time, so that a failure names what broke it."""
    processes.run(odd_records_on(family))
