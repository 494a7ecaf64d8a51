"""Entry: one step in this router's hands, from the record that brought it to the moment when it needs nothing more."""

from __future__ import annotations

from services.router.demand import Demand, demand_of
from shared.contracts.base import PriorityClass
from shared.contracts.step import Step
from shared.kafka.port import Record
from shared.kafka.window import Window

MIN_COST_TOKENS = 64
"""A step costs at least this in fair shares: every call has a fixed part."""


class Entry:
    """Satisfies `fairness.Item`. `arrived_at` is in monotonic seconds."""

    __slots__ = ("arrived_at", "cost", "lane", "priority_class", "record", "step", "tenant", "unplaced_at", "window")

    def __init__(self, record: Record, step: Step, window: Window, priority_class: PriorityClass, now: float) -> None:
        self.record = record
        self.step = step
        self.window = window
        self.priority_class = priority_class
        """That it is served in: its topic's, or a higher one when its deadline is near."""
        self.arrived_at = now
        self.tenant = step.tenant
        self.lane: Demand = demand_of(step)
        self.cost = max(MIN_COST_TOKENS, step.estimated_tokens)
        self.unplaced_at: float | None = None
        """Monotonic seconds since when no live node could run it."""

    def finish(self) -> None:
        """Its record needs nothing more and may be committed past."""
        self.window.finish(self.record.offset)
