"""Callbacks: whom a job's end is told is in its settle event and its result, also after a take-over. Older planners leave such a job."""

from __future__ import annotations

from services.planner.draft import Publish
from services.planner.sending.messages import of_effect
from shared.contracts.callback import Callback
from shared.contracts.delayed import DelayedJob
from shared.contracts.event import JobDelayed
from shared.contracts.headers import CALLBACK, find
from shared.contracts.outcome import CancelRequested
from shared.contracts.result import Status
from shared.contracts.versions import NEWEST, VERSIONS, version_of
from shared.topics import Topics
from tests.unit.planner.desk import Desk, published

HOOK = Callback(url="https://hooks.example.org/x")


def test_a_result_says_whom_it_is_told() -> None:
    desk = Desk()
    desk.submit(id_="mine", prompt="q", callback=HOOK)
    round_ = desk.say(CancelRequested(job="mine", reason="enough"))
    [result] = published(round_)
    assert (result.status, result.callback) == (Status.CANCELLED, HOOK)
    [record, *_] = of_effect(next(effect for effect in round_.after if isinstance(effect, Publish)), Topics())
    assert find(record.headers, CALLBACK) == b"1"
    [again] = published(desk.take_over())
    assert again.to_bytes() == result.to_bytes()


def test_a_result_without_one_is_written_as_ever() -> None:
    desk = Desk()
    desk.submit(id_="mine")
    round_ = desk.say(CancelRequested(job="mine", reason="enough"))
    [record, *_] = of_effect(next(effect for effect in round_.after if isinstance(effect, Publish)), Topics())
    assert b"callback" not in (record.value or b"")
    assert find(record.headers, CALLBACK) is None


def test_a_delayed_job_that_is_cancelled_tells_it_too() -> None:
    desk = Desk()
    waits = DelayedJob(due_at=desk.wall + 86_400, since=desk.wall, callback=HOOK)
    [result] = published(desk.say(CancelRequested(job="mine", reason="enough", waits=waits)))
    assert result.callback == HOOK


def test_such_events_are_of_a_version_that_older_planners_leave_alone() -> None:
    desk = Desk()
    accepted = desk.submit(id_="mine", prompt="q", callback=HOOK).newer
    assert set(accepted.values()) == {6}
    assert NEWEST >= 6
    bare = JobDelayed(epoch=0, job="x", at=1.0, waits=DelayedJob(due_at=2.0, since=1.0))
    assert version_of(bare) == VERSIONS.get("job_delayed", 1)
    assert version_of(bare.model_copy(update={"waits": DelayedJob(due_at=2.0, since=1.0, callback=HOOK)})) == 6
