"""JobStatus: what a caller sees of a job, as a fold of its events, which are the contract's own (`shown`).

Folding is idempotent by offset: an event at or below `JobStatus.offset` changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from services.ingress.status.shown import SHOWN, RawEvent, kind_in, parse
from shared.contracts import event as events
from shared.contracts import ids
from shared.contracts.base import Contract, PriorityClass
from shared.contracts.callback import Callback
from shared.contracts.delayed import DelayedJob
from shared.contracts.failure import Failure
from shared.contracts.limits import Limits
from shared.contracts.node import Node
from shared.contracts.result import Result
from shared.contracts.tasks import TaskProgress
from shared.patterns.models import MODELS as TASKS
from shared.scheduling.places import PlaceInLine
from shared.tree import StepStatus, Tree, fold_step, tree_of

_INTERNAL: dict[str, Any] = {
    **dict.fromkeys(("offset", "queued_offset", "callback", "digest", "rebuilt", "streamed"), True),
    "steps": {"__all__": {"epoch"}},
    "result": {"callback": True},
}


class JobState(StrEnum):
    """How far a job is. It only grows."""

    QUEUED = "queued"
    DELAYED = "delayed"
    """It waits for its `not_before`."""
    ACCEPTED = "accepted"
    RUNNING = "running"
    SETTLED = "settled"


_RANK = {state: rank for rank, state in enumerate(JobState)}


class _NearedLimit(BaseModel):
    """A limit of the job of which the soft bound is reached, as it was then."""

    limit: str
    used: float
    bound: float


class JobStatus(BaseModel):
    """The view of one job. Instants are seconds since the Unix epoch. `id` is the one inside the cluster until it is shown."""

    model_config = ConfigDict(populate_by_name=True)

    id: str
    state: JobState = JobState.QUEUED
    priority_class: PriorityClass | None = Field(default=None, alias="class")
    tenant: str | None = None
    pattern: str | None = None
    model: str | None = None
    conversation: str | None = None
    """Until its turn comes it is accepted, and has no steps."""
    home: int
    submitted_at: float | None = None
    """While it is queued, at the instance that submitted it; from then on `accepted_at` tells."""
    queued_offset: int | None = None
    """Of its record at its home on `jobs.<class>`, where it was submitted here. Not shown."""
    line: PlaceInLine | None = None
    """While it waits for a node: filled in when it is shown."""
    not_before: float | None = None
    accepted_at: float | None = None
    deadline_at: float | None = None
    settled_at: float | None = None
    cancel_requested: bool = False
    stopping: Failure | None = None
    """Why it is to end, while attempts of it are stopped."""
    limits: Limits | None = None
    """What bounds it: asked for, or filled in when it was accepted."""
    agents: dict[str, str] | None = None
    prompts: dict[str, str] | None = None
    tools: dict[str, str] | None = None
    """Reference → version, as pinned when it was accepted; absent where it uses none."""
    models: dict[str, list[str]] | None = None
    """Name of a card, synonym or tier → the models that it stood for then, first the one that is asked first."""
    limits_neared: list[_NearedLimit] = Field(default_factory=list)
    steps: list[StepStatus] = Field(default_factory=list)
    result: Result | None = None
    offset: int = -1
    """Of the last event folded in, on the job's home partition."""
    digest: str | None = None
    """Of the request; absent where it is not known. Not shown."""
    callback: Callback | None = None
    """Of a job that is not accepted yet. Not shown."""
    streamed: bool = False
    """Its text is told piece by piece. Not shown."""
    rebuilt: str | None = None
    """The snapshot that this view is being begun from, of a job whose beginning was not seen. Not shown."""

    def waits(self) -> DelayedJob | None:
        """What a cancel must tell of a job that waits for its `not_before`; None of any other."""
        if self.not_before is None or _RANK[self.state] > _RANK[JobState.DELAYED]:
            return None
        return DelayedJob(
            due_at=self.not_before if self.deadline_at is None else min(self.not_before, self.deadline_at),
            since=self.submitted_at or 0.0,
            tenant=self.tenant or "default",
            priority_class=self.priority_class or PriorityClass.STANDARD,
            pattern=self.pattern or "single",
            digest=self.digest or "",
            callback=self.callback,
        )

    @property
    def owner(self) -> str | None:
        """Whose it is; None where it is not known."""
        return ids.owner(self.id) or self.tenant

    def with_progress(self, nodes: Iterable[Node]) -> JobStatus:
        """The same with how far its tasks are, as these nodes tell it."""
        if self.pattern != TASKS.name or self.state is JobState.SETTLED:
            return self
        told: dict[str, TaskProgress | None] = {task.step: task.progress for node in nodes for task in node.tasks}
        return self.model_copy(update={"steps": [step.model_copy(update={"progress": told.get(step.id)}) for step in self.steps]})

    def tree(self) -> Tree:
        """How its steps hang together."""
        whole = self.accepted_at is not None or _RANK[self.state] <= _RANK[JobState.DELAYED]
        job = ids.public(self.id)
        return tree_of(job, self.state.value, self.steps, pattern=self.pattern, whole=whole, result=self.result)

    def public(self) -> bytes:
        """JSON for callers."""
        shown = self
        if ids.public(self.id) != self.id:
            result = self.result and self.result.model_copy(update={"job": ids.public(self.result.job)})
            shown = self.model_copy(update={"id": ids.public(self.id), "result": result})
        return self.__pydantic_serializer__.to_json(shown, exclude_none=True, exclude=_INTERNAL, by_alias=True)

    def stored(self) -> bytes:
        """JSON for the store; `JobStatus.model_validate_json` reads it."""
        return self.__pydantic_serializer__.to_json(self, exclude_none=True, by_alias=True)


