"""Settings of the planner: `TUTTI_PLANNER__...` beside what every service has."""

from __future__ import annotations

from pydantic import BaseModel, Field, PositiveFloat, PositiveInt

from services.planner.budgets.rules import BudgetPolicy
from services.planner.engine.policy import Policy
from shared.contracts.base import PriorityClass
from shared.contracts.limits import Limits
from shared.retry import RetryPolicy
from shared.settings import ClusterSettings


class PlannerOptions(BaseModel):
    """Durations in seconds."""

    live_jobs: PositiveInt = 300
    """Per partition; the rest waits in Kafka. An eighth of them is each class's own."""
    interactive_share: float = Field(default=0.9, ge=0.5, lt=1.0)
    """Interactive jobs are taken first up to this share, while others wait."""
    queue_records: PositiveInt = 1_000
    """Per input partition, read ahead of the fold."""
    queue_bytes: PositiveInt = 2 * 1024 * 1024
    """The same in bytes; whichever is reached first. Both are soft by one fetch."""
    round_outcomes: PositiveInt = 500
    round_jobs: PositiveInt = 200
    """Most inputs of one round; a round is one append."""
    commit_interval_seconds: PositiveFloat = 0.5
    claim_delay_seconds: PositiveFloat = 0.02
    """Claims alone wait this long for other events of their round: most short steps have ended by then."""
    snapshot_distance: PositiveInt = 20_000
    """A live job that holds the watermark further behind than this many records is written again."""
    lease_seconds: PositiveFloat = 20.0
    claim_timeout_seconds: PositiveFloat = 5.0
    no_node_seconds: PositiveFloat = 600.0
    deadline_interactive_seconds: PositiveFloat = 120.0
    deadline_standard_seconds: PositiveFloat = 3_600.0
    deadline_batch_seconds: PositiveFloat = 86_400.0
    attempts: PositiveInt = Field(default=3, le=20)
    backoff_base_seconds: PositiveFloat = 0.5
    backoff_cap_seconds: PositiveFloat = 30.0
    budget_wait_seconds: PositiveFloat = 30.0
    """Longest wait of a step for its tenant's budget."""
    budget_idle_seconds: PositiveFloat = 30.0
    """A share of a tenant's budget that a home does not use goes back after this."""
    limits: Limits = Limits(calls=64, steps=128, depth=4, width=16)

    def policy(self) -> Policy:
        """What the decisions depend on."""
        return Policy(
            lease_seconds=self.lease_seconds,
            claim_timeout_seconds=self.claim_timeout_seconds,
            no_node_seconds=self.no_node_seconds,
            deadline_seconds={
                PriorityClass.INTERACTIVE: self.deadline_interactive_seconds,
                PriorityClass.STANDARD: self.deadline_standard_seconds,
                PriorityClass.BATCH: self.deadline_batch_seconds,
            },
            retry=RetryPolicy(self.attempts, self.backoff_base_seconds, self.backoff_cap_seconds),
            limits=self.limits,
            budgets=BudgetPolicy(wait_seconds=self.budget_wait_seconds, idle_seconds=self.budget_idle_seconds),
        )


class PlannerSettings(ClusterSettings):
    """Everything the planner reads from the environment."""

    planner: PlannerOptions = PlannerOptions()
