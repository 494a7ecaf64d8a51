"""Everything that was ever written, read once as it is written, and indexed for the checkers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import ValidationError

from services.planner.deciding.admission import JobInput
from services.planner.handlers import JobReader
from shared.contracts import headers, ids
from shared.contracts.budget import TenantAccount, TenantShare
from shared.contracts.cache import FILL, CacheLookup
from shared.contracts.control import CONTROL
from shared.contracts.credits import CREDITS, Credits, RouterPresence
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.delayed import Delayed
from shared.contracts.event import (
    EVENT,
    CancelRecorded,
    JobAccepted,
    JobSettled,
    JobSnapshot,
    PlannerStarted,
    ScheduleFired,
    facts_of,
)
from shared.contracts.job import HeldJob
from shared.contracts.outcome import OUTCOME, CancelRequested, StepSucceeded
from shared.contracts.result import Result
from shared.contracts.step import Step
from shared.contracts.taken import TakenAhead
from shared.errors import InvalidInput
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.memory.memory_partition import MemoryRecord
from shared.kafka.port import TopicPartition, Unreadable
from shared.topics import Topics
from tests.support.sealing import Eyes


class Written(NamedTuple):
    """One message where it lies. `at`: loop time of the append."""

    where: TopicPartition
    offset: int
    at: float
    value: Any


class EagerStep(NamedTuple):
    """A step that a planner wrote into a node's mailbox itself. `credits`: node/boot/sequence of the record whose place it uses."""

    written: Written
    node: str
    credits: str


@dataclass(frozen=True, slots=True)
class Given:
    """One record on jobs.*: a job (with its id, given or derived), a cancel (None), or nothing valid (None)."""

    where: TopicPartition
    offset: int
    at: float
    job: JobInput | None
    cancel: bool = False
    cancelled: str | None = None
    """The job that a cancel names."""


