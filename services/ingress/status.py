"""JobStatus: what a caller sees of a job, as a pure fold of its events. Only the fields that are shown are parsed.

Folding is idempotent by offset: an event at or below `JobStatus.offset` changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json

from shared.contracts.base import Contract, PriorityClass
from shared.contracts.delayed import DelayedJob
from shared.contracts.failure import Failure
from shared.contracts.result import Result
from shared.contracts.usage import Usage

_MAX_STEPS = 1_000


class State(StrEnum):
    """How far a job is. It only grows."""

    QUEUED = "queued"
    DELAYED = "delayed"
    """It waits for its `not_before`."""
    ACCEPTED = "accepted"
    RUNNING = "running"
    SETTLED = "settled"


_RANK = {state: rank for rank, state in enumerate(State)}


class StepStatus(BaseModel):
    """One step as a caller sees it."""

    id: str
    path: str | None = None
    agent: str | None = None
    model: str | None = None
    state: str = "asked"
    """asked, running, answered, retrying, failed"""
    attempt: int = 0
    nodes: list[str] = Field(default_factory=list)
    """Nodes that claimed an attempt, in order."""
    failures: list[str] = Field(default_factory=list)
    """Kinds, one a failed attempt."""
    usage: Usage | None = None


class JobStatus(BaseModel):
    """The view of one job. Instants are seconds since the Unix epoch."""

    model_config = ConfigDict(populate_by_name=True)

    id: str
    state: State = State.QUEUED
    priority_class: PriorityClass | None = Field(default=None, alias="class")
    tenant: str | None = None
    pattern: str | None = None
    model: str | None = None
    home: int
    submitted_at: float | None = None
    """While it is queued, at the instance that submitted it; from then on `accepted_at` tells."""
    not_before: float | None = None
    accepted_at: float | None = None
    deadline_at: float | None = None
    settled_at: float | None = None
    cancel_requested: bool = False
    limits_neared: list[str] = Field(default_factory=list)
    """Limits of which the soft bound is reached."""
    steps: list[StepStatus] = Field(default_factory=list)
    result: Result | None = None
    offset: int = -1
    """Of the last event folded in, on the job's home partition."""
    digest: str | None = None
    """Of the request; absent where another version wrote the status. Not shown."""

    def waits(self) -> DelayedJob | None:
        """What a cancel must tell of a job that waits for its `not_before`; None of any other."""
        if self.not_before is None or _RANK[self.state] > _RANK[State.DELAYED]:
            return None
        return DelayedJob(
            due_at=self.not_before,
            since=self.submitted_at or 0.0,
            tenant=self.tenant or "default",
            priority_class=self.priority_class or PriorityClass.STANDARD,
            pattern=self.pattern or "single",
            digest=self.digest or "",
        )

    def public(self) -> bytes:
        """JSON for callers."""
        return self.__pydantic_serializer__.to_json(self, exclude_none=True, exclude={"offset", "digest"}, by_alias=True)

    def stored(self) -> bytes:
        """JSON for the store; `JobStatus.model_validate_json` reads it."""
        return self.__pydantic_serializer__.to_json(self, exclude_none=True, by_alias=True)


def ended(result: Result, home: int, digest: str | None) -> JobStatus:
    """Of a job of which nothing but its result is known."""
    return JobStatus(
        id=result.job,
        state=State.SETTLED,
        priority_class=result.priority_class,
        tenant=result.tenant,
        home=home,
        accepted_at=result.accepted_at,
        settled_at=result.finished_at,
        result=result,
        digest=digest,
    )


class RawEvent(NamedTuple):
    """A valid record of `job-events`, not parsed yet."""

    offset: int
    kind: str
    value: bytes


class _Fact(Contract):
    at: float = 0.0


class _RequestBrief(Contract):
    tenant: str = "default"
    pattern: str = "single"
    model: str = "auto"


class Delayed(_Fact):
    """Of JobDelayed."""

    waits: DelayedJob


class Accepted(_Fact):
    """Of JobAccepted."""

    request: _RequestBrief
    priority_class: PriorityClass
    deadline_at: float
    digest: str | None = None


class Asked(_Fact):
    """Of StepAsked."""

    step: str
    path: str
    agent: str
    model: str


class Claimed(_Fact):
    """Of StepClaimedBy."""

    step: str
    attempt: int
    node: str


class Answered(_Fact):
    """Of StepAnswered."""

    step: str
    attempt: int
    node: str | None = None
    usage: Usage = Usage()


class AttemptFailed(_Fact):
    """Of AttemptFailed."""

    step: str
    attempt: int
    failure: Failure
    retry_at: float | None = None
    counted: bool = True


class Retried(_Fact):
    """Of StepRetried."""

    step: str
    attempt: int


class LimitNeared(_Fact):
    """Of LimitNeared."""

    limit: str
    used: float
    bound: float


class CancelRecorded(_Fact):
    """Of CancelRecorded."""

    reason: str


