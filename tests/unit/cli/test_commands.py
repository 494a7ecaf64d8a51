"""Commands against the in-memory log: what they print for people and for machines, and how they end."""

from __future__ import annotations

import asyncio
import json
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner, Result

from infra.cli.cluster import Edge
from infra.cli.exits import Exit
from infra.cli.main import main
from infra.cli.topics import unread
from shared.clock import LoopClock, ManualClock
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.node import Node, NodeModel
from shared.kafka.memory import MemoryLog
from shared.kafka.port import Message, Record, TopicPartition
from shared.topics import Topics

TOPICS = Topics()
NOW = 1_700_000_000.0


class Stage:
    """A cluster in memory, and `tutti` in front of it."""

    def __init__(self) -> None:
        self.log = MemoryLog(LoopClock())
        self.edge = Edge(open_log=lambda _settings, _clock: self.log, clock=ManualClock(NOW), random=Random(7))

    def tutti(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, arguments, obj=self.edge, catch_exceptions=False)

    def json(self, *arguments: str) -> Any:
        result = self.tutti(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def write(self, *messages: Message) -> None:
        async def send() -> None:
            producer = await self.log.producer(client_id="test")
            for message in messages:
                await producer.send(message)

        asyncio.run(send())

    def records(self, topic: str) -> list[Record]:
        async def read() -> list[Record]:
            consumer = await self.log.consumer(client_id="test")
            admin = await self.log.admin()
            partitions = [TopicPartition(topic, n) for n in range((await admin.list_topics())[topic].partitions)]
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            found: list[Record] = []
            while len(found) < sum(ends.values()):
                for records in (await consumer.poll(timeout_seconds=1)).values():
                    found += records
            return found

        return asyncio.run(read())


@pytest.fixture
def stage() -> Stage:
    stage = Stage()
    assert stage.tutti("topics", "create").exit_code == 0
    return stage


def letter(offset: int, *, topic: str | None = None, truncated: bool = False, value: bytes = b'{"promt": "a"}') -> DeadLetter:
    return DeadLetter(
        topic=topic or TOPICS.all_jobs()[0],
        partition=3,
        offset=offset,
        service="planner",
        reason="the job has an unknown field `promt`",
        code="invalid_record",
        key=b"key",
        value=value,
        headers=(("type", b"job"), ("x", b"\xff")),
        truncated=truncated,
        at=NOW + offset,
    )


def test_topics_are_created_once() -> None:
    """The second time nothing is missing."""
    stage = Stage()
    first, second = stage.tutti("topics", "create"), stage.tutti("topics", "create")
    assert f"{len(list(TOPICS.all()))} topics created" in first.stdout
    assert second.stdout == "all topics exist\n"


def test_a_topic_with_other_partitions_is_told(stage: Stage) -> None:
    """It is left as it is; the command says so."""
    stage.edge.open_log = lambda _settings, _clock: stage.log
    result = CliRunner().invoke(main, ["topics", "create"], obj=stage.edge, env={"TUTTI_TOPICS__WORK_PARTITIONS": "32"})
    assert result.exit_code == 0
    assert "work.chat has 16 partitions, the settings say 32" in result.stderr


def test_listing_shows_what_is_missing() -> None:
    """Wanted and present partitions of every topic of the registry."""
    rows = Stage().json("topics", "list")
    assert {row["name"] for row in rows} == {topic.name for topic in TOPICS.all()}
    assert all(row["present"] is None for row in rows)


def test_unread_records_are_summed_by_topic() -> None:
    """And the worst partition is shown: one stuck partition hides in a sum."""
    committed = {TopicPartition("a", 0): 5, TopicPartition("a", 1): 0, TopicPartition("b", 0): 3}
    ends = {TopicPartition("a", 0): 7, TopicPartition("a", 1): 4, TopicPartition("b", 0): 3}
    assert unread(committed, ends) == {"a": {"unread": 6, "worst": 4}, "b": {"unread": 0, "worst": 0}}


def test_nodes_shows_the_newest_record_of_each(stage: Stage) -> None:
    """Live, silent, draining and simulated are told apart."""
    model = NodeModel(name="gemma3:270m", resident=True)
    nodes = [
        Node(id="a", boot="1", mailbox=0, backend="ollama", at=NOW - 999, models=(model,)),
        Node(id="b", boot="1", mailbox=1, backend="ollama", at=NOW, simulated=True, models=(model,)),
        Node(id="c", boot="1", mailbox=2, backend="embedded", at=NOW, draining=True),
        Node(id="d", boot="1", mailbox=3, backend="ollama", at=NOW),
    ]
    stage.write(*(Message(TOPICS.nodes, node.to_bytes(), node.id.encode()) for node in nodes))
    stage.write(Message(TOPICS.nodes, None, b"d"), Message(TOPICS.nodes, b"not json", b"e"))
    assert [(row["id"], row["state"]) for row in stage.json("nodes")] == [("a", "silent"), ("b", "live"), ("c", "draining")]
    table = stage.tutti("nodes").stdout
    assert "ollama (simulated)" in table
    assert "gemma3:270m*" in table


def test_no_node_is_said(stage: Stage) -> None:
    """An empty table would leave a person guessing."""
    assert stage.tutti("nodes").stdout == "no node has registered; start a worker\n"


def test_missing_topics_are_not_found() -> None:
    """Exit code 4, with the command that helps."""
    result = Stage().tutti("nodes")
    assert result.exit_code == Exit.NOT_FOUND
    assert "tutti topics create" in result.stderr


def test_dead_letters_are_listed_newest_last_without_values(stage: Stage) -> None:
    """They may hold prompts."""
    stage.write(*(Message(TOPICS.dead_letters, letter(n).to_bytes(), b"k%d" % n) for n in range(5)))
    rows = stage.json("dead-letters", "list", "--limit", "3")
    assert [row["offset"] for row in rows] == [2, 3, 4]
    assert 'promt\\": \\"a' not in json.dumps(rows)
    assert stage.json("dead-letters", "list", "--topic", "other") == []


def test_a_dead_letter_is_shown_whole(stage: Stage) -> None:
    """Text as text, other bytes as base64, nothing that moves a terminal's cursor."""
    stage.write(Message(TOPICS.dead_letters, letter(1, value=b"\x1b[2Jwiped").to_bytes(), partition=2))
    shown = stage.json("dead-letters", "show", "2:0")
    assert shown["headers"] == {"type": "job", "x": "base64:/w=="}
    assert shown["value"] == "\x1b[2Jwiped"
    assert "\x1b" not in stage.tutti("dead-letters", "show", "2:0").stdout


def test_an_unknown_dead_letter_is_not_found(stage: Stage) -> None:
    """Exit code 4."""
    assert stage.tutti("dead-letters", "show", "0:9").exit_code == Exit.NOT_FOUND


def test_replay_sends_the_original_bytes_home(stage: Stage) -> None:
    """Same topic, partition, key, value and headers, and one header that tells where it comes from."""
    stage.write(Message(TOPICS.dead_letters, letter(7).to_bytes(), partition=1))
    assert stage.tutti("dead-letters", "replay", "1:0").exit_code == 0
    (record,) = stage.records(TOPICS.all_jobs()[0])
    assert (record.partition, record.key, record.value) == (3, b"key", b'{"promt": "a"}')
    assert list(record.headers) == [("type", b"job"), ("x", b"\xff"), ("replay-of", b"dead-letters/1/0")]


def test_replay_of_a_part_is_refused_and_nothing_is_sent(stage: Stage) -> None:
    """All or nothing: what was cut cannot be sent again."""
    stage.write(Message(TOPICS.dead_letters, letter(1).to_bytes(), partition=0))
    stage.write(Message(TOPICS.dead_letters, letter(2, truncated=True).to_bytes(), partition=0))
    assert stage.tutti("dead-letters", "replay", "0:0", "0:1").exit_code == Exit.FAILED
    assert stage.records(TOPICS.all_jobs()[0]) == []
