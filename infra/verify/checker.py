"""Checker: the whole cluster's records, held against one another. Pure: `reading` feeds it.

First all results, delayed records and dead letters; then home by home events, outcomes and jobs; then `finish`.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field

from pydantic import TypeAdapter
from pydantic_core import from_json

from infra.verify.history import NOWHERE, History, SeenJob, digest, parsed
from infra.verify.laws import LawKind
from infra.verify.report import RecordPlace, Report
from services.planner.deciding.admission import JobInput
from services.planner.handlers import JobReader
from shared.contracts import headers, ids
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.delayed import Delayed
from shared.contracts.outcome import CancelRequested
from shared.contracts.result import Result
from shared.errors import InvalidInput
from shared.kafka.port import Record
from shared.processing.tries import read
from shared.topics import Topics, partition_of

WINDOW_SECONDS = 3_600.0
"""How long a client-given id is recognised (ARCHITECTURE, planner protocol). So much more is read before `since`."""
_RESULT: TypeAdapter[Result] = TypeAdapter(Result)
_DELAYED: TypeAdapter[Delayed] = TypeAdapter(Delayed)
_LETTER: TypeAdapter[DeadLetter] = TypeAdapter(DeadLetter)


@dataclass(frozen=True, slots=True)
class Scope:
    """What is judged. Instants in epoch seconds; `settled`: everything must have ended by now."""

    topics: Topics
    cluster: str = ""
    since: float = 0.0
    until: float = float("inf")
    settled: bool = False
    window_seconds: float = WINDOW_SECONDS
    foreign: Container[RecordPlace] = ()
    """As `Report.foreign`."""

    def covers(self, instant: float) -> bool:
        return self.since <= instant <= self.until


@dataclass(frozen=True, slots=True)
class CheckBounds:
    """What is known of one home before it is read: how far its planner had committed, and where reading begins."""

    home: int
    epoch: int | None = None
    """In force where reading of `job-events` begins; None: not known."""
    committed: Mapping[str, int] = field(default_factory=dict)
    """Jobs topic → next offset of the planner."""
    watermark: int = 0
    """The planner's position on `job-events`: every job that ended before it has its result."""
    outcomes_from: float = 0.0
    """Epoch seconds from which on `outcomes` is complete."""


class _Published:
    """The results that were read of one job: normally one."""

    __slots__ = ("in_scope", "places", "values")

    def __init__(self, in_scope: bool) -> None:
        self.in_scope = in_scope
        self.values: tuple[bytes, ...] = ()
        self.places: tuple[tuple[int, int], ...] = ()

    def add(self, value: bytes, record: Record) -> None:
        if value not in self.values:
            self.values = (*self.values, value)
            self.places = (*self.places, (record.partition, record.offset))


