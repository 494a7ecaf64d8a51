"""One attempt that this worker has claimed: what is known of it from taking to outcome. Mutable, and owned by this process alone.

Outcomes as records: each goes to the job's home partition, keyed by its job, with the trace it came with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf
from typing import Any

from prometheus_client import Histogram

from shared.contracts import headers
from shared.contracts.base import ClaimId, NodeId, StepId
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.outcome import ClaimsRenewed, StepClaimed, StepFailed, StepReleased, StepSucceeded, WorkerStarted
from shared.contracts.step import Step
from shared.contracts.tasks import TaskProgress
from shared.kafka.port import Message
from shared.placement import why
from shared.processing.lane import OutboxEntry
from shared.telemetry import metrics

MOST_CLAIMS_A_RECORD = 1_000

Written = StepClaimed | StepSucceeded | StepFailed | StepReleased


class OutcomeWriter:
    """Makes records for one `outcomes` topic."""

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def message(self, outcome: Written, step: Step, trace: str | None) -> Message:
        """The record."""
        return Message(self._topic, outcome.to_bytes(), step.job.encode(), step.home, headers.envelope(outcome.type, trace), step.tenant)

    def started(self, node: NodeId, incarnation: int, homes: int) -> list[Message]:
        """To every home: this boot goes on."""
        value = WorkerStarted(node=node, incarnation=incarnation).to_bytes()
        return [Message(self._topic, value, node.encode(), home, headers.envelope("started")) for home in range(homes)]

    def renewals(self, node: NodeId, mailbox: int, claims: Mapping[int, tuple[ClaimId, ...]]) -> list[Message]:
        """One record a home for all its claims (cut only beyond a thousand)."""
        return [
            Message(
                self._topic,
                ClaimsRenewed(node=node, mailbox=mailbox, claims=of_home[start : start + MOST_CLAIMS_A_RECORD]).to_bytes(),
                node.encode(),
                home,
                headers.envelope("renewed"),
            )
            for home, of_home in claims.items()
            for start in range(0, len(of_home), MOST_CLAIMS_A_RECORD)
        ]


AttemptKey = tuple[StepId, int]
_AGAIN_SECONDS = 5.0
"""A call that is cancelled may take so long to leave; then it is cancelled again."""


@dataclass(slots=True, eq=False)
class Attempt:
    """Times are the worker's monotonic clock, seconds."""

    step: Step
    claim: ClaimId
    trace: str | None
    taken_at: float
    expires_at: float = inf
    """The job's deadline."""
    written_ms: int = 0
    """When its record arrived in the mailbox, by the brokers' clock."""
    arrival: int = 0
    started_at: float | None = None
    asked_at: float | None = None
    """The endpoint has been asked; until then its input is fetched, or its turn awaited."""
    answered: bool = False
    """It has answered; what is left is to keep a large answer."""
    first_token_at: float | None = None
    progress_at: float | None = None
    progress: TaskProgress | None = None
    """Of a task on a model."""
    tokens: int = 0
    """Pieces received from the node so far: an estimate of completion tokens."""
    why: str | None = None
    """Of its node, as its record said."""
    busy_before: float = 0.0
    """Seconds of all the node's calls before it began."""
    rides: bool = False
    """Shares the call, and so the slot, of another attempt."""
    model: str | None = None
    stop: Failure | None = None
    """Why the attempt is being stopped; becomes its outcome."""
    released: str | None = None
    """Why the attempt is given back; no outcome is counted then."""
    stopped_at: float | None = None
    cancelled_at: float | None = None
    told: OutboxEntry | None = None
    """Its claim, for which its outcome may be sent instead."""
    task: asyncio.Task[Any] | None = field(default=None, repr=False)

    @property
    def calls(self) -> bool:
        """A model, or a tool, is being asked for it: it runs, and is no task on a model."""
        return self.task is not None and self.step.task is None

    @property
    def key(self) -> AttemptKey:
        return (self.step.id, self.step.attempt)

    def cancel(self, now: float) -> None:
        """It runs, and is to end."""
        assert self.task is not None
        self.cancelled_at = now
        self.task.cancel()

    def insist(self, now: float) -> None:
        """A cancellation may get lost in a library (0070), and the slot with it."""
        if self.cancelled_at is not None and now - self.cancelled_at >= _AGAIN_SECONDS:
            self.cancel(now)


def claimed(attempt: Attempt, node: NodeId, mailbox: int) -> StepClaimed:
    """This worker has taken it."""
    step = attempt.step
    return StepClaimed.of_valid(
        job=step.job,
        step=step.id,
        attempt=step.attempt,
        claim=attempt.claim,
        node=node,
        mailbox=mailbox,
        lease_seconds=step.lease_seconds,
        why=attempt.why,
    )


def measure(attempt: Attempt, outcome: StepSucceeded | StepFailed | StepReleased, now: float) -> None:
    """It has ended with this."""
    model = attempt.model if attempt.model and isinstance(outcome, StepSucceeded) else "-"
    started = attempt.started_at if attempt.started_at is not None else now
    kind = outcome.failure.kind.value if isinstance(outcome, StepFailed) else outcome.type
    _model_seconds(model, kind).observe(now - started)
    if attempt.first_token_at is not None and model != "-":
        _first_token_seconds(model).observe(attempt.first_token_at - started)
        foreseen, real = attempt.why and why.read(attempt.why), attempt.first_token_at - attempt.taken_at
        if foreseen and real > 0:
            metrics.START_ERROR.labels(attempt.step.priority_class.value).observe(abs(foreseen.first / real - 1))
    if attempt.stopped_at is not None:
        metrics.CANCEL_SECONDS.observe(now - attempt.stopped_at)


@lru_cache(maxsize=1024)
def _model_seconds(model: str, outcome: str) -> Histogram:
    """The histogram of one model and outcome; looking it up costs more than observing."""
    return metrics.MODEL_SECONDS.labels(model, outcome)


@lru_cache(maxsize=1024)
def _first_token_seconds(model: str) -> Histogram:
    return metrics.FIRST_TOKEN_SECONDS.labels(model)


def released(step: Step, claim: ClaimId | None, node: str, reason: str) -> StepReleased:
    """It was not taken, or is given back: no attempt is counted."""
    return StepReleased(job=step.job, step=step.id, attempt=step.attempt, claim=claim, node=node, reason=reason)


def crash() -> Failure:
    """Of a step that this worker cannot deal with, for a reason that is in nobody's rules. Another worker may be a newer one."""
    return Failure(kind=FailureKind.INTERNAL, message="the worker failed on this step; its log says why")


def crashed(step: Step, claim: ClaimId | None, node: str) -> StepFailed:
    """The outcome of such a step."""
    return StepFailed(job=step.job, step=step.id, attempt=step.attempt, claim=claim, node=node, failure=crash())
