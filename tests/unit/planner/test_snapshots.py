"""Snapshots: a long-lived job's events, written again so that the watermark may pass the old ones."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from services.planner.deciding import admission
from services.planner.draft import Draft
from services.planner.job.live import LiveJob
from services.planner.kept import LOOK_SECONDS, OLDEST_SECONDS, Kept
from services.planner.round import Round
from services.planner.state.watermark import watermark
from shared.contracts import headers
from shared.contracts.base import RECORD_BYTES
from shared.contracts.event import EVENT, JobSnapshot
from shared.kafka.port import Message
from shared.kafka.sizes import check_record
from tests.unit.planner.desk import Desk, claimed, dispatched, job_input, kinds, published, succeeded


def chained(desk: Desk, answers: list[str], steps: int = 12) -> LiveJob:
    """A chain job, live, with these answers so far."""
    chain = [{"name": f"s{number}", "template": "x"} for number in range(steps)]
    desk.submit(prompt="q", pattern="chain", chain=chain)
    job = desk.job
    for answer in answers:
        desk.say(succeeded(job, desk.step, answer, claim=None))
    return job


def records(round_: Draft) -> list[Message]:
    """The round's events as a home writes them."""
    return [
        Message("job-events", value, job.encode(), 0, headers.envelope(kind))
        for job, events in round_.events.items()
        for kind, value in events
    ]


def parts(round_: Round) -> list[JobSnapshot]:
    found = [EVENT.validate_json(message.value or b"") for message in records(round_)]
    return [event for event in found if isinstance(event, JobSnapshot)]


def test_a_job_that_holds_the_watermark_is_written_again() -> None:
    """Only live ones; not one whose acceptance is not even acknowledged."""
    desk = Desk()
    first, second = chained(desk, ["a"]), chained(desk, ["a"])
    ended = chained(desk, ["a"], steps=1)
    assert ended.settled is not None
    admission.accept(Round.of(desk.book, desk.wall, desk.now), job_input({"prompt": "q"}, 99))
    behind = len(desk.history) - desk.begins(second.id)
    assert desk.renew(len(desk.history)).empty
    assert list(desk.renew(behind).events) == [first.id]
    assert list(desk.renew(1).events) == [second.id]
    assert list(desk.renew(99, later=OLDEST_SECONDS + 1).events) == [first.id, second.id], "retention deletes by age"
    assert desk.renew(99).empty


def test_a_snapshot_moves_the_watermark_and_nothing_else() -> None:
    """A successor that begins at it knows the job as it was, and the job goes on."""
    desk = Desk()
    job = chained(desk, ["one", "two"])
    desk.say(claimed(job, desk.step))
    before = (job.usage, list(job.steps), job.steps_asked, list(job.facts))
    round_ = desk.snapshot(job)
    assert kinds(round_) == ["job_snapshot"]
    assert desk.begins() == len(desk.history) - 1
    assert watermark(desk.book, {}, len(desk.history) - 1)[0] == desk.begins(job.id)
    replay, book, _ = desk.replayed(desk.history[desk.begins(job.id) :])
    [same] = book.jobs.values()
    assert (same.usage, list(same.steps), same.steps_asked, same.facts) == before
    assert book.kept_jobs.offset(same.id) == desk.begins()
    replay.finish()
    assert book.claims == {"c1": (job.id, desk.step.id)}


def test_events_after_a_snapshot_are_part_of_the_next() -> None:
    """And of a replay from the first."""
    desk = Desk()
    job = chained(desk, ["one"])
    desk.snapshot(job)
    start = desk.begins(job.id)
    [second] = dispatched(desk.say(succeeded(job, desk.step, "two", claim=None)))
    desk.snapshot(job)
    for begin in (start, desk.begins(job.id)):
        _, book, _ = desk.replayed(desk.history[begin:])
        [same] = book.jobs.values()
        assert list(same.steps) == [second.id]


def test_parts_are_valid_only_together() -> None:
    """A snapshot that a crash cut off counts for nothing: the old events still do."""
    desk = Desk()
    job = chained(desk, ["x" * 100_000, "y" * 100_000, "z" * 100_000])
    round_ = desk.snapshot(job)
    count = len(parts(round_))
    assert count >= 2
    for missing in range(1, count + 1):
        cut = desk.history[: len(desk.history) - missing]
        _, book, _ = desk.replayed(cut)
        assert book.kept_jobs.offset(job.id) == 1
        _, book, _ = desk.replayed(cut[len(desk.history) - count :])
        assert book.jobs == {}
    _, book, _ = desk.replayed(desk.history[desk.begins(job.id) + 1 :])
    assert book.jobs == {}


def test_a_settle_event_after_a_snapshot_ends_the_job() -> None:
    """Read from the snapshot on."""
    desk = Desk()
    job = chained(desk, ["one"], steps=2)
    desk.snapshot(job)
    [result] = published(desk.say(succeeded(job, desk.step, "end", claim=None)))
    replay, book, round_ = desk.replayed(desk.history[desk.begins(job.id) :])
    replay.finish()
    assert published(round_) == [result]
    assert book.live == 0


@settings(max_examples=20)
@given(st.lists(st.tuples(st.sampled_from(['"', "\\", "\n", "a", "\N{EURO SIGN}"]), st.integers(0, 40_000)), max_size=6))
def test_every_part_fits_a_record(answers: list[tuple[str, int]]) -> None:
    """Facts are quoted once more inside a snapshot, which may double them."""
    desk = Desk()
    job = chained(desk, [f".{char * count}" for char, count in answers])
    round_ = desk.renew(0)
    for message in records(round_):
        assert check_record(message) <= RECORD_BYTES
    assert [fact.encode() for part in parts(round_) for fact in part.facts] == job.facts


def test_what_is_kept_is_looked_at_only_when_something_may_be_due() -> None:
    """At first, after so many own events, after a while; at once where there was more than one round tells."""
    kept = Kept()
    assert kept.due(0, 0.0)
    kept.looked(10, 5.0, 64)
    assert not kept.due(73, 5.0 + LOOK_SECONDS - 0.1)
    assert kept.due(74, 5.0)
    assert kept.due(10, 5.0 + LOOK_SECONDS)
    kept.looked(10, 5.0, 0)
    assert kept.due(10, 5.0)