def ended(result: Result, home: int, digest: str | None) -> JobStatus:
    """Of a job of which nothing but its result is known."""
    return JobStatus(
        id=result.job,
        state=JobState.SETTLED,
        priority_class=result.priority_class,
        tenant=result.tenant,
        home=home,
        accepted_at=result.accepted_at,
        settled_at=result.finished_at,
        result=result,
        digest=digest,
    )


def fold(job: str, home: int, before: JobStatus | None, history: Iterable[RawEvent]) -> JobStatus:
    """`before` with `history` (in offset order) applied; `before` is not changed. An event that cannot be read changes nothing."""
    status = JobStatus(id=job, home=home) if before is None else before.model_copy(deep=True)
    status.home = home
    for raw in history:
        if raw.offset > status.offset:
            _apply_text(status, raw.kind, raw.value)
            status.offset = raw.offset
    return status


def _apply_text(status: JobStatus, kind: str, value: bytes | str) -> None:
    event = parse(kind, value)
    for fact in () if event is None else events.facts_of(event):
        _apply(status, fact)


def _apply(status: JobStatus, event: Contract) -> None:
    match event:
        case events.JobDelayed():
            _on_delayed(status, event.waits)
        case events.JobAccepted():
            _on_accepted(status, event)
        case events.JobSettled():
            _on_settled(status, event)
        case events.CancelRecorded():
            status.cancel_requested = True
        case events.JobStopped():
            status.stopping = event.failure
        case events.LimitNeared():
            status.limits_neared.append(_NearedLimit(limit=event.limit, used=event.used, bound=event.bound))
        case events.JobSnapshot():
            _on_snapshot(status, event)
        case _:
            _reach(status, JobState.RUNNING)
            fold_step(status.steps, event)


def _reach(status: JobStatus, state: JobState) -> None:
    if _RANK[state] > _RANK[status.state]:
        status.state = state


def _on_accepted(status: JobStatus, event: events.JobAccepted) -> None:
    _reach(status, JobState.ACCEPTED)
    status.submitted_at = None
    status.accepted_at, status.deadline_at, status.priority_class = event.at, event.deadline_at, event.priority_class
    status.tenant, status.pattern, status.model = event.request.tenant, event.request.pattern, event.request.model
    status.conversation, status.streamed = event.request.conversation, event.request.stream
    status.limits, status.digest = event.limits, event.digest or None
    status.agents = {each.reference: each.version for each in event.team.members} or None
    status.prompts = {each.reference: each.version for each in event.team.prompts} or None
    status.tools = {each.reference: each.version for each in event.team.tools} or None
    status.models = {each.name: [each.model, *each.fallback_models] for each in event.team.models} or None


def _on_delayed(status: JobStatus, waits: DelayedJob) -> None:
    _reach(status, JobState.DELAYED)
    status.not_before, status.submitted_at = waits.due_at, status.submitted_at or waits.since
    status.tenant, status.pattern, status.model = waits.tenant, waits.pattern, waits.model
    status.priority_class, status.digest, status.callback = waits.priority_class, waits.digest or None, waits.callback


def _on_settled(status: JobStatus, event: events.JobSettled) -> None:
    """Its end tells whose it was, and which request, also where nothing else of it is known."""
    result = event.result
    _reach(status, JobState.SETTLED)
    status.result, status.settled_at, status.stopping = result, result.finished_at, None
    status.digest = status.digest or event.digest or None
    if status.accepted_at is None:
        status.tenant, status.pattern, status.priority_class = result.tenant, result.pattern, result.priority_class
        status.accepted_at, status.submitted_at = result.accepted_at, None


def _on_snapshot(status: JobStatus, event: events.JobSnapshot) -> None:
    """The job from its beginning again. A reader that has seen the beginning knows all of it already; another one starts over."""
    if event.part == 0 and status.accepted_at is None:
        status.rebuilt, status.steps, status.limits_neared = event.snapshot, [], []
    if status.rebuilt == event.snapshot:
        for text in event.facts:
            kind = kind_in(text)
            if kind in SHOWN and kind != event.type:
                _apply_text(status, kind, text)
        if event.part + 1 == event.parts:
            status.rebuilt = None
