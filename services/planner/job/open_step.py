"""OpenStep: a step that history has asked for and whose outcome it does not hold."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from shared.contracts.base import ClaimId, StepId
from shared.contracts.cache import CacheLookup
from shared.contracts.review import Deliberation
from shared.contracts.step import Length, StepRequest


class Phase(Enum):
    """Where an open step stands."""

    UNFUNDED = auto()
    """Waits for the tenant's budget; the attempt is not sent."""
    ASKED = auto()
    """Sent; no claim stands. It may wait in Kafka, in a router, or in a mailbox."""
    CLAIMED = auto()
    WAITING = auto()
    """An attempt failed; the next begins after the backoff."""
    SLEEPING = auto()
    REVIEWED = auto()
    """People decide on it."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The claim that stands for the current attempt."""

    id: ClaimId
    node: str
    mailbox: int
    lease_seconds: float


@dataclass(slots=True)
class Lookup:
    """What a step asks the cache before its first attempt is sent; not in history."""

    said: CacheLookup
    follows: int = 0
    """How often it was told to wait for another step."""
    following: bool = False
    sent: bool = False


@dataclass(slots=True)
class OpenStep:
    """A step that history has asked for and whose outcome it does not hold."""

    id: StepId
    path: str
    request: StepRequest | None
    """None for a sleep and a review."""
    reserved_tokens: int = 0
    reserved_micros: int = 0
    charged_day: int | None = None
    """Whose budget the current attempt reserves; None: nobody's."""
    attempt: int = 1
    failures: int = 0
    """Attempts that count against the limit."""
    phase: Phase = Phase.ASKED
    claim: Claim | None = None
    routed: tuple[str, int] | None = None
    """(node, mailbox) of the current attempt, from the router; not in history."""
    avoid: tuple[str, ...] = ()
    retry_after_seconds: float = 0.0
    prefix: str = ""
    """Text of the answer that the current attempt continues."""
    prefix_tokens: int | None = None
    """As the nodes that wrote it counted them."""
    shown: str | None = None
    """What the reader of the broken stream says he has been shown; in history only once the next attempt begins with it."""
    shown_tokens: int | None = None
    missing: tuple[str, ...] = ()
    """What no node has that the current attempt needs, as a router says; empty while nobody says so."""
    told_missing: int = 0
    """How often that was recorded of this step."""
    beyond_window: int | None = None
    """The largest window that the step did not fit, 0 of unknown size."""
    backoff_until: float = 0.0
    """Monotonic seconds: the next attempt begins no earlier, even when the reader has answered (state)."""
    wakes_at: float = 0.0
    """Of a sleep: wall-clock seconds of the planner that set it."""
    wakes_after: float | None = None
    """The same in seconds from the job's acceptance."""
    review: Deliberation | None = None
    due_at: float = float("inf")
    """Monotonic seconds of this step's next timer; armed by the engine."""
    patience_until: float = float("inf")
    """Of a critique that was sent: how long a critic is awaited (state)."""
    leased_until: float = float("inf")
    """Of the claim that stands (state)."""
    claimed_at: float = 0.0
    """When the claim that stands was folded, monotonic seconds (state)."""
    hedge_at: float = float("inf")
    """When another attempt may be begun beside it (state)."""
    former: Claim | None = None
    """That goes on beside the attempt that stands, as far as this planner knows (state)."""
    former_attempt: int = 0
    releases: int = 0
    """Times a router's choice was handed back unclaimed; bounds how fast it is sent again."""
    why: str | None = None
    """Of its node, as its outcome said (state)."""
    stopped: bool = False
    """Its node was told to stop, by this planner (state)."""
    length: Length | None = None
    """Of the request, where this planner has asked for the step (state)."""
    lookup: Lookup | None = None
    """Of a step that this planner asks the cache about, until it ends (state)."""

    @property
    def asks_cache(self) -> bool:
        """Whether it waits for the cache's word, and has not been sent by anybody."""
        return self.lookup is not None and not self.lookup.sent and self.phase is Phase.ASKED and self.routed is None

    def stands(self, attempt: int, claim: ClaimId | None) -> bool:
        """Whether this claim of this attempt is the one that stands."""
        return self.claim is not None and self.claim.id == claim and self.attempt == attempt
