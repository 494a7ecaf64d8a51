"""Commands against the in-memory log: what they print for people and for machines, and how they end."""

from __future__ import annotations

import asyncio

import pytest
from click.testing import CliRunner

from infra.cli.exits import Exit
from infra.cli.main import main
from infra.cli.topics import unread
from shared.contracts.act import Act
from shared.contracts.base import PriorityClass
from shared.contracts.credits import Credits
from shared.contracts.node import Advice, Gpu, Hardware, Node, NodeModel
from shared.kafka.port import Message, TopicPartition
from tests.support.cli_stage import NOW, TOPICS, Stage


@pytest.fixture
def stage() -> Stage:
    stage = Stage()
    assert stage.tutti("topics", "create").exit_code == 0
    return stage


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


def test_what_may_grow_grows_when_that_is_asked_for(stage: Stage) -> None:
    """Steps, mailboxes and replies; never homes, nor topics whose keys would move. It is told as an act."""
    wanted = {
        "WORK_PARTITIONS": "32",
        "STEPS_PARTITIONS": "4",
        "REPLIES_PARTITIONS": "20",
        "HOME_PARTITIONS": "12",
        "OTHER_PARTITIONS": "9",
    }
    environment = {f"TUTTI_TOPICS__{name}": value for name, value in wanted.items()}
    result = CliRunner().invoke(main, ["topics", "create", "--grow"], obj=stage.edge, env=environment)
    assert result.exit_code == 0, result.output
    assert "work.chat has 32 partitions instead of 16" in result.stdout
    counts = {row["name"]: row["present"] for row in stage.json("topics", "list")}
    assert (counts["work.embed"], counts["controls"], counts["steps.chat.batch"], counts["replies"]) == (32, 32, 4, 20)
    assert (counts["outcomes"], counts["job-events"], counts["results"], counts["steps.code.batch"]) == (6, 6, 6, 1)
    assert "outcomes has 6 partitions, the settings say 12" in result.stderr
    assert [Act.model_validate_json(record.value or b"").did for record in stage.records("acts")] == ["grow"]
    again = CliRunner().invoke(main, ["topics", "create", "--grow"], obj=stage.edge, env=environment)
    assert "instead of" not in again.stdout


def test_another_prefix_adopts_what_was_declared() -> None:
    """Under new homes: once, without what is declared there already; schedules only when they are asked for, and then they move."""
    old, new = Stage(), {"TUTTI_TOPICS__PREFIX": "b-", "TUTTI_TOPICS__HOME_PARTITIONS": "12"}

    def tutti(*arguments: str) -> str:
        done = CliRunner().invoke(main, arguments, obj=old.edge, env=new)
        assert done.exit_code == 0, done.output
        return done.stdout

    def keys(topic: str) -> dict[bytes | None, bytes | None]:
        return {record.key: record.value for record in old.records(topic)}

    old.tutti("topics", "create")
    tutti("topics", "create")
    entries = {"key/ann": b"1", "tenant/blue": b"2", "tenant/red": b"3", "agent/gone": None, "schedule/daily": b"4", "erased/grey": b"5"}
    old.write(*(Message("registry", value, key.encode(), 0, (("type", b"x"),)) for key, value in entries.items()))
    old.write(Message("b-registry", b"own", b"tenant/red", 0))
    assert tutti("topics", "adopt", "") == "key: 1\ntenant: 1\nadopted\n"
    assert keys("b-registry") == {b"tenant/red": b"own", b"key/ann": b"1", b"tenant/blue": b"2"}
    assert tutti("topics", "adopt", "") == "nothing is new\n"
    assert "schedule: 1" in tutti("topics", "adopt", "", "--schedules")
    assert keys("b-registry")[b"schedule/daily"] == b"4"
    assert keys("registry")[b"schedule/daily"] is None
    assert old.records("b-registry")[-1].headers == (("type", b"x"),)


def test_listing_shows_what_is_missing() -> None:
    """Wanted and present partitions of every topic of the registry."""
    rows = Stage().json("topics", "list")
    assert {row["name"] for row in rows} == {topic.name for topic in TOPICS.all()}
    assert all(row["present"] is None for row in rows)


def test_unread_records_are_summed_by_topic() -> None:
    """And the worst partition is shown: one stuck partition hides in a sum. What an open transaction holds back cannot be read yet."""
    committed = {TopicPartition("a", 0): 5, TopicPartition("a", 1): 0, TopicPartition("b", 0): 3}
    ends = {TopicPartition("a", 0): 9, TopicPartition("a", 1): 4, TopicPartition("b", 0): 3}
    stable = {**ends, TopicPartition("a", 0): 7}
    assert unread(committed, ends, stable) == {
        "a": {"unread": 6, "worst": 4, "held_back": 2},
        "b": {"unread": 0, "worst": 0, "held_back": 0},
    }


