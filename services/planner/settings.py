"""Settings of the planner: `TUTTI_PLANNER__<NAME>`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings

from services.planner.batches.batch_owner import BatchPolicy
from services.planner.budgets.rules import BudgetPolicy
from services.planner.conversations.owner import ConversationPolicy
from services.planner.kept import OLDEST_SECONDS
from services.planner.state.caching import CachePolicy
from services.planner.state.policy import Policy
from shared.contracts.base import Count, Ordinal, PositiveSeconds, PriorityClass
from shared.contracts.batch import MOST_OPEN
from shared.contracts.cache import LONGEST_SECONDS
from shared.contracts.limits import DEADLINE_SECONDS, Limits
from shared.contracts.taken import MOST_TAKEN
from shared.scheduling.class_shares import INTERACTIVE_SHARE
from shared.scheduling.retry import RetryPolicy
from shared.settings import of_service


class PlannerSettings(BaseSettings):
    """Durations in seconds."""

    model_config = of_service("planner")

    live_jobs: Ordinal = 300
    """Per partition; the rest waits in Kafka. An eighth of them is each class's own."""
    live_job_bytes: Ordinal = 16 * 1024
    """A job whose history is larger counts as several: all live jobs together have at most so many bytes each."""
    waiting_jobs: Count = 2_000
    """Per partition, beside the live ones: jobs that only wait for people or for their own timers. Beyond it they keep their places."""
    interactive_share: float = Field(default=INTERACTIVE_SHARE, ge=0.5, lt=1.0)
    """Interactive jobs are taken first up to this share, while others wait."""
    queue_records: Ordinal = 1_000
    """Per input partition, read ahead of the fold."""
    queue_bytes: Ordinal = 2 * 1024 * 1024
    """The same in bytes; whichever is reached first. Both are soft by one fetch."""
    look_ahead_records: Ordinal = MOST_TAKEN
    """Behind a longer backlog than fits, so many offsets from the first job not taken are looked through for other tenants' jobs."""
    look_ahead_bytes: Ordinal = 16 * 1024 * 1024
    """Most bytes a second of that, all partitions together. It is read at no other time."""
    round_outcomes: Ordinal = 500
    """Most outcomes folded in one round; a round is one append."""
    round_jobs: Ordinal = 200
    """Most jobs of one round."""
    commit_interval_seconds: PositiveSeconds = 0.5
    """Between two commits of positions: what is read again after a crash."""
    claim_delay_seconds: PositiveSeconds = 0.02
    """Claims alone wait this long for other events of their round: most short steps have ended by then."""
    snapshot_distance: Ordinal = 5_000
    """A live job that holds the watermark further behind than this many records is written again. What a successor replays, and whose
    results it publishes again: about a second of its CPU a home (decision 0069)."""
    lease_seconds: PositiveSeconds = 20.0
    """A claim that is not renewed for so long has lapsed: its step is given to another node. Four periods of renewal."""
    node_lost_seconds: PositiveSeconds = 10.0
    """Two periods of renewal of the workers (5 s). Beyond the lease: only that counts."""
    claim_timeout_seconds: PositiveSeconds = 5.0
    """From routing to the claim; then the step is sent again."""
    resend_seconds: PositiveSeconds = 43_200.0
    """A step that no router has mentioned for so long is sent again: well below the retention of `steps.*`."""
    critique_seconds: PositiveSeconds = 10.0
    """Longest wait for a critic; then what the gate or the policy says of that holds. Covers a critic that is started again."""
    critique_resend_seconds: PositiveSeconds = 2.5
    """A critique without an answer is asked again after this: a critic may have died with it."""
    hedge_share: float = Field(default=0.05, ge=0.0, le=1.0)
    """Of the interactive steps that do not stream at most so many get a second attempt beside one that takes longer than nearly all
    before it; 0: none does."""
    hedge_samples: Ordinal = 100
    """Calls of a model that must have ended before its slow ones are told from the others."""
    hedge_least_seconds: PositiveSeconds = 0.5
    """No step is hedged earlier: what is so short is over before a second attempt begins."""
    deadline_interactive_seconds: PositiveSeconds = DEADLINE_SECONDS[PriorityClass.INTERACTIVE]
    """Of a job of that class that names none."""
    deadline_standard_seconds: PositiveSeconds = DEADLINE_SECONDS[PriorityClass.STANDARD]
    """The same of that class."""
    deadline_batch_seconds: PositiveSeconds = DEADLINE_SECONDS[PriorityClass.BATCH]
    """The same of that class."""
    eager: bool = True
    """Write a step into the mailbox of a node that has offered this planner a place, while no router has a backlog (decision 0029)."""
    attempts: int = Field(default=3, ge=1, le=20)
    """Of a step, where its job does not say. What was given back, and lost workers' steps, have counts of their own."""
    backoff_base_seconds: PositiveSeconds = 0.5
    """Before the second attempt; twice as long before each further one."""
    backoff_cap_seconds: PositiveSeconds = 30.0
    """Longest wait between two attempts."""
    budget_wait_seconds: PositiveSeconds = 30.0
    """Longest wait of a step for its tenant's budget."""
    budget_idle_seconds: PositiveSeconds = 30.0
    """A share of a tenant's budget that a home does not use goes back after this."""
    stream_position_seconds: PositiveSeconds = 2.0
    """Longest wait for what the reader of a broken stream has been shown."""
    cancel_seconds: PositiveSeconds = 0.5
    """How long the end of a job waits for what its stopped attempts have used."""
    cancel_guesses: Count = 2_000
    """Cancels of jobs that are not known (yet): how many are kept, per partition."""
    cancelled_delays: Count = 5_000
    """Cancelled delayed jobs that are remembered, per partition."""
    settled_memory_seconds: float = Field(default=3_600.0, gt=0, le=OLDEST_SECONDS)
    """How long the id of an ended job is known, so that a repeat is answered and not run."""
    settled_memory_count: Count = 10_000
    """The same, per partition; whichever is reached first (decision 0010)."""
    followers: Count = 16
    """Callers of one live job beyond the first."""
    cache: Literal["off", "asked"] = "asked"
    """`asked`: steps of jobs that ask for it, themselves or by their tenant, may be answered from the cache."""
    cache_exact_seconds: PositiveSeconds = 0.02
    """Longest wait for the cache's word before a step is sent, by timers of 10 ms."""
    cache_meaning_seconds: PositiveSeconds = 0.08
    """The same where questions are compared by their meaning."""
    cache_follow_seconds: PositiveSeconds = 5.0
    """So long a step waits for the answer of an equal one; then it asks again, and may be the one that others wait for."""
    cache_follows: Ordinal = Field(default=24, le=1_000)
    """So often it waits for another one; then it is sent."""
    cache_ttl_seconds: float = Field(default=3_600.0, gt=0, le=LONGEST_SECONDS)
    """How long an answer may be served again where nobody says."""
    compared_share: float = Field(default=0.0, ge=0.0, le=1.0)
    """Of jobs of patterns that end well, this share is compared with its baseline (`tutti patterns report`), at its tenant's cost and
    among its concurrent jobs."""
    conversation_tokens: Ordinal = 1_000
    """Likely tokens of a conversation that a job reads word for word, half a window of 2,048; beyond it older turns are summed up."""
    batch_lines: int = Field(default=512, ge=1, le=MOST_OPEN)
    """Lines of a home's batches that are sent and have not ended, together: as many as its nodes have slots keep these busy; ends of so
    many may be in memory."""
    batch_patience_seconds: PositiveSeconds = 60.0
    """For the ends of open lines, once their batch is cancelled or its window is over."""
    conversation_seconds: float = Field(default=86_400.0, gt=0, le=OLDEST_SECONDS)
    """A conversation that nobody uses for so long is forgotten. Its texts lie in blobs, for fourteen days."""
    limits: Limits = Limits(calls=64, steps=128, depth=4, width=16)
    """Of a job that names none: model calls, steps, depth of the tree, steps at once."""

    def policy(self) -> Policy:
        """What the decisions depend on."""
        return Policy(
            lease_seconds=self.lease_seconds,
            node_lost_seconds=self.node_lost_seconds,
            claim_timeout_seconds=self.claim_timeout_seconds,
            resend_seconds=self.resend_seconds,
            critique_seconds=self.critique_seconds,
            critique_resend_seconds=self.critique_resend_seconds,
            hedge_share=self.hedge_share,
            hedge_samples=self.hedge_samples,
            hedge_least_seconds=self.hedge_least_seconds,
            deadline_seconds={
                PriorityClass.INTERACTIVE: self.deadline_interactive_seconds,
                PriorityClass.STANDARD: self.deadline_standard_seconds,
                PriorityClass.BATCH: self.deadline_batch_seconds,
            },
            retry=RetryPolicy(self.attempts, self.backoff_base_seconds, self.backoff_cap_seconds),
            limits=self.limits,
            stream_position_seconds=self.stream_position_seconds,
            cancel_seconds=self.cancel_seconds,
            cancel_guesses=self.cancel_guesses,
            cancelled_delays=self.cancelled_delays,
            settled_memory_seconds=self.settled_memory_seconds,
            settled_memory_count=self.settled_memory_count,
            followers=self.followers,
            live_job_bytes=self.live_job_bytes,
            waiting_places=self.waiting_jobs,
            batches=BatchPolicy(ahead=self.batch_lines, patience_seconds=self.batch_patience_seconds),
            conversations=ConversationPolicy(ttl_seconds=self.conversation_seconds, tokens=self.conversation_tokens),
            caching=CachePolicy(
                asked=self.cache == "asked",
                exact_seconds=self.cache_exact_seconds,
                meaning_seconds=self.cache_meaning_seconds,
                follow_seconds=self.cache_follow_seconds,
                follows=self.cache_follows,
                ttl_seconds=self.cache_ttl_seconds,
            ),
            budgets=BudgetPolicy(wait_seconds=self.budget_wait_seconds, idle_seconds=self.budget_idle_seconds),
        )
