"""The last run of a schedule is kept: a successor finds it at any moment, wherever a crash falls."""

from __future__ import annotations

from services.planner.round import Round
from services.planner.schedules.clockwork import begin, run_id
from services.planner.state.watermark import watermark
from shared.contracts.job import Job
from shared.contracts.schedule import Schedule
from tests.unit.planner.desk import Desk, dispatched, kinds

NIGHTLY = Schedule(id="nightly", cron="0 2 * * *", job=Job(prompt="q"), since=0.0)
DUE = 1_700_000_000.0


def fire(desk: Desk, due_at: float = DUE) -> Round:
    return desk.round(lambda round_: begin(round_, NIGHTLY, due_at))


def test_a_run_and_its_job_are_one_batch() -> None:
    """The run's event first."""
    desk = Desk()
    round_ = fire(desk)
    assert kinds(round_) == ["schedule_fired", "job_accepted", "step_asked"]
    assert list(round_.events) == [run_id("nightly", DUE)]
    assert (desk.job.id, desk.begins()) == (run_id("nightly", DUE), 2)
    assert len(dispatched(round_)) == 1
    assert desk.book.runs.last("nightly") == DUE


def test_until_a_run_is_acknowledged_the_one_before_holds_the_watermark() -> None:
    """If the append is lost, a successor must find the run before it."""
    desk = Desk()
    fire(desk)
    desk.forget_jobs()
    begin(Round.of(desk.book, desk.wall, desk.now), NIGHTLY, DUE + 60)
    assert watermark(desk.book, {}, 99)[0] == 1


def test_it_is_written_again_alone() -> None:
    """The copy begins nothing; the watermark follows it; a successor that sees only the copy knows the run."""
    desk = Desk()
    fire(desk)
    desk.forget_jobs()
    start = len(desk.history)
    round_ = desk.renew(1)
    assert kinds(round_) == ["schedule_fired"]
    assert watermark(desk.book, {}, 99)[0] == start
    _, successor, _ = desk.replayed(desk.history[start:])
    assert successor.runs.last("nightly") == DUE
    assert successor.live == 0


def test_two_runs_in_one_round() -> None:
    """The later one is the last, and it holds the watermark."""
    desk = Desk()

    def both(round_: Round) -> None:
        begin(round_, NIGHTLY, DUE)
        begin(round_, NIGHTLY, DUE + 60)

    desk.round(both)
    assert desk.book.runs.last("nightly") == DUE + 60
    assert desk.book.runs.lowest == desk.begins() - 1
    _, successor, _ = desk.replayed()
    assert successor.runs.last("nightly") == DUE + 60


def test_what_is_no_longer_declared_is_forgotten() -> None:
    """Nothing holds the watermark for ever."""
    desk = Desk()
    fire(desk)
    desk.book.runs.forget_others({})
    assert desk.book.runs.lowest is None
