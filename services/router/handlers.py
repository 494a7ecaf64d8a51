"""Records of `steps.*` as messages. A record that is none is an InvalidRecord, for the dead letters.

PendingStep: one step in this router's hands, from the record that brought it to the moment when it needs nothing more.
"""

from __future__ import annotations

from math import inf

from shared.contracts import headers
from shared.contracts.base import PriorityClass
from shared.contracts.step import Step
from shared.errors import InvalidRecord
from shared.kafka.port import Record
from shared.placement.demand import Demand, cost_of, demand_of
from shared.processing.tries import message
from shared.processing.window import Window
from shared.topics import TopicSettings


class PendingStep:
    """Satisfies `fairness.Item`. Instants are in monotonic seconds."""

    __slots__ = (
        "arrived_at", "cost", "expires_at", "lane", "priority_class", "record", "step", "tenant", "trace", "unplaced_at",
        "until", "waited", "window",
    )  # fmt: skip

    def __init__(self, record: Record, step: Step, window: Window, priority_class: PriorityClass, now: float) -> None:
        self.record = record
        self.step = step
        self.window = window
        self.priority_class = priority_class
        """That it is served in: its topic's, or a higher one when its deadline is near."""
        self.arrived_at = now
        says = headers.Envelope(record.headers)
        self.trace, self.waited = says.get(headers.TRACEPARENT), says.waited()
        """Seconds in delay, before this router read it."""
        self.expires_at = now + _seconds_left(step, record.timestamp, self.waited)
        self.tenant = step.tenant
        self.lane: Demand = demand_of(step)
        self.cost = cost_of(step)
        self.until = inf
        """It waits for no better node beyond this."""
        self.unplaced_at: float | None = None
        """Monotonic seconds since when no live node could run it."""

    @property
    def attempt(self) -> tuple[str, str, int]:
        """What it is a record of; there may be copies."""
        return self.step.job, self.step.id, self.step.attempt

    def homeless_seconds(self, now: float) -> float:
        """How long it has been without a node since it says so itself: in delay, and here."""
        assert self.unplaced_at is not None, "there is a node"
        return self.waited + now - self.unplaced_at

    def finish(self) -> None:
        """Its record needs nothing more and may be committed past."""
        self.window.finish(self.record.offset)


def _seconds_left(step: Step, written_ms: int, waited_seconds: float) -> float:
    """From now to the job's deadline. A user's instant is compared with the record's arrival, by the brokers' clock: the one here may be
    wrong.
    """
    if step.deadline_at is not None:
        return step.deadline_at - written_ms / 1000
    return inf if step.seconds_left is None else step.seconds_left - waited_seconds


def read_step(record: Record, settings: TopicSettings) -> Step:
    """The step of a `steps.*` record. Raises InvalidRecord."""
    step = message(record, Step.model_validate_json, "step")
    if step.capability not in settings.capabilities:
        raise InvalidRecord("the step's capability is not one of this cluster's")
    if step.home >= settings.home_partitions:
        raise InvalidRecord("the step's home is not a partition of this cluster")
    return step
