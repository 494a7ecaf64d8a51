"""Recorded histories: jobs that are in flight while the planner is replaced go on under the new one as they began.

The files under `histories` are logs of `job-events` as an earlier planner wrote them (tests/support/planner_histories.py says how). They
are frozen: a change of code that cannot replay one of them breaks jobs in flight. It needs a new version of the pattern, beside the old.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from random import Random
from typing import Any

import pytest

from services.planner.draft import Publish
from services.planner.history.recovery import Replay
from services.planner.job.live import LiveJob
from services.planner.round import Round
from services.planner.state.book import Book
from services.planner.state.policy import Policy
from shared.contracts.chat import FinishReason
from shared.contracts.event import EVENT, JobSettled, JobSnapshot, PlannerStarted, StepAnswered, StepAsked, facts_of
from shared.contracts.failure import FailureKind
from shared.contracts.result import Result, Status
from tests.support.planner_histories import FOLDER, LIVES, recorded

FILES = sorted(FOLDER.glob("*.jsonl"))
Line = tuple[int, bytes]


def name_of(path: Path) -> str:
    return path.stem


@pytest.fixture(params=FILES, ids=name_of)
def history(request: pytest.FixtureRequest) -> list[Line]:
    """(offset, value) of every record."""
    return list(enumerate(request.param.read_bytes().splitlines()))


def replayed(history: list[Line]) -> tuple[Replay, Book, Round]:
    """A successor's replay, not yet finished."""
    book = Book(0, Policy(), Random(0))
    book.epoch = history[-1][0] + 1
    round_ = Round.of(book, 1_800_000_000.0, 1_000_000.0)
    replay = Replay(round_)
    for offset, value in history:
        replay.fold(offset, value)
    return replay, book, round_


def events(history: list[Line], kind: type[Any]) -> list[Any]:
    return [fact for _, value in history for fact in facts_of(EVENT.validate_json(value)) if isinstance(fact, kind)]


def without_ends(history: list[Line]) -> list[Line]:
    """As if the planner had died before each settle event, which had not been joined to the answer before it."""
    facts = [(offset, fact) for offset, value in history for fact in facts_of(EVENT.validate_json(value))]
    return [(offset, fact.to_bytes()) for offset, fact in facts if not isinstance(fact, JobSettled)]


def essence(result: Result) -> dict[str, Any]:
    """All of a result but when it came about."""
    return result.model_dump(exclude={"finished_at"})


def test_there_is_a_history_of_every_kind() -> None:
    """What is recorded stays; a new kind of life comes with a recording."""
    assert {path.stem.split(".")[0] for path in FILES} == {life.__name__ for life in LIVES}


def test_histories_are_frozen() -> None:
    """A recording that is changed proves nothing. A new one is added here."""
    listed = {line.split()[1]: line.split()[0] for line in (FOLDER / "digests.txt").read_text().splitlines()}
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in FILES} == listed


def test_a_history_gives_the_recorded_results(history: list[Line]) -> None:
    """Byte for byte, and nothing has to be added or sent."""
    replay, book, round_ = replayed(history)
    replay.finish()
    settled = {event.job: event.result.to_bytes() for event in events(history, JobSettled)}
    assert {job.id: job.settled and job.settled.result.to_bytes() for job in book.jobs.values()} == settled
    assert sorted(e.settled.result.to_bytes() for e in round_.after if isinstance(e, Publish)) == sorted(settled.values())
    assert round_.events == {}
    assert round_.dispatches == []
    assert all(job.broken is None for job in book.jobs.values())


def test_the_pattern_run_again_reaches_the_recorded_end(history: list[Line]) -> None:
    """Without the settle events: today's code ends each job as recorded, unless it was ended from outside."""
    replay, book, round_ = replayed(without_ends(history))
    assert all(job.broken is None for job in book.jobs.values())
    ends = {event.job: event.result for event in events(history, JobSettled)}
    reached = [job for job in book.jobs.values() if job.run.finished and not _never_begun(ends[job.id])]
    others = [ends[job.id] for job in book.jobs.values() if not job.run.finished]
    replay.finish()
    for job in reached:
        assert job.settled is not None
        assert essence(job.settled.result) == essence(ends[job.id])
        assert [kind for kind, _ in round_.events[job.id]] == ["job_settled"]
    assert all(_ended_from_outside(result) for result in others)


def _never_begun(result: Result) -> bool:
    return result.failure is not None and result.failure.kind is FailureKind.UNKNOWN_PATTERN


