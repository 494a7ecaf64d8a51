"""Topics that change under a whole cluster: made anew, grown, away for a while; worker and ingress too (simulated, virtual time).

one topic changes ──► good jobs by Kafka, by REST and through delay all succeed, no process ends, who reads or writes it says what happened
one topic is away ──► an ingress serves what it can, refuses the rest by a typed error, and says what is missing
"""

from __future__ import annotations

from typing import Any

import pytest

from shared.kafka.port import NewTopic
from shared.topics import Topic
from tests.simulated.test_odd_records import INSTANCES, SECONDS, Ends, check, topics_of, unready
from tests.simulated.test_topic_changes import make_anew
from tests.support.cluster import processes
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.rest import Request
from tests.support.cluster.world import World
from tests.support.odd_records import FAMILIES

NOTICED_SECONDS = 30.0
"""Every service has looked at the topics since, and begun anew."""


def said(world: World, words: str) -> set[str]:
    """Services whose /readyz says so."""
    return {i.service.name for i in world.instances.values() if any(words in reason for reason in i.readiness().reasons)}


def concerned(topic: Topic) -> set[str]:
    return {name.split("-")[0] for name in INSTANCES} & {*topic.family.written_by, *topic.family.read_by}


async def told(world: World, topic: Topic, words: str, by: set[str]) -> None:
    """These services say so of the topic, and no other."""
    assert await world.until(lambda: said(world, f"{topic.name} {words}") == by, NOTICED_SECONDS), said(world, topic.name)


async def changed(family: str) -> None:
    async with World(12, FaultMix()) as world:
        ends = Ends(world)
        for name in INSTANCES:
            world.start(name)
        assert await world.until(lambda: not unready(world), SECONDS), unready(world)
        await check(world, ends, "nothing")
        for topic in [topic for topic in world.topics.all() if topic.name in topics_of(world, family)]:
            make_anew(world.log, topic.name)
            await told(world, topic, "was deleted and made anew", concerned(topic))
            await world.until(lambda: False, NOTICED_SECONDS)
            await check(world, ends, f"{topic.name} made anew")
            if topic.family.count != "home":
                world.log.add_partitions(topic.name, topic.partitions + 2)
                await told(world, topic, f"has {topic.partitions + 2} partitions", concerned(topic))
                await check(world, ends, f"{topic.name} grown")


@pytest.mark.parametrize("family", [*FAMILIES, "results", "dead-letters"])
def test_a_changed_topic_stops_nobody(family: str) -> None:
    """One topic family at a time, so that a failure names what broke it."""
    processes.run(changed(family))


CHAT = {"model": "auto", "messages": [{"role": "user", "content": "q"}]}
CALLS: tuple[tuple[str, str, Any], ...] = (
    ("GET", "/v1/models", None),
    ("POST", "/v1/chat/completions", CHAT),
    ("POST", "/v1/chat/completions", {**CHAT, "stream": True}),
    ("POST", "/v1/jobs", {"prompt": "q", "class": "standard"}),
    ("GET", "/v1/jobs/unheard-of", None),
    ("DELETE", "/v1/jobs/unheard-of", None),
)
UNAVAILABLE = (503, 504)
"""Not now, or not before the deadline."""
DEADLINE_SECONDS = 660.0
"""Longer than the default deadlines here."""


async def away(family: str) -> None:
    async with World(13, FaultMix()) as world:
        ends = Ends(world)
        for name in INSTANCES:
            world.start(name)
        assert await world.until(lambda: not unready(world), SECONDS), unready(world)
        await check(world, ends, "nothing")
        topics = [topic for topic in world.topics.all() if topic.name in topics_of(world, family)]
        world.log.delete([topic.name for topic in topics])
        for topic in topics:
            await told(world, topic, "does not exist", concerned(topic))
        calls = [Request(*call) for call in CALLS]
        for call in calls:
            world.call("ingress-1", call.run(world.instances["ingress-1"].service.asgi()))
        await world.until(lambda: all(call.answer.complete for call in calls), DEADLINE_SECONDS)
        assert [call.path for call in calls if not call.answer.complete] == []
        assert calls[0].answer.status == 200
        for call in calls[1:]:
            typed = call.answer.status < 400 or call.answer.json.get("error", call.answer.json).get("code")
            assert typed, f"{call.method} {call.path}: {call.answer}"
            assert call.answer.status < 500 or call.answer.status in UNAVAILABLE, f"{call.method} {call.path}: {call.answer}"
        world.log.create([NewTopic(topic.name, topic.partitions, 1, world.topics.config(topic)) for topic in topics])
        await world.until(lambda: False, NOTICED_SECONDS)
        await check(world, ends, f"{family} away")


@pytest.mark.parametrize("family", ["jobs", "outcomes", "nodes", "registry", "replies", "job-events"])
def test_an_ingress_serves_what_it_can(family: str) -> None:
    """With each topic that it reads or writes away, and again when that is back."""
    processes.run(away(family))