class Checker:
    """Feed it in the order that the module's text gives; `report` holds what it found."""

    def __init__(self, scope: Scope) -> None:
        self.report = Report(foreign=scope.foreign)
        self._scope = scope
        self._topics = scope.topics
        self._reader = JobReader(scope.cluster, scope.topics)
        self._published: dict[str, _Published] = {}
        self._delayed: dict[str, None] = {}
        self._refused: set[RecordPlace] = set()
        self._settled_before: set[str] = set()
        self._sent_on: dict[RecordPlace, str] = {}
        """Records committed past and in no history: they were sent on to their home, by reference perhaps to where they lay → the id."""
        self._arrived: set[RecordPlace] = set()
        """Where records lay that were sent on to their home."""
        self._lost: set[str] = set()
        """A job that was sent twice is lost once."""
        self._results_from: dict[int, float] = {}
        """Partition of `results` → epoch seconds before which its records may be gone."""
        self._stale_results: dict[str, list[bytes]] = {}
        self._bounds = CheckBounds(0)
        self._history = self._new_history()

    def _new_history(self) -> History:
        bounds = self._bounds
        return History(
            self.report,
            epoch=bounds.epoch,
            window_seconds=self._scope.window_seconds,
            outcomes_from=bounds.outcomes_from,
        )

    # Of the whole cluster

    def results_begin(self, partition: int, instant: float) -> None:
        """Results of this partition are gone that are older than `instant`."""
        self._results_from[partition] = instant

    def on_result(self, record: Record) -> None:
        result = parsed(_RESULT, record)
        if result is None:
            self.report.add(LawKind.UNREADABLE, RecordPlace.of(record), _text(record.key), "not a result of a known version")
            return
        published = self._published.get(result.job)
        if published is None:
            published = self._published[result.job] = _Published(self._scope.covers(result.finished_at))
        published.add(digest(result.to_bytes()), record)

    def on_delayed(self, record: Record) -> None:
        """A record of `delays.*` that has not been sent on."""
        delayed = parsed(_DELAYED, record)
        if delayed is not None and delayed.topic in self._topics.all_jobs():
            self._delayed[_given_id(delayed.value) or _text(delayed.key)] = None

    def on_dead_letter(self, record: Record) -> None:
        letter = parsed(_LETTER, record)
        if letter is not None:
            self._refused.add(RecordPlace(letter.topic, letter.partition, letter.offset))

    # Of one home

    def begin_home(self, bounds: CheckBounds) -> None:
        self._bounds = bounds
        self._history = self._new_history()

    def on_event(self, record: Record) -> None:
        self._history.on_event(record)

    def on_outcome(self, record: Record) -> None:
        self._history.on_outcome(record, refused=RecordPlace.of(record) in self._refused)

    def on_job(self, record: Record) -> None:
        """One record of `jobs.<class>`: it must have come to something."""
        if not self._scope.covers(record.timestamp / 1000):
            return
        counts, place = self.report.counts, RecordPlace.of(record)
        says = headers.Envelope(record.headers)
        lay = says.forwarded_from()
        if lay is not None:
            place = RecordPlace(lay.topic, lay.partition, lay.offset)
            self._arrived.add(place)
        given = self._given(record)
        if isinstance(given, CancelRequested) and place not in self._refused:
            counts.cancels += 1
            return
        counts.job_records += 1
        job = given.id if isinstance(given, JobInput) else _given_id(record.value) or self._reader.derived_id(record, says)
        state = self._history.jobs.get(job)
        if state is not None and (isinstance(given, JobInput) or state.source == record.offset):
            counts.resubmitted += state.records > 0
            state.records += 1
        elif place in self._refused:
            counts.dead_letters += 1
        elif record.offset >= self._bounds.committed.get(record.topic, 0):
            counts.waiting += 1
            self._must_have_ended(place, job, "no planner has taken it in")
        elif given is None:
            self.report.add(LawKind.LOST, place, job, "neither a job nor a cancel, and no dead letter says so")
        elif job in self._delayed:
            counts.delayed += 1
            self._must_have_ended(place, job, "it is delayed")
        elif lay is None:
            self._sent_on[place] = job
        else:
            self._lose(place, job, "committed past, and in no history")

    def _given(self, record: Record) -> JobInput | CancelRequested | None:
        """What a planner takes the record for; None: it must refuse it, whatever else is known of its id."""
        try:
            return read(record, lambda readable: self._reader.read(readable, self._topics.class_of(readable.topic)))
        except InvalidInput:
            return None

    def _lose(self, place: RecordPlace, job: str, detail: str) -> None:
        if job not in self._lost:
            self._lost.add(job)
            self.report.add(LawKind.LOST, place, job, detail)

    def _must_have_ended(self, place: RecordPlace, job: str, detail: str) -> None:
        if self._scope.settled:
            self.report.add(LawKind.UNFINISHED, place, job, detail)

    def end_home(self) -> None:
        """Judge the home's jobs and steps, and forget them."""
        history = self._history
        for job, state in history.jobs.items():
            if state.settled == NOWHERE:
                self._judge_live(job, state)
            else:
                self._judge_settled(job, state)
        for step in history.steps.values():
            if step.answered and not step.sent:
                place = self._event_place(step.offset)
                self.report.add(LawKind.ANSWER_FROM_NOBODY, place, step.job, f"no outcome holds the answer of attempt {step.answered}")
        for job, values in history.stale_results.items():
            if job in self._published:  # not settled here: what is published of it, if anything, is not judged yet
                self._stale_results.setdefault(job, []).extend(values)
        self._history = self._new_history()

    def _event_place(self, offset: int) -> RecordPlace:
        return RecordPlace(self._topics.job_events, self._bounds.home, offset)

    def _judge_live(self, job: str, state: SeenJob) -> None:
        if state.earlier and (published := self._published.pop(job, None)) is not None:
            self._judge_results(job, state.earlier, published)
        if state.whole and self._scope.covers(state.accepted_at):
            self.report.counts.live += 1
            self._must_have_ended(self._event_place(state.offset), job, "accepted and not ended")

    def _judge_settled(self, job: str, state: SeenJob) -> None:
        if job in self._settled_before:
            self.report.add(LawKind.SETTLED_TWICE, self._event_place(state.settled), job, "ended on another home as well")
            return
        self._settled_before.add(job)
        published = self._published.pop(job, None)
        if published is None:
            self._judge_unpublished(job, state)
        else:
            self._judge_results(job, (state.result, *state.earlier), published)

    def _judge_results(self, job: str, rightful: tuple[bytes, ...], published: _Published) -> None:
        """Each must be what a valid settle event holds."""
        for value, (partition, offset) in zip(published.values, published.places, strict=True):
            if value in rightful:
                continue
            place = RecordPlace(self._topics.results, partition, offset)
            if value in self._history.stale_results.get(job, ()):
                self.report.add(LawKind.FENCED_WRITER, place, job, "the result of a fenced planner's settle event")
            elif len(published.values) > 1:
                self.report.add(LawKind.RESULTS_DIFFER, place, job, "another result of the job is the settled one")
            else:
                self.report.add(LawKind.RESULT_WITHOUT_ACCEPTANCE, place, job, "it is not what was settled")

    def _judge_unpublished(self, job: str, state: SeenJob) -> None:
        partition = partition_of(job.encode(), self._topics.settings.other_partitions)
        if state.ended_at < max(self._scope.since, self._results_from.get(partition, 0.0)):
            return
        if self._scope.settled or state.settled < self._bounds.watermark:
            self.report.add(LawKind.RESULT_MISSING, self._event_place(state.settled), job, "ended, and no result")
        else:
            self.report.counts.unpublished += 1

    def finish(self) -> None:
        """What was sent on has arrived; what is left of the results belongs to no job that ended."""
        for place, job in self._sent_on.items():
            if place not in self._arrived:
                self._lose(place, job, "committed past, in no history, and not sent on to the home of its id")
        for job, published in self._published.items():
            if not published.in_scope:
                continue
            for value, (partition, offset) in zip(published.values, published.places, strict=True):
                place = RecordPlace(self._topics.results, partition, offset)
                if value in self._stale_results.get(job, ()):
                    self.report.add(LawKind.FENCED_WRITER, place, job, "the result of a fenced planner's settle event")
                else:
                    self.report.add(LawKind.RESULT_WITHOUT_ACCEPTANCE, place, job, "no valid settle event")


def _given_id(value: bytes | None) -> str | None:
    """The id that a job's body gives, under its tenant, if it is a body at all."""
    try:
        body = from_json(value or b"")
    except ValueError:
        return None
    given, tenant = (body.get("id"), body.get("tenant", ids.DEFAULT_TENANT)) if isinstance(body, dict) else (None, None)
    return ids.qualified(tenant, given) if isinstance(given, str) and isinstance(tenant, str) else None


def _text(key: bytes | None) -> str:
    return (key or b"").decode("utf-8", "replace")