class History:
    """Indexes by topic, by job and by attempt."""

    def __init__(self, log: MemoryLog, topics: Topics, eyes: Eyes | None = None) -> None:
        self._log, self._topics, self._eyes = log, topics, eyes
        self._reader = JobReader(log.id, topics)
        self.given: dict[tuple[TopicPartition, int], Given] = {}
        self._jobs: dict[str, list[Given]] = {}
        self.events: dict[int, list[Written]] = defaultdict(list)
        self.results: dict[str, list[Written]] = defaultdict(list)
        """job → every different value, in order."""
        self.result_count = 0
        self.outcomes: list[Written] = []
        self.outcomes_of: dict[tuple[str, int], list[Written]] = defaultdict(list)
        """(step, attempt) → outcomes that name it."""
        self.steps: dict[tuple[TopicPartition, int], Written] = {}
        self.first_sent: dict[tuple[str, int], float] = {}
        """(step, attempt) → when it first lay in steps.*"""
        self.work: dict[tuple[TopicPartition, int], tuple[Written, str]] = {}
        """with the node that it is for"""
        self.work_of: dict[tuple[str, int], list[Written]] = defaultdict(list)
        self.eager: dict[tuple[TopicPartition, int], EagerStep] = {}
        self.offers: dict[str, Written] = {}
        """node/boot/sequence → the record of credits"""
        self.presence: dict[str, list[tuple[float, int]]] = defaultdict(list)
        """router → when it announced which backlog"""
        self.looked_up: dict[str, Written] = {}
        """Step → the first lookup of it."""
        self.fills: list[Written] = []
        self.controls: list[Written] = []
        self.delayed: dict[tuple[TopicPartition, int], Written] = {}
        self.delays_by_value: dict[bytes, list[Written]] = defaultdict(list)
        """value of the delayed message → its records in delays.*"""
        self.forwarded: dict[bytes, list[Written]] = defaultdict(list)
        """value → records on jobs.*, steps.* and callbacks"""
        self.sent_home: set[tuple[TopicPartition, int]] = set()
        """Records on jobs.* that lay elsewhere than their id's home and have been sent on."""
        self.odd: set[tuple[str, int, int]] = set()
        """(topic, partition, offset) of records that cannot be what their topic holds."""
        self.gaps: set[tuple[str, int, int]] = set()
        """Offsets of records that nobody can unpack, but for the last of their batch, by which it is told and passed."""
        self.buried: set[tuple[str, int, int]] = set()
        """(topic, partition, offset) of records that are in dead-letters."""
        self.buried_jobs: set[str] = set()
        """Of them, jobs whose callbacks were given up."""
        self.accepted: dict[str, Written] = {}
        self.settled: dict[str, Written] = {}
        self.snapshots: dict[str, int] = {}
        """job → where its newest complete snapshot begins. These three: of valid events, as they are written."""
        self.kept: dict[tuple[int, str], Written] = {}
        """(home, what) → the newest event that a successor must find: shares and accounts of tenants, runs, cancels."""
        self.taken: dict[tuple[int, str], Written] = {}
        """(home, topic as sources name it) → the newest bitmap of its taken records"""
        self.epochs: dict[int, Written] = {}
        """home → its last PlannerStarted"""
        self.delayed_jobs: set[str] = set()
        self.delayed_steps: set[tuple[str, int]] = set()
        """that lie, or lay, in delays.*"""
        self.credits: dict[str, list[float]] = defaultdict(list)
        """node → when records of its credits were written"""
        self.left: set[str] = set()
        """Nodes whose registration was taken away since the last look: they begin at the end of the mailbox that they take next."""
        self._parts: dict[str, int] = {}
        self.violations: list[Any] = []
        self.commits: list[Callable[[str, Mapping[TopicPartition, int]], None]] = []
        self._readers = self._by_topic()
        log.written_listeners.append(self._on_written)
        log.committed_listeners.append(self._on_committed)

    def jobs(self) -> dict[str, list[Given]]:
        """id → the records that give this job."""
        if not self._jobs:  # asked for each time it is looked whether all have ended, and new ones are rare by then
            found = defaultdict(list)
            for given in self.given.values():
                if given.job is not None:
                    found[given.job.id].append(given)
            self._jobs = found
        return self._jobs

    def valid(self, home: int) -> list[Written]:
        """The facts that count, by the definition of ARCHITECTURE, planner protocol, written here once more on purpose."""
        epoch: int | None = None
        found = []
        for written in self.events[home]:
            if isinstance(written.value, PlannerStarted):
                epoch = written.offset
            elif written.value is not None and written.value.epoch == epoch:
                found += [written._replace(value=fact) for fact in facts_of(written.value)]
        return found

    def all_valid(self) -> list[Written]:
        """Of every home."""
        return [written for home in sorted(self.events) for written in self.valid(home)]

    def unrefused(self) -> set[tuple[str, int, int]]:
        """Records on jobs.* that are neither jobs nor cancels, and no dead letters yet."""
        none = {(one.where.topic, one.where.partition, one.offset) for one in self.given.values() if one.job is None and not one.cancel}
        return (none | {place for place in self.odd if place[0] in self._topics.all_jobs()}) - self.buried

    def doubly_run(self) -> int:
        """Claims of an attempt that sent a success, beyond the first."""
        claims = ({w.value.claim for w in told if isinstance(w.value, StepSucceeded)} for told in self.outcomes_of.values())
        return sum(len(found) - 1 for found in claims if found)

    def eager_of(self, step: str) -> EagerStep | None:
        """The record that its planner wrote into a mailbox itself, not a copy of it."""
        return next((eager for eager in self.eager.values() if eager.written.value.id == step and eager.credits in self.offers), None)

    def of_job(self, job: str) -> list[Written]:
        """Everything that names this job, in order of time."""
        events = [w for home in self.events.values() for w in home if getattr(w.value, "job", None) == job]
        found = [*events, *(w for w in self.outcomes if getattr(w.value, "job", None) == job), *self.results.get(job, ())]
        found += [w for w in self.controls if getattr(w.value, "job", None) == job]
        return sorted(found, key=lambda w: w.at)

    def _on_committed(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        for listener in self.commits:
            listener(group, offsets)

    def _on_written(self, records: Sequence[MemoryRecord]) -> None:
        records = records if self._eyes is None else self._eyes.open(records)
        reader = self._readers.get(records[0].topic)
        if reader is not None:
            now = self._log.clock.monotonic()
            for record in records:
                try:
                    reader(record, now)
                except ValueError:
                    self.odd.add((record.topic, record.partition, record.offset))

    def look_for_unreadable(self, where: TopicPartition, first: int) -> None:
        """What was written to a partition from `first` on and nobody can unpack: no listener was told of it."""
        partition = self._log.existing(where)
        if not partition.records or not isinstance(partition.records[-1], Unreadable):
            return
        self.odd.add((where.topic, where.partition, partition.end - 1))
        self.gaps |= {(where.topic, where.partition, offset) for offset in range(first, partition.end - 1)}
        if where.topic == self._topics.job_events:
            now = self._log.clock.monotonic()
            self.events[where.partition] += [Written(where, offset, now, None) for offset in range(first, partition.end)]

    def _by_topic(self) -> dict[str, Callable[[MemoryRecord, float], None]]:
        topics = self._topics
        readers: dict[str, Callable[[MemoryRecord, float], None]] = {
            topics.job_events: self._event,
            topics.results: self._result,
            topics.callbacks: self._delivery,
            topics.outcomes: self._outcome,
            topics.controls: self._control,
            topics.lookups: self._lookup,
            topics.fills: self._fill,
            topics.dead_letters: self._dead_letter,
            topics.nodes: self._node,
            topics.credits: self._credits,
        }
        readers |= dict.fromkeys(topics.all_jobs(), self._job)
        readers |= dict.fromkeys(topics.all_steps(), self._step)
        readers |= {topics.work(capability): self._work for capability in topics.settings.capabilities}
        readers |= {topic.name: self._delay for topic in topics.all() if topic.family.pattern.startswith("delays.")}
        return readers

    def _job(self, record: MemoryRecord, now: float) -> None:
        where = TopicPartition(record.topic, record.partition)
        try:
            read = self._reader.read(record, self._topics.class_of(record.topic))
        except InvalidInput:
            read = None
        job = read if isinstance(read, JobInput) else None
        cancelled = read.job if isinstance(read, CancelRequested) else None
        self._jobs = {}
        self.given[where, record.offset] = Given(where, record.offset, now, job, cancelled is not None, cancelled)
        self.forwarded[record.value or b""].append(Written(where, record.offset, now, job))
        lay = headers.Envelope(record.headers).forwarded_from()
        if lay is not None:
            self.sent_home.add((TopicPartition(lay.topic, lay.partition), lay.offset))

    def _event(self, record: MemoryRecord, now: float) -> None:
        where = TopicPartition(record.topic, record.partition)
        try:
            event = EVENT.validate_json(record.value or b"")
        except ValidationError:
            event = None
        written = Written(where, record.offset, now, event)
        self.events[record.partition].append(written)
        if isinstance(event, PlannerStarted):
            self.epochs[record.partition] = written
        elif event is not None and record.partition in self.epochs and event.epoch == self.epochs[record.partition].offset:
            self._valid_event(written)

    def _valid_event(self, written: Written) -> None:
        event = written.value
        if isinstance(event, JobAccepted):
            self.accepted[event.job] = written
            self.kept.pop((written.where.partition, f"cancel of {event.job}"), None)
        elif isinstance(event, JobSettled):
            self.settled[event.job] = written
        elif isinstance(event, JobSnapshot):
            if event.part == 0:
                self._parts[event.snapshot] = written.offset
            if event.part == event.parts - 1 and event.snapshot in self._parts:
                self.snapshots[event.job] = self._parts[event.snapshot]
        elif isinstance(event, TenantShare | TenantAccount):
            self.kept[written.where.partition, f"{event.type} {event.tenant}/{event.day}"] = written
        elif isinstance(event, CancelRecorded) and event.until is not None:
            self.kept[written.where.partition, f"cancel of {event.job}"] = written
        elif isinstance(event, TakenAhead):
            self.taken[written.where.partition, event.topic] = written
        elif isinstance(event, ScheduleFired):
            name = (written.where.partition, f"run of {event.schedule}")
            if name not in self.kept or self.kept[name].value.due_at <= event.due_at:
                self.kept[name] = written

    def _result(self, record: MemoryRecord, now: float) -> None:
        result = Result.model_validate_json(record.value or b"")
        seen = self.results[result.job]
        if all(record.value != other.value.to_bytes() for other in seen):
            seen.append(Written(TopicPartition(record.topic, record.partition), record.offset, now, result))
            self.result_count += len(seen) == 1

    def _outcome(self, record: MemoryRecord, now: float) -> None:
        outcome = OUTCOME.validate_json(record.value or b"")
        written = Written(TopicPartition(record.topic, record.partition), record.offset, now, outcome)
        self.outcomes.append(written)
        if hasattr(outcome, "attempt"):
            self.outcomes_of[outcome.step, outcome.attempt].append(written)

    def _step(self, record: MemoryRecord, now: float) -> None:
        where = TopicPartition(record.topic, record.partition)
        step = Step.model_validate_json(record.value or b"")
        written = Written(where, record.offset, now, step)
        self.steps[where, record.offset] = written
        self.first_sent.setdefault((step.id, step.attempt), now)
        self.forwarded[record.value or b""].append(written)

    def _work(self, record: MemoryRecord, now: float) -> None:
        where = TopicPartition(record.topic, record.partition)
        step = Step.model_validate_json(record.value or b"")
        written = Written(where, record.offset, now, step)
        says = headers.Envelope(record.headers)
        node, used = says.text(headers.NODE) or "", says.text(headers.CREDITS)
        self.work[where, record.offset] = (written, node)
        if used is not None:
            self.eager[where, record.offset] = EagerStep(written, node, f"{node}/{used}")
        self.work_of[step.id, step.attempt].append(written)

    def _credits(self, record: MemoryRecord, now: float) -> None:
        said = CREDITS.validate_json(record.value or b"")
        if isinstance(said, Credits):
            where = TopicPartition(record.topic, record.partition)
            self.offers[f"{said.node}/{said.boot}/{said.sequence}"] = Written(where, record.offset, now, said)
            self.credits[said.node].append(now)
        elif isinstance(said, RouterPresence):
            self.presence[said.router].append((now, said.backlog))

    def _control(self, record: MemoryRecord, now: float) -> None:
        where = TopicPartition(record.topic, record.partition)
        self.controls.append(Written(where, record.offset, now, CONTROL.validate_json(record.value or b"")))

    def _delay(self, record: MemoryRecord, now: float) -> None:
        where = TopicPartition(record.topic, record.partition)
        delayed = Delayed.model_validate_json(record.value or b"")
        written = Written(where, record.offset, now, delayed)
        self.delayed[where, record.offset] = written
        self.delays_by_value[delayed.value].append(written)
        if delayed.topic == self._topics.callbacks:
            return
        if delayed.topic in self._topics.all_steps():
            step = Step.model_validate_json(delayed.value)
            self.delayed_steps.add((step.id, step.attempt))
        else:
            job = HeldJob.model_validate_json(delayed.value)
            self.delayed_jobs.add(ids.qualified(job.tenant, job.id or ""))

    def _delivery(self, record: MemoryRecord, now: float) -> None:
        self.forwarded[record.value or b""].append(Written(TopicPartition(record.topic, record.partition), record.offset, now, None))

    def _lookup(self, record: MemoryRecord, now: float) -> None:
        lookup = CacheLookup.model_validate_json(record.value or b"")
        self.looked_up.setdefault(lookup.step, Written(TopicPartition(record.topic, record.partition), record.offset, now, lookup))

    def _fill(self, record: MemoryRecord, now: float) -> None:
        fill = FILL.validate_json(record.value or b"")
        self.fills.append(Written(TopicPartition(record.topic, record.partition), record.offset, now, fill))

    def _node(self, record: MemoryRecord, now: float) -> None:
        if record.value is None and record.key is not None:
            self.left.add(record.key.decode())

    def _dead_letter(self, record: MemoryRecord, now: float) -> None:
        letter = DeadLetter.model_validate_json(record.value or b"")
        self.buried.add((letter.topic, letter.partition, letter.offset))
        if letter.service == "ingress":
            self.buried_jobs.add((letter.key or b"").decode())
