"""`tutti models beliefs`: what homes have told, added up; forgotten by an entry, which is told on `acts` first."""

from __future__ import annotations

import json

import pytest

from infra.cli.adopt import adopted, newest
from infra.cli.exits import Exit
from shared.agents.beliefs import Beliefs, Judgement
from shared.contracts.beliefs import KIND
from shared.kafka.port import Message
from shared.processing.registry import registry_key
from tests.support.cli_stage import TOPICS, Stage


@pytest.fixture
def stage() -> Stage:
    stage = Stage()
    assert stage.tutti("topics", "create").exit_code == 0
    return stage


def tell(stage: Stage, home: int, offset: int, *said: Judgement) -> None:
    known = Beliefs()
    known.count(home, 0, offset, said)
    stage.write(*(Message(TOPICS.registry, value, registry_key(KIND, name), 0) for name, value in known.to_tell()))


GOOD, BAD = Judgement("m:1", "code", True), Judgement("m:1", "code", False)


def test_homes_are_added_up_and_odd_entries_passed_over(stage: Stage) -> None:
    assert stage.tutti("models", "beliefs").output == "no judge has said anything of a model's answer\n"
    tell(stage, 0, 1, GOOD)
    tell(stage, 1, 1, BAD, Judgement("m:1", "other", True))
    stage.write(
        Message(TOPICS.registry, b"odd", registry_key(KIND, "2"), 0), Message(TOPICS.registry, b"{}", registry_key("tenant", "a"), 0)
    )
    assert stage.json("models", "beliefs") == [
        {"model": "m:1", "kind": "code", "good": 1.0, "bad": 1.0},
        {"model": "m:1", "kind": "other", "good": 1.0, "bad": 0.0},
    ]
    assert stage.tutti("models", "beliefs").output.splitlines()[1].split() == ["m:1", "code", "2.0", "50%"]


def test_an_administrator_has_a_model_forgotten(stage: Stage) -> None:
    tell(stage, 0, 1, GOOD, Judgement("n:latest", "code", True))
    assert stage.tutti("models", "beliefs", "--forget", "n").exit_code == 0
    assert [row["model"] for row in stage.json("models", "beliefs")] == ["m:1"]
    assert stage.tutti("models", "beliefs", "--forget", "all").exit_code == 0
    assert stage.json("models", "beliefs") == []
    told = [json.loads(record.value or b"") for record in stage.records(TOPICS.acts)]
    assert [(act["did"], act["kind"], act["name"]) for act in told] == [("forget", "beliefs", "n:latest"), ("forget", "beliefs", "all")]
    assert stage.tutti("models", "beliefs", "--forget", "a\nb").exit_code == Exit.USAGE


def test_beliefs_are_not_adopted_since_they_name_offsets(stage: Stage) -> None:
    tell(stage, 0, 1, GOOD)
    assert adopted(newest(stage.records(TOPICS.registry)), {}, schedules=True) == []
