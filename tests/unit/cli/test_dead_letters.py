"""`tutti dead-letters` against the in-memory log: what is shown, chosen, sent again, deleted; and what a planner makes of a replay."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from infra.cli.exits import Exit
from infra.cli.main import main
from infra.lab import virtual_loop
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.headers import MADE_BY, REPLAY_OF
from shared.kafka.port import Message, TopicPartition
from shared.processing.replay import Letter, original
from tests.support.cli_stage import NOW, TOPICS, Stage
from tests.support.planner_world import World

JOBS = TOPICS.all_jobs()[0]


@pytest.fixture
def stage() -> Stage:
    stage = Stage()
    assert stage.tutti("topics", "create").exit_code == 0
    return stage


def letter(offset: int, **fields: Any) -> DeadLetter:
    base: dict[str, Any] = {
        "topic": JOBS,
        "partition": 3,
        "offset": offset,
        "timestamp": 1_700_000_000_123,
        "service": "planner",
        "reason": "the job has an unknown field `promt`",
        "code": "invalid_record",
        "key": b"key",
        "value": b'{"promt": "a"}',
        "headers": (("type", b"job"), ("x", b"\xff")),
        "at": NOW + offset,
    }
    return DeadLetter(**base | fields)


def keep(stage: Stage, *letters: DeadLetter, partition: int | None = None) -> None:
    stage.write(*(Message(TOPICS.dead_letters, each.to_bytes(), b"k%d" % n, partition) for n, each in enumerate(letters)))


def test_dead_letters_are_listed_newest_last_without_values(stage: Stage) -> None:
    """They may hold prompts."""
    keep(stage, *map(letter, range(5)))
    rows = stage.json("dead-letters", "list", "--limit", "3")
    assert [row["offset"] for row in rows] == [2, 3, 4]
    assert 'promt\\": \\"a' not in json.dumps(rows)


@pytest.mark.parametrize(
    ("options", "offsets"),
    [
        (("--topic", "other"), []),
        (("--topic", JOBS), [0, 1, 2, 3, 4]),
        (("--reason", "too_large"), [1]),
        (("--reason", "Exceeds"), [1]),
        (("--tenant", "team"), [2]),
        (("--tenant", "default"), [0, 1, 3]),
        (("--key", "mine"), [3]),
        (("--since", "2023-11-14T22:13:23Z"), [3, 4]),
        (("--until", "2023-11-14T22:13:23+00:00"), [0, 1, 2]),
        (("--since", "100s", "--until", "2023-11-14T22:13:21Z"), [0]),
        (("--since", "2h", "--tenant", "team", "--key", "key"), [2]),
    ],
)
def test_filters_choose(stage: Stage, options: tuple[str, ...], offsets: list[int]) -> None:
    """By topic, reason, time, tenant, key; all that are given must hold."""
    keep(
        stage,
        letter(0),
        letter(1, code="too_large", reason="the job exceeds 64 kB", value=b'{"prompt": "cut off he', truncated=True),
        letter(2, value=b'{"tenant": "team"}'),
        letter(3, key=b"mine"),
        letter(4, value=b"\xff"),
    )
    assert sorted(row["offset"] for row in stage.json("dead-letters", "list", *options)) == offsets


@pytest.mark.parametrize("when", ["yesterday", "2026-01-01", "2026-01-01T00:00:00", "5"])
def test_an_instant_that_is_none_is_a_usage_error(stage: Stage, when: str) -> None:
    """With examples of what is one."""
    result = stage.tutti("dead-letters", "list", "--since", when)
    assert result.exit_code == Exit.USAGE
    assert "30m" in result.stderr


def test_a_dead_letter_is_shown_whole(stage: Stage) -> None:
    """Text as text, other bytes as base64, nothing that moves a terminal's cursor."""
    keep(stage, letter(1, value=b"\x1b[2Jwiped"), partition=2)
    shown = stage.json("dead-letters", "show", "2:0")
    assert shown["headers"] == {"type": "job", "x": "base64:/w=="}
    assert shown["value"] == "\x1b[2Jwiped"
    assert "\x1b" not in stage.tutti("dead-letters", "show", "2:0").stdout


def test_an_unknown_dead_letter_is_not_found(stage: Stage) -> None:
    """Exit code 4."""
    assert stage.tutti("dead-letters", "show", "0:9").exit_code == Exit.NOT_FOUND


def test_replay_sends_the_original_bytes_home(stage: Stage) -> None:
    """Same topic, partition, key, value and headers, and one header that tells where it lay."""
    keep(stage, letter(7), partition=1)
    assert stage.tutti("dead-letters", "replay", "1:0").exit_code == 0
    (record,) = stage.records(JOBS)
    assert (record.partition, record.key, record.value) == (3, b"key", b'{"promt": "a"}')
    assert list(record.headers) == [("type", b"job"), ("x", b"\xff"), (REPLAY_OF, f"{JOBS}/3/7/1700000000123".encode())]


