"""`tutti jobs replay`: recorded histories run again as they were; what was changed in them is told; a fork is asked for what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import infra.cli.replay as command
from infra.cli.exits import Exit
from shared.contracts.chat import Answer
from shared.contracts.event import EVENT, JobAccepted, JobSettled, StepAsked, facts_of
from shared.contracts.headers import envelope
from shared.contracts.ids import public, qualified
from shared.contracts.job import Job
from shared.contracts.result import Result, Status
from shared.kafka.port import Message
from shared.patterns.fork import FORK, ForkInput
from shared.processing.provision import new_topics
from tests.support.cli_stage import TOPICS, Stage
from tests.support.planner_histories import FOLDER

FILES = sorted(FOLDER.glob("*.jsonl"))


@pytest.fixture
def stage() -> Stage:
    made = Stage()
    made.log.create(new_topics(TOPICS))
    return made


def written(stage: Stage, lines: list[bytes]) -> list[JobAccepted]:
    """Into each home, so that every offset is what it was. Returns the jobs whose history is whole."""
    for home in range(TOPICS.settings.home_partitions):
        stage.write(*(Message(TOPICS.job_events, line, b"k", home, envelope(json.loads(line)["type"])) for line in lines))
    return [fact for line in lines for fact in facts_of(EVENT.validate_json(line)) if isinstance(fact, JobAccepted)]


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_recorded_job_is_as_it_was(stage: Stage, path: Path) -> None:
    """The same asks, the same end: with repairs, retries, take-overs, budgets, reviews, turns, tools, out of a snapshot."""
    jobs = written(stage, lines_of(path))
    assert jobs
    for accepted in jobs:
        if accepted.job != qualified(accepted.request.tenant, public(accepted.job)):
            continue  # of a time when ids did not lie under their tenants
        if accepted.request.pattern == "nonesuch":
            assert "no pattern nonesuch" in stage.tutti("jobs", "replay", public(accepted.job)).output
            continue
        told = stage.json("jobs", "replay", public(accepted.job), "--tenant", accepted.request.tenant)
        assert told["differences"] == [], path.stem
        other = stage.tutti("jobs", "replay", public(accepted.job), "--tenant", "somebody-else")
        assert other.exit_code == Exit.NOT_FOUND
        assert "has no whole history" in other.output


def chained(stage: Stage) -> tuple[JobAccepted, str]:
    """Its first job."""
    accepted, *_ = written(stage, lines_of(FOLDER / "chain_with_repair.v2.jsonl"))
    return accepted, public(accepted.job)


def with_another_answer(line: bytes) -> list[bytes]:
    event = EVENT.validate_json(line)
    if not isinstance(event, JobSettled):
        return [line]
    *before, settled = facts_of(event)
    result = settled.result.model_copy(update={"answer": Answer(text="never said")})
    return [*(fact.to_bytes() for fact in before), settled.model_copy(update={"result": result}).to_bytes()]


def with_another_step(line: bytes) -> list[bytes]:
    event = EVENT.validate_json(line)
    return [event.model_copy(update={"step": "f" * 32}).to_bytes() if isinstance(event, StepAsked) else line]


@pytest.mark.parametrize(
    ("change", "said"), [(with_another_answer, "answer is another than the one"), (with_another_step, "asks for 0.1, the pattern does not")]
)
def test_what_was_changed_is_told(stage: Stage, change: Callable[[bytes], list[bytes]], said: str) -> None:
    """A history that somebody has touched does not pass."""
    accepted, *_ = written(stage, [new for line in lines_of(FOLDER / "chain_with_repair.v2.jsonl") for new in change(line)])
    result = stage.tutti("jobs", "replay", public(accepted.job))
    assert result.exit_code == Exit.FAILED
    assert said in result.output


def test_an_unknown_job_is_said_to_be_unknown(stage: Stage) -> None:
    """And what belongs together is checked."""
    assert stage.tutti("jobs", "replay", "nobody").exit_code == Exit.NOT_FOUND
    assert stage.tutti("jobs", "replay", "nobody", "--prompt", "x").exit_code == Exit.USAGE


def asked(stage: Stage, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[Job, str]:
    """The new job, and what was printed of both."""
    jobs: list[Job] = []

    async def submitted(job: Job, *_: Any) -> Result:
        jobs.append(job)
        return Result(job="j_2", status=Status.SUCCEEDED, accepted_at=1, finished_at=3.5, answer=Answer(text="new answer", model="m"))

    monkeypatch.setattr(command, "_submitted", submitted)
    result = stage.tutti("jobs", "replay", *arguments)
    assert result.exit_code == Exit.OK, result.output
    return jobs[0], result.output


def test_a_fork_holds_the_first_ends(stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And another answer or model where they are given; both jobs stand side by side."""
    _, job = chained(stage)
    told = stage.json("jobs", "replay", job)
    assert len(told["ends"]) >= 2
    made, shown = asked(stage, monkeypatch, job, "--fork", "1")
    given = FORK.read(made)
    assert isinstance(given, ForkInput)
    assert [end.path for end in given.ends] == [told["ends"][0]["path"]]
    assert (made.pattern, made.id, given.pattern) == ("fork", None, "chain")
    assert "new answer" in shown
    assert "2.50" in shown
    file = tmp_path / "answer"
    file.write_text("otherwise")
    made, _ = asked(stage, monkeypatch, job, "--fork", "1", "--answer", str(file), "--model", "other:1b", "--prompt", "p")
    given = FORK.read(made)
    assert isinstance(given, ForkInput)
    assert given.ends[0].answer is not None
    assert (given.ends[0].answer.text, made.model, given.prompt) == ("otherwise", "other:1b", "p")
    assert stage.tutti("jobs", "replay", job, "--fork", "99").exit_code == Exit.USAGE
    assert stage.tutti("jobs", "replay", job, "--fork", "0", "--answer", str(file)).exit_code == Exit.USAGE


def test_with_another_model_it_is_the_same_job(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for its id and its time; one of a conversation is refused."""
    accepted, job = chained(stage)
    made, _ = asked(stage, monkeypatch, job, "--model", "other:1b")
    assert (made.pattern, made.pattern_input, made.prompt) == ("chain", accepted.request.pattern_input, accepted.request.prompt)
    assert (made.model, made.fallback_models, made.id, made.deadline_at) == ("other:1b", (), None, None)


def test_a_job_of_a_conversation_is_not_asked_again(stage: Stage) -> None:
    """It would read what is said by now."""
    (talk, *_) = written(stage, lines_of(FOLDER / "talks.v5.jsonl"))
    refused = stage.tutti("jobs", "replay", public(talk.job), "--tenant", talk.request.tenant, "--model", "other:1b")
    assert refused.exit_code == Exit.USAGE
