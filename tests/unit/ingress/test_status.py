"""The status fold: idempotent, monotone, complete; the journal and the epoch filter that feed it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingress.status.journal import Journal
from services.ingress.status.shown import RawEvent
from services.ingress.status.status import JobState, JobStatus, ended, fold
from shared.contracts import event as events
from shared.contracts import ids
from shared.contracts.base import PriorityClass
from shared.contracts.chat import Answer
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import Job
from shared.contracts.limits import Limits
from shared.contracts.result import Result, Status
from shared.contracts.usage import Usage
from shared.epochs import EpochFilter, epoch_of

BASE: dict[str, Any] = {"epoch": 3, "job": "j", "at": 100.0}


def history() -> list[Any]:
    """One job: accepted, a failed attempt, a retry, an answer, settled."""
    failure = Failure(kind=FailureKind.NODE_LOST, message="gone")
    result = Result(job="j", status=Status.SUCCEEDED, answer=Answer(text="hi"), accepted_at=100.0, finished_at=109.0)
    return [
        events.JobAccepted(
            **BASE,
            request=Job(prompt="p", tenant="t", model="m"),
            priority_class=PriorityClass.BATCH,
            home=2,
            source="jobs.batch/2/0",
            source_offset=0,
            pattern_version=1,
            limits=Limits(),
            deadline_at=200.0,
            digest="d",
        ),
        events.StepAsked(**BASE, step="s1", path="0", agent="chat", model="m"),
        events.StepClaimedBy(**BASE, step="s1", attempt=1, claim="c", node="n1", mailbox=0, lease_seconds=20),
        events.AttemptFailed(**BASE, step="s1", attempt=1, failure=failure, retry_after_seconds=1.0),
        events.StepRetried(**BASE, step="s1", attempt=2),
        events.StepClaimedBy(**BASE, step="s1", attempt=2, claim="d", node="n2", mailbox=1, lease_seconds=20),
        events.StepAnswered(**BASE, step="s1", attempt=2, node="n2", answer=Answer(text="hi"), usage=Usage(calls=1)),
        events.JobSettled(**BASE, result=result),
    ]


def raw(facts: list[Any], start: int = 10) -> list[RawEvent]:
    return [RawEvent(offset, fact.type, fact.to_bytes()) for offset, fact in enumerate(facts, start)]


def test_facts_that_ride_in_others_are_seen() -> None:
    """The asks in the acceptance and the answer in the end, as planners write them now."""
    facts = history()
    first, last = events.joined(*facts[:2]), events.joined(*facts[-2:])
    apart, together = fold("j", 2, None, raw(facts)), fold("j", 2, None, raw([first, *facts[2:-2], last]))
    assert together.model_copy(update={"offset": apart.offset}) == apart


def test_a_whole_history() -> None:
    """State, steps with attempts and nodes, result."""
    status = fold("j", 2, None, raw(history()))
    assert (status.state, status.priority_class, status.tenant, status.model, status.home) == (
        JobState.SETTLED,
        PriorityClass.BATCH,
        "t",
        "m",
        2,
    )
    assert (status.accepted_at, status.deadline_at, status.settled_at) == (100.0, 200.0, 109.0)
    (step,) = status.steps
    assert (step.state, step.attempt, step.nodes, step.failures) == ("answered", 2, ["n1", "n2"], ["node_lost"])
    assert status.result is not None
    assert status.result.answer == Answer(text="hi")


@pytest.mark.parametrize(
    ("count", "state"), [(0, JobState.QUEUED), (1, JobState.ACCEPTED), (2, JobState.RUNNING), (7, JobState.RUNNING), (8, JobState.SETTLED)]
)
def test_states_on_the_way(count: int, state: JobState) -> None:
    """Queued, accepted, running, settled."""
    assert fold("j", 2, None, raw(history())[:count]).state is state


@given(st.lists(st.integers(0, 8), max_size=6))
def test_folding_is_idempotent_and_in_any_portions(cuts: list[int]) -> None:
    """Repeated and overlapping portions of the log give what one pass gives: nothing is applied twice."""
    whole = raw(history())
    status: JobStatus | None = None
    reached = 0
    for cut in [*cuts, len(whole)]:
        reached = max(reached, cut)
        status = fold("j", 2, status, whole[:reached])
    assert status == fold("j", 2, None, whole)


def test_stored_and_read_again() -> None:
    """The store's form is read back equal; the public form has the class by its name and no offset."""
    status = fold("j", 2, None, raw(history()))
    assert JobStatus.model_validate_json(status.stored()) == status
    public = status.public()
    assert b'"class":"batch"' in public
    assert b'"offset"' not in public