def test_a_replay_that_died_again_keeps_its_first_origin() -> None:
    """However often it goes round it is the same record; an old mark that tells no origin is replaced."""
    first = original(Letter("1:0", letter(7)))
    again = original(Letter("1:9", letter(90, headers=first.headers)))
    assert again.headers == first.headers
    old = original(Letter("1:0", letter(7, timestamp=None, headers=((REPLAY_OF, b"dead-letters/1/0"),))))
    assert old.headers == ((REPLAY_OF, f"{JOBS}/3/7/0".encode()),)


def test_replay_of_a_part_is_refused_and_nothing_is_sent(stage: Stage) -> None:
    """All or nothing: what was cut cannot be sent again."""
    keep(stage, letter(1), letter(2, truncated=True), partition=0)
    assert stage.tutti("dead-letters", "replay", "0:0", "0:1").exit_code == Exit.FAILED
    assert stage.records(JOBS) == []


def test_replay_by_filter_asks_first(stage: Stage) -> None:
    """No: nothing. --yes: what the filter chooses. Neither ids nor filter: a usage error."""
    keep(stage, letter(1), letter(2, key=b"mine"), letter(3, key=b"mine"))
    assert stage.tutti("dead-letters", "replay").exit_code == Exit.USAGE
    assert stage.tutti("dead-letters", "replay", "0:0", "--all").exit_code == Exit.USAGE
    declined = CliRunner().invoke(main, ["dead-letters", "replay", "--key", "mine"], obj=stage.edge, input="n\n")
    assert declined.exit_code == 1
    assert stage.records(JOBS) == []
    sent = stage.tutti("dead-letters", "replay", "--key", "mine", "--yes")
    assert sent.stdout.count(f"-> {JOBS}/3/") == 2
    assert len(stage.records(JOBS)) == 2
    assert stage.tutti("dead-letters", "replay", "--key", "nobody").stdout == "no dead letters\n"


def test_purge_deletes_from_the_beginning(stage: Stage) -> None:
    """In front of a letter; before a moment; all. It asks first, and counts."""
    keep(stage, *map(letter, range(6)), partition=1)
    keep(stage, letter(6), partition=2)
    assert stage.tutti("dead-letters", "purge").exit_code == Exit.USAGE
    assert stage.tutti("dead-letters", "purge", "--before", "nonsense").exit_code == Exit.USAGE
    assert stage.tutti("dead-letters", "purge", "--before", "99:0", "--yes").exit_code == Exit.NOT_FOUND
    declined = CliRunner().invoke(main, ["dead-letters", "purge", "--all"], obj=stage.edge, input="n\n")
    assert (declined.exit_code, len(stage.json("dead-letters", "list"))) == (1, 7)
    assert stage.tutti("dead-letters", "purge", "--before", "1:4", "--yes").stdout == "4 dead letters deleted\n"
    assert [row["id"] for row in stage.json("dead-letters", "list")] == ["1:4", "1:5", "2:0"]
    assert stage.tutti("dead-letters", "purge", "--until", "2020-01-01T00:00:00Z", "--yes").stdout == "0 dead letters deleted\n"
    assert stage.tutti("dead-letters", "purge", "--until", "2100-01-01T00:00:00Z", "--yes").stdout == "3 dead letters deleted\n"
    assert stage.json("dead-letters", "list") == []
    assert stage.tutti("dead-letters", "purge", "--all", "--yes").stdout == "0 dead letters deleted\n"


async def _replayed_twice() -> None:
    async with World() as world:
        world.start("p1")
        for value in (b'{"prompt": "q"}', b'{"prompt": "q", "id": "mine"}', b'{"prompt": "q", "id": "j_own"}'):
            message = original(Letter("0:0", letter(7, topic="jobs.standard", partition=0, value=value, headers=((MADE_BY, b"ingress"),))))
            for _ in range(3):
                world.log.write(TopicPartition(message.topic, 0), [message])
                await world.clock.sleep(5.0)
        assert len(world.results()) == 3
        assert all(len(values) == 1 for values in world.results().values())
        assert world.node.runs == 3


def test_a_job_replayed_three_times_runs_once() -> None:
    """Without an id, with the caller's, with one that an ingress made: one job, one run, one result, also after its end."""
    virtual_loop.run(_replayed_twice())


async def _replayed_at_once() -> None:
    async with World() as world:
        world.start("p1")
        message = original(Letter("0:0", letter(7, topic="jobs.standard", partition=0, value=b'{"prompt": "q"}', headers=())))
        world.log.write(TopicPartition(message.topic, 0), [message] * 5)
        await world.clock.sleep(5.0)
        world.kill("p1")
        world.start("p2")
        await world.clock.sleep(30.0)
        world.log.write(TopicPartition(message.topic, 0), [message])
        await world.clock.sleep(5.0)
        assert len(world.results()) == 1
        assert world.node.runs == 1


def test_a_replay_is_recognised_by_the_planners_successor() -> None:
    """Its id is remembered in history."""
    virtual_loop.run(_replayed_at_once())