def _ended_from_outside(result: Result) -> bool:
    if result.answer is not None:
        return result.answer.finish_reason is FinishReason.BUDGET
    return result.status in (Status.CANCELLED, Status.EXPIRED)


def test_every_recorded_step_is_what_the_pattern_asks_for_at_that_point(history: list[Line]) -> None:
    """Step by step: cut before any of a job's asks, today's code asks for just that, with the same id, path and reservation."""
    for offset, value in history:
        facts = facts_of(EVENT.validate_json(value))
        for number, asked in enumerate(facts):
            if isinstance(asked, StepAsked):
                before = [*history[:offset], *((offset, fact.to_bytes()) for fact in facts[:number])]
                _asks_now(asked, replayed(before)[1])


def _asks_now(asked: StepAsked, book: Book) -> None:
    wanted = {want.step: want for want in book.jobs[asked.job].run.wanted()}
    assert asked.step in wanted
    assert (wanted[asked.step].path, wanted[asked.step].request and wanted[asked.step].request.agent) == (asked.path, asked.agent)


def test_any_beginning_of_a_history_can_be_driven_on(history: list[Line]) -> None:
    """A new planner may take over after any record: no job is found broken, each that was live is still live or ends."""
    for length in range(1, len(history) + 1):
        replay, book, _ = replayed(history[:length])
        replay.finish()
        for job in book.jobs.values():
            assert job.broken is None
            assert job.settled is not None or _has_something_to_wait_for(job)


def _has_something_to_wait_for(job: LiveJob) -> bool:
    if job.ending is not None:  # what its stopped attempts have used
        return job.ends_due < float("inf")
    if job.awaits_turn:
        return job.turn_due < float("inf")
    return bool(job.steps) and all(step.due_at < float("inf") for step in job.steps.values())


def test_a_history_may_be_read_from_any_snapshot() -> None:
    """The watermark stands on a snapshot: the job is what it is when all is read."""
    history = list(enumerate((FOLDER / "snapshot.v1.jsonl").read_bytes().splitlines()))
    [job] = {event.job for event in events(history, JobSnapshot)}
    unended = without_ends(history)
    _, whole, _ = replayed(unended)
    begins = [offset for offset, value in history if isinstance(EVENT.validate_json(value), JobSnapshot)]
    assert len(begins) > 1
    for begin in begins:
        _, book, _ = replayed([line for line in unended if line[0] >= begin])
        assert book.jobs[job].usage == whole.jobs[job].usage
        assert book.jobs[job].run.answer == whole.jobs[job].run.answer
        assert book.jobs[job].run.answer is not None


def test_a_fenced_planners_record_is_no_history() -> None:
    """The recording of a take-over holds one, after the second PlannerStarted."""
    history = list(enumerate((FOLDER / "take_over.v1.jsonl").read_bytes().splitlines()))
    assert len(events(history, PlannerStarted)) == 2
    assert any(b'"ghost"' in value for _, value in history)
    _, book, _ = replayed(history)
    assert "ghost" not in book.cancels


def test_a_changed_template_is_found_out() -> None:
    """The check itself: a pattern that renders otherwise than it did is told so, not continued."""
    history = list(enumerate((FOLDER / "chain_with_repair.v1.jsonl").read_bytes().splitlines()))
    changed = [(offset, value.replace(b"Improve {draft}", b"Polish {draft}")) for offset, value in history]
    replay, _, round_ = replayed(without_ends(changed))
    replay.finish()
    kinds = [e.settled.result.failure and e.settled.result.failure.kind for e in round_.after if isinstance(e, Publish)]
    assert kinds == [FailureKind.NON_DETERMINISTIC_PATTERN] * 2


@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.__name__)
def test_the_same_lives_end_the_same_today(life: Any) -> None:
    """The recorder still records what the files hold: the same answers accepted in the same order, the same ends."""
    lines = min(FOLDER.glob(f"{life.__name__}.v*.jsonl")).read_bytes().splitlines()
    old, new = ([fact for line in log for fact in facts_of(EVENT.validate_json(line))] for log in (lines, recorded(life)))
    answers = lambda found: [event.answer.text for event in found if isinstance(event, StepAnswered)]
    ends = lambda found: [(event.result.status, event.result.answer) for event in found if isinstance(event, JobSettled)]
    assert answers(new) == answers(old)
    assert ends(new) == ends(old)
