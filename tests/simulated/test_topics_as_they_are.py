"""Topics as the cluster has them, not as settings say (simulated).

Every service starts while a topic is missing: it says which, serves what it can, and goes on when the topic is there. Mailboxes and
partitions of replies that were added are used.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from shared.kafka.port import Message, NewTopic, TopicPartition
from shared.processing.topic_news import TopicNews, TopicWatch
from shared.topics import SEEN_SECONDS, Topics, TopicSettings
from tests.support.cluster import settings
from tests.support.cluster import world as worlds
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.processes import run
from tests.support.cluster.world import World

SERVICES = ("planner", "router", "worker", "delay", "ingress")
TOPICS = Topics(
    TopicSettings(
        home_partitions=settings.HOMES,
        steps_partitions=2,
        work_partitions=4,
        replies_partitions=2,
        other_partitions=2,
        capabilities=("chat", "embed"),
    )
)
NEEDED = {"jobs.standard", "steps.chat.standard", "work.chat", "outcomes", "job-events", "results", "nodes", "credits"}
"""Without these no standard chat job has a result."""


def standard_job(world: World, name: str, **fields: Any) -> None:
    job = json.dumps({"id": name, "prompt": "q", **fields}).encode()
    home = TopicPartition(TOPICS.jobs(TOPICS.class_of("jobs.standard")), 0)
    world.log.write(home, [Message(home.topic, job, name.encode(), 0)])


def watched(world: World, news: list[TopicNews]) -> asyncio.Task[None]:
    """Somebody looks at the topics now and then, as in every process."""
    return asyncio.create_task(TopicWatch(world.log.process("watch"), world.topics, world.clock, news).run())


def finished(world: World, name: str) -> bool:
    values = [
        record.value or b""
        for number in range(2)
        if (found := world.log.partition(TopicPartition(TOPICS.results, number)))
        for record in found.records
    ]
    return any(f'"job":"{name}"'.encode() in value and b'"succeeded"' in value for value in values)


def reasons(world: World, news: dict[str, TopicNews]) -> dict[str, tuple[bool, tuple[str, ...]]]:
    """Instance → what its /readyz says."""
    found = {}
    for name, instance in world.instances.items():
        own, (ready, topics) = instance.service.readiness(), news[name.split("-", maxsplit=1)[0]].readiness()
        found[name] = (own.ready and ready, own.reasons + topics)
    return found


@pytest.mark.parametrize("name", [topic.name for topic in TOPICS.all()])
def test_a_topic_that_is_missing_at_the_start_ends_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that read or write it say so; what does not need it is done; when it is there all is."""
    monkeypatch.setattr(settings, "topics", lambda: Topics(TOPICS.settings))

    async def main() -> None:
        async with World(3, FaultMix()) as world:
            made = world.log.topics[name]
            world.log.delete([name])
            news = {service: TopicNews(service, world.clock, takes_requests=service == "ingress") for service in SERVICES}
            watch = watched(world, list(news.values()))
            world.start_all()
            await asyncio.sleep(30.0)
            said: Any = reasons(world, news)
            [family] = [topic.family for topic in TOPICS.all() if topic.name == name]
            for instance, (_, why) in said.items():
                concerned = instance.split("-", maxsplit=1)[0] in (*family.written_by, *family.read_by)
                assert concerned == any(f"{name} does not exist" in reason for reason in why), (instance, why)
            assert said["ingress-1"][0] == (name != "replies")
            if name not in NEEDED:
                standard_job(world, "meanwhile")
                assert await world.until(lambda: finished(world, "meanwhile"), 30.0), said
            world.log.create([NewTopic(name, made.partitions, 1, made.config)])
            assert await world.until(lambda: all(ready for ready, _ in reasons(world, news).values()), 60.0), reasons(world, news)
            standard_job(world, "afterwards")
            assert await world.until(lambda: finished(world, "afterwards"), 60.0)
            assert not world.ended
            watch.cancel()

    run(main())


def test_mailboxes_that_were_added_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third worker finds no number until `controls` and every `work.*` have one more. Then it works: routers and planners know it."""
    few = TOPICS.settings.model_copy(update={"work_partitions": 2})
    monkeypatch.setattr(settings, "topics", lambda: Topics(few))
    monkeypatch.setattr(worlds, "MONOTONIC_SPREAD_SECONDS", 0.0)  # who looks at the topics and who takes a number share a process's clock

    async def main() -> None:
        async with World(3, FaultMix()) as world:
            watch = watched(world, [])
            world.start_all()
            await asyncio.sleep(30.0)
            [waiting] = [name for name, one in world.instances.items() if name.startswith("worker") and one.service.reader.number is None]
            assert "all 2 mailbox numbers are taken" in world.instances[waiting].service.reader.waits_for
            added = (TOPICS.controls, TOPICS.work("chat"), TOPICS.work("embed"))
            for name in added:
                assert world.instances[waiting].service.reader.number is None
                world.log.add_partitions(name, 3)
                await asyncio.sleep(SEEN_SECONDS)
            assert await world.until(lambda: world.instances[waiting].service.reader.number == 2, 30.0)
            standard_job(world, "there", needs={"node": waiting})
            assert await world.until(lambda: finished(world, "there"), 30.0)
            assert not world.log.existing(TopicPartition(TOPICS.dead_letters, 0)).records
            watch.cancel()

    run(main())


def test_numbers_that_were_added_are_taken_when_all_have_seen_them() -> None:
    """Never fewer than settings say; a mailbox needs all its topics, a partition of replies its own."""
    topics = Topics(TOPICS.settings)
    there = {topic.name: topic.partitions for topic in topics.all()}
    for grown, mailboxes in ((TOPICS.controls, 4), (TOPICS.work("chat"), 4), (TOPICS.work("embed"), 9)):
        there[grown] = 9
        topics.seen(there, 100.0)
        assert topics.mailboxes == mailboxes
    assert topics.mailboxes_to_take(100.0) == 4
    assert topics.mailboxes_to_take(100.0 + SEEN_SECONDS) == 9
    topics.seen(there | {TOPICS.replies: 5}, 200.0)
    assert (topics.reply_partitions, topics.mailboxes_to_take(200.0)) == (5, 9)
    del there[TOPICS.controls]
    topics.seen(there, 300.0)
    assert (set(topics.missing), topics.mailboxes) == ({TOPICS.controls}, 9)
