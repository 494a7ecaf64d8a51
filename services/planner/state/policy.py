"""What the decisions of a home depend on besides history: timeouts, retries, limits. Filled from the settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from services.planner.batches.batch_owner import BatchPolicy
from services.planner.budgets.rules import BudgetPolicy
from services.planner.conversations.owner import ConversationPolicy
from services.planner.state.caching import CachePolicy
from shared.agents.beliefs import Beliefs
from shared.agents.table import Declarations
from shared.contracts.agents import Belief, QueryKind
from shared.contracts.base import NodeId, PriorityClass
from shared.contracts.limits import DEADLINE_SECONDS, Limits
from shared.patterns import BUILT_IN, Patterns
from shared.scheduling.lengths import AnswerLengths, PromptLengths
from shared.scheduling.retry import RetryPolicy


def _limits() -> Limits:
    return Limits(calls=64, steps=128, depth=4, width=16)


def nothing_learned(_: str, model: str) -> Mapping[QueryKind, Belief]:
    """Nobody judges."""
    return {}


def never_silent(_: NodeId, now: float) -> float:
    """Nobody listens."""
    return 0.0


@dataclass(frozen=True, slots=True)
class Policy:
    """All durations in seconds."""

    lease_seconds: float = 20.0
    node_lost_seconds: float = 10.0
    """A node of which neither credits nor a claim's renewals were heard for so long has lost the claim, whatever its lease."""
    silent_seconds: Callable[[NodeId, float], float] = never_silent
    """For how long a node has not been heard on `credits`, at this monotonic second; 0 where nobody can tell."""
    claim_timeout_seconds: float = 5.0
    stream_position_seconds: float = 2.0
    """Longest wait for what the reader of a broken stream has been shown; beyond it nobody seems to read."""
    resend_seconds: float = 43_200.0
    """A step of which no router has said anything for so long is sent again, the same attempt: its record may be gone with its topic, or
    by age. It never fails for it: only a router knows what a node lacks, and a busy cluster may have a longer backlog than any limit."""
    critique_seconds: float = 10.0
    """Longest wait of a step for a critic, however often it is sent; its planner's successor waits anew."""
    critique_resend_seconds: float = 2.5
    """A critique without an outcome is sent again after this, the same attempt: its record may be gone with its topic."""
    deadline_seconds: dict[PriorityClass, float] = field(default_factory=DEADLINE_SECONDS.copy)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    limits: Limits = field(default_factory=_limits)
    cancel_seconds: float = 0.5
    """How long the end of a job waits for what its stopped attempts have used."""
    cancel_guesses: int = 2_000
    """Cancels of jobs that are not known (yet): how many are kept; the oldest leaves first."""
    cancelled_delays: int = 5_000
    """Cancelled delayed jobs that are remembered; beyond that no more are taken."""
    settled_memory_seconds: float = 3_600.0
    settled_memory_count: int = 10_000
    """Bounds of the window in which a client-given id is recognised."""
    capabilities: tuple[str, ...] = ("chat", "embed")
    """What the cluster offers."""
    patterns: Patterns = BUILT_IN
    declared: Declarations = field(default_factory=Declarations)
    """Prompts, agents and profiles as they are now; a job pins what it uses of them."""
    budgets: BudgetPolicy = field(default_factory=BudgetPolicy)
    conversations: ConversationPolicy = field(default_factory=ConversationPolicy)
    batches: BatchPolicy = field(default_factory=BatchPolicy)
    lengths: AnswerLengths = field(default_factory=AnswerLengths)
    """Of answers that this process has accepted: what its steps are likely to write. No event depends on it."""
    prompts: PromptLengths = field(default_factory=PromptLengths)
    """The same of what they are likely to read."""
    beliefs: Beliefs = field(default_factory=Beliefs)
    """What judges have said of models, in all homes. No event depends on it."""
    learned: Callable[[str, str], Mapping[QueryKind, Belief]] = nothing_learned
    """What is believed of a model, by tenant and the model's full name: pinned by jobs that choose."""
    caching: CachePolicy = field(default_factory=CachePolicy)
    hedge_share: float = 0.05
    """Of the interactive steps that do not stream at most so many get a second attempt beside a slow one; 0: none does."""
    hedge_samples: int = 100
    """So many durations of a capability and model are known before one of it is slow."""
    hedge_least_seconds: float = 0.5
    followers: int = 16
    """Callers of one live job beyond the first."""
    live_job_bytes: int = 16 * 1024
    """Of history, for which a live job takes one place."""
    waiting_places: int = 2_000
    """So many more there are of a home for jobs that only wait for people and for their own timers."""

    def places(self, size: int) -> int:
        """How many places of its home's live jobs a job with so many bytes takes."""
        return 1 + size // self.live_job_bytes