def test_a_snapshot_tells_a_late_reader_everything() -> None:
    """A reader that begins after the original events learns them from the snapshot; one that saw them changes nothing."""
    facts = history()[:3]
    texts = tuple(fact.to_bytes().decode() for fact in facts)
    snapshot = events.JobSnapshot(**BASE, snapshot="x", part=0, parts=1, facts=texts)
    late = fold("j", 2, None, raw([snapshot], 50))
    early = fold("j", 2, None, raw(facts))
    assert late.model_copy(update={"offset": early.offset}) == early
    assert fold("j", 2, early, raw([snapshot], 50)).steps == early.steps


def test_epochs_are_read_without_parsing() -> None:
    """From what our planner writes, and from any other order of fields."""
    assert all(epoch_of(fact.to_bytes()) == 3 for fact in history())
    assert epoch_of(b'{ "job" : "j", "epoch" : 7 }') == 7
    assert epoch_of(b"nonsense") is None


@given(st.lists(st.sampled_from(["start", "valid", "stale"]), max_size=40), st.integers(0, 40))
def test_only_events_of_the_epoch_in_force_are_admitted(script: list[str], begin: int) -> None:
    """Valid if and only if the epoch is the offset of the last PlannerStarted before. From the beginning of the log exactly;
    begun in the middle, no valid event is ever refused, and nothing stale is admitted after the first valid one.
    """
    log: list[tuple[str, int]] = [("start", 0)]
    starts = [0]
    for offset, kind in enumerate(script, 1):
        if kind == "start":
            starts.append(offset)
        known = kind != "stale" or len(starts) > 1
        epoch = starts[-1] if kind == "valid" or not known else starts[-2]
        log.append((kind if known else "valid", offset if kind == "start" else epoch))
    whole, middle = EpochFilter(), EpochFilter()
    in_force_seen = False
    for offset, (kind, epoch) in enumerate(log):
        for reader in [whole] if offset < begin else [whole, middle]:
            if kind == "start":
                reader.started(offset)
                in_force_seen = in_force_seen or reader is middle
                continue
            admitted = reader.admits(epoch, offset)
            if kind == "valid":
                assert admitted
                in_force_seen = in_force_seen or reader is middle
            elif reader is whole or in_force_seen:
                assert not admitted


def test_the_first_batch_settles_the_epoch_when_begun_in_the_middle() -> None:
    """A stale record before the first valid one is not taken for valid."""
    reader = EpochFilter()
    reader.begin([4, 9, 9])
    assert [reader.admits(epoch, offset) for offset, epoch in ((10, 4), (11, 9), (12, 9))] == [False, True, True]


def test_an_epoch_from_ahead_is_nobodys() -> None:
    """An epoch is the offset of a record before: one record with a vast epoch must not blind a reader to all that follow."""
    reader = EpochFilter()
    reader.started(5)
    assert not reader.admits_value(b'{"epoch":9007199254740992,"type":"job_settled"}', 6)
    assert not reader.admits(7, 7)
    assert reader.admits_value(b'{"epoch":5,"type":"job_settled"}', 8)


def journal(**bounds: int) -> Journal:
    return Journal(**{"jobs": 100, "size": 1_000_000, "events_per_job": 100, **bounds})


