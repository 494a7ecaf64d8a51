"""Topics are created from the registry with their configuration, and wrong partition counts are refused."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from infra.lab import virtual_loop
from shared.clock import LoopClock
from shared.errors import ConfigurationError
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.port import NewTopic
from shared.processing.provision import GRACE_SECONDS, differing, ensure_topics, first_look, new_topics
from shared.topics import Topics, TopicSettings

TOPICS = Topics(TopicSettings(prefix="x-", home_partitions=4))


async def test_every_topic_of_the_registry_is_created_once() -> None:
    """Names, partition counts, replication and configuration are the registry's; a second run creates nothing."""
    log = MemoryLog()
    created = await ensure_topics(log, TOPICS)
    assert created == [topic.name for topic in TOPICS.all()]
    assert log.topics["x-job-events"].partitions == 4
    assert log.topics["x-job-events"].config["retention.bytes"] == "-1"
    assert log.topics["x-nodes"].config["cleanup.policy"] == "compact"
    assert await ensure_topics(log, TOPICS) == []


def test_every_topic_takes_the_arrival_time() -> None:
    """A record dated by its event time would be deleted unread: no sender's clock decides about retention, on any topic."""
    assert {topic.config["message.timestamp.type"] for topic in new_topics(TOPICS)} == {"LogAppendTime"}


async def test_an_existing_topic_that_is_configured_otherwise_is_told_and_left(caplog: pytest.LogCaptureFixture) -> None:
    """Each difference by name, with both values; topics as the registry wants them are not mentioned."""
    log = MemoryLog()
    wanted = {topic.name: topic for topic in new_topics(TOPICS)}
    log.create([replace(wanted["x-jobs.batch"], config={**wanted["x-jobs.batch"].config, "message.timestamp.type": "CreateTime"})])
    created = await ensure_topics(log, TOPICS)
    assert "x-jobs.batch" not in created
    [line] = await differing(await log.admin(), TOPICS)
    assert "x-jobs.batch: message.timestamp.type is CreateTime, not LogAppendTime" in line
    assert log.topics["x-jobs.batch"].config["message.timestamp.type"] == "CreateTime"
    assert "topic_differs" in caplog.text


@pytest.mark.parametrize("topic", ["x-outcomes", "x-job-events", "x-jobs.batch"])
@pytest.mark.parametrize("count", [3, 5])
async def test_home_topics_with_another_count_are_refused(topic: str, count: int) -> None:
    """More or fewer partitions than the settings say would break co-partitioning: nothing is created, the message names the topic."""
    log = MemoryLog()
    log.create([NewTopic(topic, count, 1, {})])
    with pytest.raises(ConfigurationError, match=f"{topic} has {count} partitions, not 4"):
        await ensure_topics(log, TOPICS)
    assert list(log.topics) == [topic]


async def test_other_topics_may_have_grown_but_not_shrunk() -> None:
    """`work` grows with the mailboxes; fewer than the settings say means that some mailbox does not exist."""
    log = MemoryLog()
    log.create([NewTopic("x-work.chat", 64, 1, {})])
    await ensure_topics(log, TOPICS)
    fewer = MemoryLog()
    fewer.create([NewTopic("x-work.chat", 2, 1, {})])
    with pytest.raises(ConfigurationError, match=r"x-work\.chat has 2"):
        await ensure_topics(fewer, TOPICS)


def test_a_service_begins_without_what_is_missing() -> None:
    """Not while the cluster is away; at once when the last topic is there; and otherwise after a moment, knowing what is not."""

    async def scenario() -> None:
        log, topics = MemoryLog(LoopClock()), Topics(TOPICS.settings)
        wanted = new_topics(topics)
        log.create(wanted[:-1])
        log.go_away("fails")
        looking = asyncio.ensure_future(first_look(log, topics, log.clock))
        await log.clock.sleep(60.0)
        assert not looking.done()
        log.come_back()
        await asyncio.wait_for(looking, 2 * GRACE_SECONDS)
        assert topics.missing == {wanted[-1].name}
        looking = asyncio.ensure_future(first_look(log, topics, log.clock))
        await log.clock.sleep(GRACE_SECONDS / 2)
        log.create(wanted[-1:])
        await asyncio.wait_for(looking, GRACE_SECONDS)
        assert not topics.missing

    virtual_loop.run(scenario())
