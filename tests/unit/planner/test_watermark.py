"""Watermark: where a successor begins to read. What it may never pass, and that it moves."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from services.planner.deciding import admission, attempts
from services.planner.job.live import LiveJob
from services.planner.round import Round
from services.planner.state.book import Book
from services.planner.state.policy import Policy
from services.planner.state.watermark import passable, watermark
from shared.contracts.event import CancelRecorded, JobSettled
from shared.contracts.outcome import CancelRequested
from shared.contracts.result import Result, Status
from tests.unit.planner.desk import TOPIC, Desk, claimed, job_input, succeeded

PAST = {TOPIC: 1_000_000}


def done(desk: Desk, *, published: bool = True) -> LiveJob:
    """One job, ended, its result acknowledged."""
    desk.submit()
    job = desk.job
    desk.say(claimed(job, desk.step), succeeded(job, desk.step))
    assert job.settled is not None
    if published:
        desk.book.published(job.settled)
    return job


def test_with_nothing_live_it_is_the_last_own_event() -> None:
    """So it always names a valid record, whose epoch is in force."""
    assert watermark(Desk().book, {}, 41) == (41, [])
    desk = Desk()
    job = done(desk)
    assert watermark(desk.book, PAST, 9) == (9, [job.id])


def test_it_stays_before_a_live_job() -> None:
    """However much has ended after it."""
    desk = Desk()
    desk.submit()
    live = desk.job
    ended = [done(desk).id for _ in range(3)]
    assert watermark(desk.book, PAST, len(desk.history) - 1) == (desk.begins(live.id), ended)


def test_it_stays_before_a_result_that_is_not_acknowledged() -> None:
    """A successor publishes it again."""
    desk = Desk()
    job = done(desk, published=False)
    first = desk.begins(job.id)
    assert watermark(desk.book, PAST, 9) == (first, [])


def test_it_stays_before_a_job_whose_record_is_not_committed() -> None:
    """Its record will be read again, and must then be known."""
    desk = Desk()
    job = done(desk)
    source, first = job.accepted.source_offset, desk.book.out[job.id].first_offset
    assert watermark(desk.book, {TOPIC: source}, 9) == (first, [])
    assert watermark(desk.book, {"jobs.batch": 1_000}, 9) == (first, [])
    assert watermark(desk.book, {TOPIC: source + 1}, 9) == (9, [job.id])


def test_what_is_not_acknowledged_does_not_hold_it() -> None:
    """It will lie behind every acknowledged event."""
    desk = Desk()
    round_ = Round.of(desk.book, desk.wall, desk.now)
    admission.accept(round_, job_input({"prompt": "q"}))
    attempts.on_outcome(round_, CancelRequested(job="other"))
    assert watermark(desk.book, {}, 7) == (7, [])
    assert desk.book.kept_jobs.offset(desk.job.id) is None


def test_a_cancel_holds_it_until_its_job_is_in_history() -> None:
    """If the append is lost, the job's record is read again, and must meet its cancel."""
    desk = Desk()
    desk.say(CancelRequested(job="mine"))
    round_ = Round.of(desk.book, desk.wall, desk.now)
    admission.accept(round_, job_input({"prompt": "q"}, 0, "mine"))
    assert watermark(desk.book, {}, 9) == (1, [])
    desk.acknowledge(round_)
    assert watermark(desk.book, {}, 9) == (desk.begins("mine"), [])


def test_it_stays_before_a_remembered_cancel() -> None:
    """Until the cancel's job comes or its time is over."""
    desk = Desk()
    desk.say(CancelRequested(job="other"))
    done(desk)
    assert watermark(desk.book, PAST, 9)[0] == 1
    desk.renew(99, later=1e6)
    assert watermark(desk.book, PAST, 9)[0] == 9


def test_a_cancel_that_came_first_does_not_hide_its_job() -> None:
    """In one round: the cancel of X, then jobs A and X. X lies before A in the log, after it in memory; its result is not yet out."""
    desk = Desk()

    def fold(round_: Round) -> None:
        attempts.on_outcome(round_, CancelRequested(job="X"))
        admission.accept(round_, job_input({"prompt": "a"}, 0, "A"))
        admission.accept(round_, job_input({"prompt": "x"}, 1, "X"))

    desk.round(fold)
    live, hidden = desk.book.jobs["A"], desk.book.jobs["X"]
    assert desk.begins(hidden.id) < desk.begins(live.id)
    assert watermark(desk.book, PAST, 9)[0] == desk.begins(hidden.id)


jobs = st.lists(st.tuples(st.integers(0, 50), st.booleans(), st.booleans(), st.integers(0, 10)), max_size=12)


@given(jobs, st.lists(st.integers(0, 50), max_size=3), st.integers(0, 10), st.integers(51, 60))
def test_it_never_passes_what_recovery_needs(
    drawn: list[tuple[int, bool, bool, int]], cancels: list[int], committed: int, last_own: int
) -> None:
    """Any mix of jobs, in any order: not past one that is live, unpublished or uncommitted, and only the others may be forgotten."""
    book = Book(0, Policy(), Random(0))
    book.epoch = 0
    needed, needless = [], []
    for number, (first, settled, published, source) in enumerate(drawn):
        round_ = Round.of(book, 1_700_000_000.0, 0.0)
        admission.accept(round_, job_input({"prompt": "q"}, source, f"x{number}"))
        job = book.jobs[f"x{number}"]
        book.begins_at(job.id, 0.0, first)
        if settled:
            result = Result(job=job.id, status=Status.SUCCEEDED, accepted_at=0.0, finished_at=0.0)
            event = JobSettled(epoch=0, job=job.id, at=0.0, result=result)
            book.end(job, event)
            if published:
                book.published(event)
        if settled and published and source < committed:
            needless.append(job)
        else:
            needed.append(first)
    for number, offset in enumerate(cancels):
        book.cancels.restore(CancelRecorded(epoch=0, job=f"c{number}", at=0.0, reason="test"), offset, 0.0)
    offset, forgettable = watermark(book, {TOPIC: committed}, last_own)
    assert offset == min([last_own, *needed, *cancels])
    assert forgettable == [job.id for job in needless]
    assert all(passable(book.out[job.id], book, {TOPIC: committed}) for job in needless)