class Settled(_Fact):
    """Of JobSettled."""

    result: Result
    digest: str | None = None


class Snapshot(_Fact):
    """Of JobSnapshot: the job's own facts again."""

    facts: tuple[str, ...]


Fact = Delayed | Accepted | Asked | Claimed | Answered | AttemptFailed | Retried | LimitNeared | CancelRecorded | Settled | Snapshot

SHOWN: dict[str, type[Fact]] = {
    "job_delayed": Delayed,
    "job_accepted": Accepted,
    "step_asked": Asked,
    "step_claimed": Claimed,
    "step_answered": Answered,
    "attempt_failed": AttemptFailed,
    "step_retried": Retried,
    "limit_neared": LimitNeared,
    "cancel_recorded": CancelRecorded,
    "job_settled": Settled,
    "job_snapshot": Snapshot,
}
"""Event type → the part of it that is shown; every other type is skipped."""


def parse(kind: str, value: bytes | str) -> Fact | None:
    """The shown part of an event; None for kinds that a caller does not see. Raises ValidationError."""
    model = SHOWN.get(kind)
    return None if model is None else model.model_validate_json(value)


def fold(job: str, home: int, before: JobStatus | None, events: Iterable[RawEvent]) -> JobStatus:
    """`before` with `events` (in offset order) applied; `before` is not changed. Raises ValidationError on a foreign event."""
    status = JobStatus(id=job, home=home) if before is None else before.model_copy(deep=True)
    status.home = home
    for event in events:
        if event.offset > status.offset:
            fact = parse(event.kind, event.value)
            if fact is not None:
                _apply(status, fact)
            status.offset = event.offset
    return status


def _apply(status: JobStatus, fact: Fact) -> None:
    match fact:
        case Delayed():
            _on_delayed(status, fact.waits)
        case Accepted():
            _on_accepted(status, fact)
        case Settled():
            _reach(status, State.SETTLED)
            status.result, status.settled_at = fact.result, fact.result.finished_at
        case CancelRecorded():
            status.cancel_requested = True
        case LimitNeared():
            status.limits_neared.append(fact.limit)
        case Snapshot():
            _on_snapshot(status, fact)
        case _:
            _on_step(status, fact)


def _reach(status: JobStatus, state: State) -> None:
    if _RANK[state] > _RANK[status.state]:
        status.state = state


def _on_accepted(status: JobStatus, fact: Accepted) -> None:
    _reach(status, State.ACCEPTED)
    status.submitted_at = None
    status.accepted_at, status.deadline_at, status.priority_class = fact.at, fact.deadline_at, fact.priority_class
    status.tenant, status.pattern, status.model = fact.request.tenant, fact.request.pattern, fact.request.model
    status.digest = fact.digest


def _on_delayed(status: JobStatus, waits: DelayedJob) -> None:
    _reach(status, State.DELAYED)
    status.not_before, status.submitted_at = waits.due_at, status.submitted_at or waits.since
    status.tenant, status.pattern, status.model = waits.tenant, waits.pattern, waits.model
    status.priority_class, status.digest = waits.priority_class, waits.digest


def _on_snapshot(status: JobStatus, fact: Snapshot) -> None:
    """A reader that has seen the job from its beginning knows all of it already."""
    if status.accepted_at is not None and status.steps:
        return
    for text in fact.facts:
        inner = parse(_kind_of(text), text)
        if inner is not None and not isinstance(inner, Snapshot):
            _apply(status, inner)


def _kind_of(text: str) -> str:
    found: Any = from_json(text)
    return str(found.get("type", "")) if isinstance(found, dict) else ""


def _on_step(status: JobStatus, fact: Asked | Claimed | Answered | AttemptFailed | Retried) -> None:
    _reach(status, State.RUNNING)
    step = _step(status, fact.step)
    if step is None:
        return
    match fact:
        case Asked():
            step.path, step.agent, step.model = fact.path, fact.agent, fact.model
        case Claimed():
            step.state, step.attempt = "running", max(step.attempt, fact.attempt)
            step.nodes.append(fact.node)
        case Answered():
            step.state, step.attempt, step.usage = "answered", max(step.attempt, fact.attempt), fact.usage
            if fact.node is not None and fact.node not in step.nodes:  # claims of short steps are not always recorded
                step.nodes.append(fact.node)
        case AttemptFailed():
            step.state = "failed" if fact.retry_at is None else "retrying"
            step.attempt = max(step.attempt, fact.attempt)
            step.failures.append(fact.failure.kind.value)
        case Retried():
            step.state, step.attempt = "asked", max(step.attempt, fact.attempt)


def _step(status: JobStatus, identifier: str) -> StepStatus | None:
    for step in status.steps:
        if step.id == identifier:
            return step
    if len(status.steps) >= _MAX_STEPS:
        return None
    step = StepStatus(id=identifier)
    status.steps.append(step)
    return step
