"""Settings of the router: `TUTTI_ROUTER__<NAME>`."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings

from shared.contracts.base import Label, Ordinal, PositiveSeconds
from shared.placement.policies import known
from shared.placement.waking import WakeSettings
from shared.scheduling.class_shares import INTERACTIVE_SHARE
from shared.settings import of_service


class RouterSettings(BaseSettings):
    """What a router may be told."""

    model_config = of_service("router")

    policy: Annotated[Label, AfterValidator(known)] = "hybrid"
    """How a node is chosen: the name of a file of `shared/placement/policies`."""
    window: Ordinal = 1536
    """Steps of one partition that are looked at out of order: about what three homes may have live (6 homes over 2 partitions), so that
    turns reach all of it.
    """
    window_span: Ordinal = 3072
    """How far a step may overtake the first unfinished one of its partition: what is read again after a crash."""
    buffered_records: Ordinal = 1024
    """Read ahead of the window, per partition; whichever of the two is reached first."""
    buffered_bytes: Ordinal = 1_048_576
    """The same in bytes."""
    round_steps: Ordinal = 512
    """Steps given to nodes in one round of sends."""
    commit_seconds: PositiveSeconds = 0.25
    """Between two commits of positions: what is read again after a crash."""
    tick_seconds: PositiveSeconds = 0.25
    """How often deadlines, lost nodes and unplaceable steps are looked for. Routing does not wait for it."""
    presence_seconds: PositiveSeconds = 1.0
    """How often a router says that it is there, and what it waits for."""
    presence_min_seconds: PositiveSeconds = 0.05
    """A backlog that doubles is announced earlier, but not more often than this."""
    node_lost_seconds: PositiveSeconds = 5.0
    """Without credits for so long a node is lost."""
    node_forgotten_seconds: PositiveSeconds = 300.0
    """A node that has not announced itself for so long is forgotten (it announces itself every 60 s)."""
    unplaced_after_seconds: PositiveSeconds = 1.0
    """A step that no live node can run leaves its partition after this."""
    unplaced_min_delay_seconds: PositiveSeconds = 1.0
    """Least wait of a step that no live node can run."""
    unplaced_max_delay_seconds: PositiveSeconds = 10.0
    """It comes back after about as long as it has waited already, within these bounds."""
    no_node_limit_seconds: PositiveSeconds = 600.0
    """Without a node for so long in all a step fails."""
    unable_limit_seconds: PositiveSeconds = 10.0
    """The same where any model may answer, and every one that is registered denies what is asked for (tools, pictures)."""
    wake: WakeSettings = WakeSettings()
    """Machines that sleep (`shared/placement/waking.py`)."""
    interactive_share: float = Field(default=INTERACTIVE_SHARE, ge=0.5, lt=1.0)
    """Interactive steps go first up to this share of the tokens, while others wait."""
    quantum_tokens: Ordinal = 512
    """Deficit round robin over tenants: tokens a turn."""
    routed_after_seconds: PositiveSeconds = 0.5
    """A step that its node has not told its home of by then is told of by StepRouted (and a tick): the claim timeout begins that late."""
