"""Cancels of delayed jobs: the job ends at once, once, and does not run when it comes back; the log is read back a bounded way only."""

from __future__ import annotations

import pytest

from services.planner.deciding.admission import accept
from services.planner.draft import CallerAnswer
from services.planner.kept import PORTION
from services.planner.round import Round
from services.planner.state.cancels import CLOCK_SKEW_SECONDS, KEPT_SECONDS
from services.planner.state.policy import Policy
from services.planner.state.watermark import watermark
from shared.contracts.delayed import DelayedJob
from shared.contracts.job import ReplyTo
from shared.contracts.outcome import CancelRequested
from shared.contracts.result import Status
from shared.errors import InvalidInput
from tests.unit.planner.desk import Desk, job_input, kinds, published

DAYS = 3 * 86_400.0
REPLY = ReplyTo(topic="replies.test", correlation=b"c")


def cancel(desk: Desk, job: str = "mine", seconds: float = DAYS) -> CancelRequested:
    """Of a job that is due in `seconds`."""
    waits = DelayedJob(due_at=desk.wall + seconds, since=desk.wall - 1, tenant="acme", digest="d")
    return CancelRequested(job=job, reason="changed my mind", waits=waits)


def publish(desk: Desk) -> None:
    for job in list(desk.book.cancels):
        desk.book.cancels.published(job)


def test_a_delayed_job_ends_with_its_cancel() -> None:
    """Its result is published now, not in three days."""
    desk = Desk()
    round_ = desk.say(cancel(desk))
    assert kinds(round_) == ["cancel_recorded", "job_settled"]
    [result] = published(round_)
    assert (result.job, result.tenant, result.status) == ("mine", "acme", Status.CANCELLED)
    assert result.accepted_at == desk.wall - 1
    assert desk.say(cancel(desk)).empty


def test_when_it_comes_back_it_is_dropped() -> None:
    """However often; whoever waits is told."""
    desk = Desk()
    desk.say(cancel(desk))
    publish(desk)
    desk.wait(DAYS)
    for _ in range(2):
        round_ = desk.submit(id_="mine", reply=REPLY)
        assert kinds(round_) == []
        [answer] = round_.after
        assert isinstance(answer, CallerAnswer)
        assert answer.result.status is Status.CANCELLED
    assert desk.book.live == 0


def test_a_successor_knows_it_and_publishes_what_may_be_lost() -> None:
    """Killed before the result was acknowledged: the same result again, byte by byte."""
    desk = Desk()
    first = published(desk.say(cancel(desk)))
    again = published(desk.take_over())
    assert [r.to_bytes() for r in again] == [r.to_bytes() for r in first]
    assert kinds(desk.submit(id_="mine")) == []


def test_a_job_that_is_nearly_due_is_waited_for() -> None:
    """A planner whose clock is ahead may have accepted it: a second settle event would be a second result."""
    desk = Desk()
    round_ = desk.say(cancel(desk, seconds=CLOCK_SKEW_SECONDS - 1))
    assert kinds(round_) == ["cancel_recorded"]
    assert published(round_) == []
    assert published(desk.submit(id_="mine"))[0].status is Status.CANCELLED


def test_no_more_are_taken_than_are_remembered() -> None:
    """The cancel is refused, and so becomes a dead letter; nothing is forgotten for it."""
    desk = Desk(Policy(cancelled_delays=2))
    desk.say(cancel(desk, "a"), cancel(desk, "b"))
    with pytest.raises(InvalidInput):
        desk.say(cancel(desk, "c"))
    assert set(desk.book.cancels) == {"a", "b"}


def test_guesses_do_not_push_out_what_is_certain() -> None:
    """Cancels that come late, of jobs that ended long ago, are many."""
    desk = Desk(Policy(cancel_guesses=2))
    desk.say(cancel(desk))
    for number in range(5):
        desk.say(CancelRequested(job=f"x{number}"))
    assert set(desk.book.cancels) == {"mine", "x3", "x4"}


def test_it_is_kept_longer_than_its_job_can_come_late() -> None:
    """And no longer."""
    desk = Desk()
    desk.say(cancel(desk))
    publish(desk)
    desk.renew(99, later=DAYS + KEPT_SECONDS - 1)
    assert "mine" in desk.book.cancels
    desk.renew(99, later=61)
    assert "mine" not in desk.book.cancels


def fill(desk: Desk, count: int) -> None:
    for _ in range(count):
        desk.history.append((len(desk.history), b"{}"))


def test_it_is_written_again_before_it_lies_too_far_back() -> None:
    """What the watermark may not pass follows the copy; a successor that sees only the copy knows the same."""
    desk = Desk()
    desk.say(cancel(desk), CancelRequested(job="guess"))
    publish(desk)
    assert desk.renew().empty
    assert watermark(desk.book, {}, 99)[0] == 1
    fill(desk, 10)
    start = len(desk.history)
    assert kinds(desk.renew()) == ["cancel_recorded", "cancel_recorded"]
    assert [kept.lowest for kept in desk.book.cancels.kept] == [start, start + 1]
    _, successor, _ = desk.replayed(desk.history[start:])
    assert set(successor.cancels) == {"mine", "guess"}
    assert successor.cancels.ended("mine") is not None
    assert desk.renew().empty


def test_it_stays_where_it_is_until_its_result_is_out() -> None:
    """The settle event lies behind it: a successor must find both."""
    desk = Desk()
    desk.say(cancel(desk))
    fill(desk, 20)
    assert desk.renew().empty
    publish(desk)
    assert kinds(desk.renew()) == ["cancel_recorded"]


def test_a_guess_is_not_written_again_behind_its_job() -> None:
    """In the round in which the job comes: whoever read on from there would end the next job with this id."""
    desk = Desk()
    desk.say(CancelRequested(job="mine"))
    fill(desk, 20)

    def both(round_: Round) -> None:
        accept(round_, job_input({"prompt": "q"}, 0, "mine"))
        for kept in desk.book.cancels.kept:
            kept.renew(round_, len(desk.history), 10)

    assert kinds(desk.round(both)) == ["job_accepted", "job_settled"]
    assert list(desk.book.cancels) == []


def test_no_more_are_written_again_at_once_than_a_portion() -> None:
    """The rest follows in the next rounds, the oldest first."""
    desk = Desk()
    for number in range(PORTION + 20):
        desk.say(CancelRequested(job=f"x{number}"))
    fill(desk, 200)
    first, second = list(desk.renew(PORTION + 60).events), list(desk.renew(PORTION + 60).events)
    assert (first, second) == ([f"x{n}" for n in range(PORTION)], [f"x{n}" for n in range(PORTION, PORTION + 20)])