def test_lag_tells_what_is_held_back(stage: Stage) -> None:
    """Three records, of which two belong to an open transaction, and one is not read."""
    partition = TopicPartition(TOPICS.jobs(PriorityClass.BATCH), 0)

    async def fill() -> None:
        stage.log.write(partition, [Message(partition.topic, b"{}")])
        stage.log.begin_transaction(partition)
        stage.log.write(partition, [Message(partition.topic, b"{}")] * 2)
        stage.log.group(TOPICS.settings.prefix + "tutti-planner").offsets[partition] = 0

    asyncio.run(fill())
    node = Node(id="a", boot="1", mailbox=0, backend="ollama", at=NOW)  # whose worker has a group
    stage.write(Message(TOPICS.nodes, node.to_bytes(), b"a"))
    [row] = stage.json("topics", "lag")
    assert (row["topic"], row["unread"], row["held_back"]) == (partition.topic, 1, 2)


def test_nodes_shows_the_newest_record_of_each(stage: Stage) -> None:
    """Live, silent, draining, paused, asleep, yielding and simulated are told apart."""
    model = NodeModel(name="gemma3:270m", resident=True)
    nodes = [
        Node(id="a", boot="1", mailbox=0, backend="ollama", at=NOW - 999, models=(model,)),
        Node(id="b", boot="1", mailbox=1, backend="ollama", at=NOW, simulated=True, models=(model,)),
        Node(id="c", boot="1", mailbox=2, backend="embedded", at=NOW, draining=True),
        Node(id="d", boot="1", mailbox=3, backend="ollama", at=NOW),
        Node(id="f", boot="1", mailbox=4, backend="openai", at=NOW - 20, pause_seconds=30.0),
        Node(id="g", boot="1", mailbox=5, backend="openai", at=NOW - 40, pause_seconds=30.0),
        Node(id="h", boot="1", mailbox=6, backend="ollama", at=NOW - 9_999, asleep=True),
        Node(id="i", boot="1", mailbox=7, backend="ollama", at=NOW, yields="memory is short"),
    ]
    stage.write(*(Message(TOPICS.nodes, node.to_bytes(), node.id.encode()) for node in nodes))
    stage.write(Message(TOPICS.nodes, None, b"d"), Message(TOPICS.nodes, b"not json", b"e"))
    assert [(row["id"], row["state"]) for row in stage.json("nodes")] == [
        ("a", "silent"),
        ("b", "live"),
        ("c", "draining"),
        ("f", "paused"),
        ("g", "live"),
        ("h", "asleep"),
        ("i", "yields"),
    ]
    table = stage.tutti("nodes").stdout
    assert "ollama (simulated)" in table
    assert "gemma3:270m*" in table


def test_nodes_says_who_is_heard_and_what_is_wrong(stage: Stage) -> None:
    """What runs, by the word of this very boot; advice of the worker and of the record; one node in full."""
    model = NodeModel(name="m:70b", size_bytes=40 * 2**30, resident=True, loaded_bytes=44 * 2**30, vram_bytes=22 * 2**30)
    hardware = Hardware(
        cpu_count=8, vram_bytes=24 * 2**30, accelerator="X", members=2, gpus=(Gpu(name="X", vram_bytes=24 * 2**30, driver="580.1"),)
    )
    said = (Advice(code="swaps", level="warn", text="12 loads in an hour"),)
    facts = {"version": "0.5.1", "hardware": hardware, "tags": ("eu",), "cost_per_hour": 0.5, "advice": said}
    nodes = [
        Node(id="a", boot="1", mailbox=0, backend="ollama", at=NOW, models=(model,), **facts),
        Node(id="b", boot="1", mailbox=1, backend="ollama", at=NOW, models=(model,)),
        Node(id="c", boot="2", mailbox=2, backend="ollama", at=NOW, models=(model,), draining=True, maintenance=True),
    ]
    stage.write(*(Message(TOPICS.nodes, node.to_bytes(), node.id.encode()) for node in nodes))
    told = [Credits(node=name, boot=boot, sequence=1, mailbox=0, offers={}, read={}, running=3) for name, boot in (("a", "1"), ("b", "0"))]
    stage.write(*(Message(TOPICS.credits, one.to_bytes(), one.node.encode()) for one in told))
    rows = {row["id"]: row for row in stage.json("nodes")}
    assert {name: row["state"] for name, row in rows.items()} == {"a": "live", "b": "live", "c": "maintenance"}
    assert (rows["a"]["running"], rows["b"]["running"]) == (3, 0)
    assert {one["code"] for one in rows["a"]["advice"]} == {"swaps", "spills", "old-ollama"}
    table = stage.tutti("nodes").stdout
    assert "a: warn: 12 loads in an hour" in table
    assert "tutti nodes resume" in table
    one = stage.tutti("nodes", "show", "a").stdout
    assert one.startswith("a  live  3 of 1 slots  8 CPUs  0 B  X (24.0 GiB, driver 580.1)  split over 2 servers  0.5 an hour  eu\n")
    assert "22.0 GiB" in one
    assert "~" in one
    assert stage.tutti("nodes", "show", "z").exit_code == Exit.NOT_FOUND


def test_no_node_is_said(stage: Stage) -> None:
    """An empty table would leave a person guessing."""
    assert stage.tutti("nodes").stdout == "no node has registered; start a worker\n"


def test_missing_topics_are_not_found() -> None:
    """Exit code 4, with the command that helps."""
    result = Stage().tutti("nodes")
    assert result.exit_code == Exit.NOT_FOUND
    assert "tutti topics create" in result.stderr