def test_the_journal_folds_on_demand() -> None:
    """Known from the acceptance on: whole; repetitions are dropped; `after` gives what a stream needs."""
    book = journal()
    for event in [*raw(history()), *raw(history())]:
        book.add("j", 2, event)
    assert book.is_whole("j")
    assert book.status("j") == fold("j", 2, None, raw(history()))
    assert [event.offset for event in book.after("j", 15)] == [16, 17]
    assert book.status("unknown") is None


def test_the_journal_stands_on_what_a_store_had() -> None:
    """A job whose beginning is only in the store."""
    book = journal()
    stored = fold("j", 2, None, raw(history())[:4])
    for event in raw(history())[4:]:
        book.add("j", 2, event)
    assert not book.is_whole("j")
    assert book.status("j", stored) == fold("j", 2, None, raw(history()))


def test_the_journal_is_bounded_by_jobs_and_bytes() -> None:
    """The least recently touched job goes first, and memory is given back."""
    book = journal(jobs=3)
    for number in range(10):
        book.add(f"j{number}", 0, raw(history())[0])
    assert len(book) == 3
    assert "j9" in book
    small = journal(size=5_000)
    for number in range(100):
        small.add(f"j{number}", 0, raw(history())[0])
    assert 1 <= len(small) < 12


@pytest.mark.parametrize("bounds", [{"jobs": 100, "size": 10**9}, {"jobs": 10**9, "size": 80_000}])
@pytest.mark.parametrize("flood", ["flood/{}", "j_{}", "{}"])
def test_a_flood_of_one_tenants_jobs_pushes_out_its_own(bounds: dict[str, int], flood: str) -> None:
    """Whether its ids tell whose they are, its events do, or nothing does until the end; whatever was touched last."""
    book = journal(**bounds)
    tenant = ids.owner(flood.format("x")) or "flood"
    for number in range(5):
        for other in ("a", "b", "c"):
            book.add(f"{other}/{number}", 0, accepted_of(other))
            book.add(f"j_{other}{number}", 0, accepted_of(other))
    for number in range(2_000):
        job = flood.format(f"flood{number}")
        book.add(job, 0, raw(history())[1])
        book.add(job, 0, accepted_of(tenant, 100))
    for number in range(5):
        for other in ("a", "b", "c"):
            assert f"{other}/{number}" in book
            assert f"j_{other}{number}" in book
    assert flood.format("flood1999") in book
    assert len(book) <= 100


def accepted_of(tenant: str, offset: int = 1) -> RawEvent:
    """With a text that looks like another tenant's."""
    [event, *_] = history()
    assert isinstance(event, events.JobAccepted)
    request = event.request.model_copy(update={"tenant": tenant, "metadata": {"tenant": "victim"}})
    return RawEvent(offset, "job_accepted", event.changed(request=request).to_bytes())


def test_what_is_told_and_folded_counts_too() -> None:
    """A status in place of events is as large as it is."""
    book = journal(size=50_000)
    for number in range(100):
        answer = Answer(text="x" * 4_000)
        result = Result(job=f"j{number}", status=Status.SUCCEEDED, answer=answer, accepted_at=1.0, finished_at=2.0)
        book.told(ended(result, 0, "d"))
    assert 8 <= len(book) <= 12
    for number in range(1_000):
        book.add("j99", 0, RawEvent(number, "step_asked", history()[1].to_bytes()))
    assert "j99" in book


def test_a_job_of_many_events_is_compacted() -> None:
    """More events than are kept change nothing about the status."""
    book = journal(events_per_job=4)
    for event in raw(history()):
        book.add("j", 2, event)
    assert len(book.after("j", -1)) <= 4
    assert book.status("j") == fold("j", 2, None, raw(history()))


def test_a_submitted_job_is_queued_until_its_events_come() -> None:
    """And what came before the acknowledgement is not overwritten by it."""
    book = journal()
    book.submitted(JobStatus(id="j", home=2))
    assert book.is_whole("j")
    status = book.status("j")
    assert status is not None
    assert status.state is JobState.QUEUED
    book.add("j", 2, raw(history())[0])
    book.submitted(JobStatus(id="j", home=2))
    status = book.status("j")
    assert status is not None
    assert status.state is JobState.ACCEPTED
