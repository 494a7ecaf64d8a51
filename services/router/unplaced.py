"""Unplaced: what becomes of a step that no live node can run. Pure.

It leaves its partition soon, so that it holds nobody back, and comes back through the delay tiers; how long it has waited in all
travels with it. Beyond the limit, or at its deadline, it fails and says what is missing.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.router.settings import RouterPolicy
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.step import Step


@dataclass(frozen=True, slots=True)
class Leaves:
    """`step`, older by what has passed when it comes back, is to come back at `due_at` (epoch seconds)."""

    step: Step
    due_at: float


def decide(step: Step, missing: tuple[str, ...], waited_seconds: float, wall: float, policy: RouterPolicy) -> Leaves | Failure:
    """`waited_seconds`: how long this router has held the step without a node; `wall`: epoch seconds now."""
    total = step.unplaced_seconds + max(0.0, waited_seconds)
    if total >= policy.no_node_limit_seconds:
        return no_node(missing)
    delay = min(policy.unplaced_max_delay_seconds, max(policy.unplaced_min_delay_seconds, total), policy.no_node_limit_seconds - total)
    if step.deadline_at is not None:
        delay = min(delay, max(0.0, step.deadline_at - wall))
    return Leaves(step.changed(unplaced_seconds=total + delay), wall + delay)


def no_node(missing: tuple[str, ...]) -> Failure:
    """Nobody could run it for as long as it may wait."""
    return Failure(kind=FailureKind.NO_NODE, message="no node can run this step; missing: " + ", ".join(missing), missing=missing)


def deadline() -> Failure:
    """The job's deadline passed before a node had a place for the step."""
    return Failure(kind=FailureKind.DEADLINE, message="the deadline passed while the step waited for a node")


def internal() -> Failure:
    """Work on the step fails here for a reason that is in nobody's rules. Another router may be a newer one."""
    return Failure(kind=FailureKind.INTERNAL, message="the router failed on this step; its log says why")


def too_large() -> Failure:
    """The step, wrapped for its way, exceeds the size of a record."""
    return Failure(kind=FailureKind.TOO_LARGE, message="the step exceeds the size of a record")
