"""The promise: `tutti verify` finds every kind of violation in a real Kafka, says nothing about a sound cluster, and shows where.

What: hand-made histories, one kind of violation a home, are written into topics of their own; the command reads them.
How: tests/support/violations.py; the same stories are checked on the in-memory log by the unit tests.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import pytest

from infra.native.topics import delete_topics, ensure_topics
from shared.clock import SystemClock
from shared.kafka.client.aio import AioLog
from shared.topics import Topics, TopicSettings
from tests.support.violations import VIOLATIONS, Story, whole

pytestmark = pytest.mark.kafka

STORIES = list(VIOLATIONS)


def _topics(homes: int) -> Topics:
    prefix = f"verify-{Random().getrandbits(32):08x}-"
    return Topics(TopicSettings(prefix=prefix, home_partitions=homes, other_partitions=2, steps_partitions=1, work_partitions=1))


async def _tell(servers: str, topics: Topics, stories: Sequence[Callable[[Story], None]]) -> None:
    log = AioLog(servers, SystemClock())
    producer = await log.producer(client_id="storyteller")
    consumer = await log.consumer(client_id="storyteller", group=f"{topics.settings.prefix}tutti-planner")
    told = []
    for home, tell in enumerate(stories):
        story = Story(topics, home)
        story.started()
        story.life("before")
        tell(story)
        told.append(story)
    sent = await producer.send_many([message for story in told for message in story.messages])
    assert not [fate for fate in sent if isinstance(fate, Exception)]
    committed = {partition: offset for story in told for partition, offset in story.committed.items()}
    consumer.assign(list(committed))
    await consumer.commit(committed)
    await consumer.close()
    await producer.close()
    await log.close()


@pytest.fixture
def written(kafka: str) -> Iterator[Callable[[Sequence[Callable[[Story], None]]], dict[str, str]]]:
    """Writes stories, one a home; returns the environment of a command that reads them."""
    made: list[Topics] = []

    def write(stories: Sequence[Callable[[Story], None]]) -> dict[str, str]:
        topics = _topics(len(stories))
        ensure_topics(kafka, topics)
        made.append(topics)
        asyncio.run(_tell(kafka, topics, stories))
        counts = {"HOME": topics.settings.home_partitions, "OTHER": 2, "STEPS": 1, "WORK": 1}
        settings = {f"TUTTI_TOPICS__{name}_PARTITIONS": str(count) for name, count in counts.items()}
        return {**settings, "TUTTI_KAFKA_SERVERS": kafka, "TUTTI_TOPICS__PREFIX": topics.settings.prefix}

    yield write
    for topics in made:
        delete_topics(kafka, topics)


def verify(environment: dict[str, str], *options: str) -> tuple[int, Any]:
    command = [sys.executable, "-m", "infra.cli", "verify", "--json", *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environment})
    return ended.returncode, json.loads(ended.stdout) if ended.stdout else ended.stderr


def test_every_kind_of_violation_is_found_where_it_lies(written: Any) -> None:
    """As many of each kind as were planted, each on the home where it was planted."""
    code, report = verify(written(STORIES))
    assert code == 1
    found = {finding["kind"]: finding for finding in report["findings"]}
    planted = [kind.value for kind in VIOLATIONS.values()]
    assert {kind: finding["count"] for kind, finding in found.items()} == {kind: planted.count(kind) for kind in planted}
    for home, kind in enumerate(planted):
        assert any(e["job"].endswith(f"-{home}") or f"/{home}/" in e["place"] for e in found[kind]["examples"])


def test_a_sound_cluster_is_silent(written: Any) -> None:
    """Whatever looks strange and is right; and with --settled the three jobs that are open are named."""
    environment = written([whole, whole])
    code, report = verify(environment)
    assert (code, report["findings"]) == (0, [])
    code, report = verify(environment, "--settled")
    assert (code, report["lost"]) == (1, 6)


def test_kafka_away_is_no_verdict() -> None:
    """Exit code 3, as for every command, and one line."""
    code, text = verify({"TUTTI_KAFKA_SERVERS": "127.0.0.1:1"})
    assert code == 3
    assert text.startswith("tutti: Kafka at 127.0.0.1:1 does not answer")
