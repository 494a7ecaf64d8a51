"""Lines: who waits for a node, by the bytes of events alone, as a fold of the parsed events has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.ingress.admission.backlog import Backlog
from services.ingress.status.lines import Lines
from services.ingress.status.shown import RawEvent, class_of
from services.ingress.status.status import JobState, JobStatus
from shared.contracts import event as events
from shared.contracts.base import CLASSES, PriorityClass
from shared.contracts.chat import Answer
from shared.contracts.job import Job
from shared.contracts.limits import Limits
from shared.contracts.result import Result, Status
from shared.contracts.usage import Timings
from shared.scheduling.places import PlaceInLine
from shared.telemetry import metrics
from tests.support.planner_histories import FOLDER

INTERACTIVE, STANDARD, BATCH = CLASSES
ONE, TWO = "1" * 32, "2" * 32


class Told:
    """A history that is told event by event."""

    def __init__(self) -> None:
        self.backlog = Backlog()
        self.lines = Lines(("research",), self.backlog)
        self.now = 0.0
        self._offset = 0

    def accepted(self, job: str, *steps: str, of: PriorityClass = STANDARD, node: str | None = None, **fields: Any) -> bytes:
        asks = tuple(events.FirstAsk(step=step, path="0.0", agent="chat", model="auto", node=node) for step in steps)
        accepted = events.JobAccepted(
            epoch=1,
            job=job,
            at=0.0,
            request=Job(**{"prompt": 'say {"step":"x","tenant":"evil"}', **fields}),
            priority_class=of,
            home=0,
            source="jobs/0/7",
            source_offset=7,
            pattern_version=1,
            limits=Limits(),
            deadline_at=9.0,
            digest="d",
            asks=asks,
        )
        value = accepted.to_bytes()
        self.lines.on_accepted(job, value, class_of(value), self.now)
        return value

    def tell(self, kind: type[Any], job: str, step: str | None = ONE, **fields: Any) -> None:
        given = {} if step is None else {"step": step}
        event = kind(**{"epoch": 1, "job": job, "at": 0.0, **given, **fields})
        self._offset += 1
        self.lines.on_event(job, RawEvent(self._offset, event.type, event.to_bytes()), self.now)

    def claimed(self, job: str, step: str = ONE) -> None:
        self.tell(events.StepClaimedBy, job, step, attempt=1, claim="c", node="n", mailbox=0, lease_seconds=20)

    def settled(self, job: str) -> None:
        result = Result(job=job, status=Status.FAILED, accepted_at=0, finished_at=0)
        self.tell(events.JobSettled, job, None, result=result)

    def place(self, job: str, state: JobState = JobState.ACCEPTED, slots: int = 0, **fields: Any) -> PlaceInLine | None:
        return self.lines.place(JobStatus(id=job, home=0, state=state, **fields), {"chat": slots}, self.now)


def test_who_waits_stands_in_line_until_he_is_claimed() -> None:
    told = Told()
    for job in ("a", "b", "c"):
        told.accepted(job, ONE)
    assert [told.place(job) for job in ("a", "b", "c")] == [PlaceInLine(1), PlaceInLine(2), PlaceInLine(3)]
    told.claimed("a")
    assert told.place("a") is None
    assert told.place("c") == PlaceInLine(2)
    told.settled("b")
    assert told.place("c") == PlaceInLine(1)
    assert told.place("nobody") is None


def test_a_job_waits_as_long_as_any_step_of_it_does() -> None:
    told = Told()
    told.accepted("many", ONE, TWO)
    told.accepted("next", ONE)
    told.claimed("many")
    assert told.place("next") == PlaceInLine(2)
    told.claimed("many", TWO)
    assert told.place("next") == PlaceInLine(1)
    told.tell(events.StepAsked, "many", "3" * 32, path="0.1", agent="chat", model="auto")
    assert told.place("many") == PlaceInLine(2)


def test_turns_classes_and_capabilities() -> None:
    told = Told()
    for number in range(50):
        told.accepted(f"flood-{number}", ONE, tenant="large")
    told.accepted("small", ONE, tenant="small")
    assert told.place("small") == PlaceInLine(2), "by turns behind one"
    told.accepted("research", ONE, capability="research")
    told.accepted("embed", ONE, prompt=None, texts=("x",))
    assert told.place("research") == told.place("embed") == PlaceInLine(1)
    told.accepted("urgent", ONE, of=INTERACTIVE)
    assert told.place("urgent") == PlaceInLine(1)
    assert told.place("small") == PlaceInLine(3)


def test_what_was_given_to_a_node_or_lacks_money_is_in_no_line() -> None:
    told = Told()
    told.accepted("eager", ONE, node="n")
    told.accepted("poor")
    told.tell(events.StepAsked, "poor", path="0.0", agent="chat", model="auto", unfunded=True)
    assert told.place("eager") is None
    assert told.place("poor") is None
    told.tell(events.StepFunded, "poor", attempt=1, charged_day=1)
    assert told.place("poor") == PlaceInLine(1)
    told.tell(events.StepWaits, "poor", attempt=1, missing=("a model",))
    assert told.place("poor") is None, "no node can run it: nobody waits behind it, and it waits for no turn"
    told.tell(events.StepWaits, "poor", attempt=1, missing=())
    assert told.place("poor") == PlaceInLine(1)


def test_places_that_are_free_are_those_that_nothing_runs_on() -> None:
    told = Told()
    told.accepted("runs", ONE, node="n")
    told.accepted("next", ONE)
    assert told.place("next", slots=2) == PlaceInLine(1, 0.0, 0.0)
    assert told.place("next", slots=1) == PlaceInLine(1)
    told.settled("runs")
    assert told.place("next", slots=1) == PlaceInLine(1, 0.0, 0.0)


def test_a_queued_job_is_behind_what_lies_before_it_in_kafka() -> None:
    told = Told()
    told.accepted("live", ONE)
    ends = {(STANDARD, 0): 100, (STANDARD, 1): 30, (BATCH, 0): 1000}
    told.backlog.observe(ends, 0.0, {(STANDARD, 0): 40, (STANDARD, 1): 25, (BATCH, 0): 1000})
    queued: dict[str, Any] = {"state": JobState.QUEUED, "priority_class": STANDARD}
    assert told.place("mine", **queued, queued_offset=60) == PlaceInLine(1 + 1 + 20 + 5)
    assert told.place("other", **queued) == PlaceInLine(1 + 1 + 65), "not known where it lies: behind all"


def test_a_snapshot_tells_of_a_job_whose_beginning_was_not_seen() -> None:
    told = Told()
    value = told.accepted("old", ONE).decode()
    other = Told()
    whole = {"snapshot": "s", "parts": 1, "part": 0, "facts": (value,)}
    other.tell(events.JobSnapshot, "old", None, **whole)
    other.tell(events.JobSnapshot, "old", None, **whole)
    assert other.place("old") == PlaceInLine(1)


def test_a_retry_waits_again_and_an_end_leaves_nothing() -> None:
    told = Told()
    told.accepted("a", ONE)
    told.claimed("a")
    failure = {"kind": "model_timeout", "message": "m"}
    told.tell(events.AttemptFailed, "a", attempt=1, failure=failure, retry_after_seconds=1.0)
    assert told.place("a") is None
    told.tell(events.StepRetried, "a", attempt=2)
    assert told.place("a", slots=1) == PlaceInLine(1, 0.0, 0.0), "nothing runs any longer"
    told.settled("a")
    assert len(told.lines) == 0


@pytest.mark.parametrize("claimed", [True, False], ids=["claimed", "answered at once"])
def test_a_prediction_is_judged_when_the_step_starts(claimed: bool) -> None:
    told = Told()
    told.accepted("first", ONE)
    told.accepted("second", ONE)
    for second in range(1, 61):
        told.now = float(second)
        told.accepted(f"x{second}", ONE)
        told.claimed(f"x{second}")
        told.settled(f"x{second}")
        told.lines.look({}, told.now)
    found = told.place("second")
    assert found is not None
    assert found.seconds == pytest.approx(2.0, rel=0.05)
    series = metrics.PLACE_ERROR.labels("standard")
    before = series._sum.get()
    if claimed:
        told.now += 4.0
        told.claimed("second")
    else:
        told.now += 9.0
        told.tell(events.StepAnswered, "second", attempt=1, answer=Answer(text="x"), timings=Timings(total_ms=5_000))
    assert series._sum.get() - before == pytest.approx(0.5, rel=0.06)
    told.settled("second")


def _facts(waiting: dict[str, set[str]], fact: Any) -> None:
    """The same by the contract: what the bytes are read as."""
    job, step = getattr(fact, "job", None), getattr(fact, "step", None)
    if isinstance(fact, events.JobAccepted):
        waiting[fact.job] = set()
    elif isinstance(fact, events.JobSettled):
        waiting.pop(fact.job, None)
    elif job in waiting and step is not None:
        asked = isinstance(fact, events.StepAsked | events.StepRetried | events.StepFunded)
        given = getattr(fact, "node", None) is not None or getattr(fact, "unfunded", None)
        if (asked and not given) or (isinstance(fact, events.StepWaits) and not fact.missing):
            waiting[job].add(step)
        elif asked or isinstance(fact, events.StepClaimedBy | events.StepAnswered | events.AttemptFailed | events.StepWaits):
            waiting[job].discard(step)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.jsonl")), ids=lambda path: path.stem)
def test_recorded_histories_give_the_lines_that_their_facts_give(path: Path) -> None:
    """By bytes and by the contract."""
    told, waiting = Told(), dict[str, set[str]]()
    for offset, value in enumerate(path.read_bytes().splitlines()):
        event = events.EVENT.validate_json(value)
        if not hasattr(event, "job") or isinstance(event, events.JobSnapshot):
            continue
        if isinstance(event, events.JobAccepted):
            told.lines.on_accepted(event.job, value, class_of(value), 0.0)
        else:
            told.lines.on_event(event.job, RawEvent(offset, event.type, value), 0.0)
        for fact in events.facts_of(event):
            _facts(waiting, fact)
        told.lines._catch_up(0.0)
        assert {job: {step.decode() for step in live.waiting} for job, live in told.lines._jobs.items()} == waiting
