"""Unplaced: what becomes of a step that no live node can run. Pure.

It leaves its partition soon, so that it holds nobody back, and comes back through the delay tiers; how long it has waited in all
travels with it. Beyond the limit, or at its deadline, it fails and says what is missing.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.router.settings import RouterSettings
from shared.contracts.failure import Failure, FailureKind, clocks_differ
from shared.contracts.step import Step
from shared.placement.filters import Unplaceable


@dataclass(frozen=True, slots=True)
class Leaves:
    """`step`, as old as it is now, is to come back after `seconds`; what it really waits, the delay service says (header `waited`)."""

    step: Step
    seconds: float


def decide(step: Step, found: Unplaceable, waited_seconds: float, seconds_left: float, policy: RouterSettings) -> Leaves | Failure:
    """`waited_seconds`: how long the step has been without a node since it says so itself, in delay and here; `seconds_left`: until its
    deadline. What all models deny ends sooner, once it was judged so when it left before: of nodes that start one may be the first.
    """
    if found.hopeless is not None:
        return found.hopeless
    missing, total, limit = found.missing, step.unplaced_seconds + max(0.0, waited_seconds), policy.no_node_limit_seconds
    if total >= limit:
        return no_node(missing)
    if found.unable is not None and step.missing == missing:
        if total >= policy.unable_limit_seconds:
            return found.unable
        limit = min(limit, policy.unable_limit_seconds)
    delay = min(policy.unplaced_max_delay_seconds, max(policy.unplaced_min_delay_seconds, total), limit - total)
    left = None if step.seconds_left is None else max(0.0, seconds_left)
    older = step.changed(unplaced_seconds=total, seconds_left=left, missing=missing)
    return Leaves(older, min(delay, max(0.0, seconds_left)))


def no_node(missing: tuple[str, ...]) -> Failure:
    """Nobody could run it for as long as it may wait."""
    return Failure(kind=FailureKind.NO_NODE, message="no node can run this step; missing: " + ", ".join(missing), missing=missing)


def deadline(step: Step, written_ms: int) -> Failure:
    """The job's deadline passed before a node had a place for the step. `written_ms`: when its record arrived in the log."""
    message = "the deadline passed while the step waited for a node" + clocks_differ(step.deadline_at, written_ms)
    return Failure(kind=FailureKind.DEADLINE, message=message, missing=step.missing)


def internal() -> Failure:
    """Work on the step fails here for a reason that is in nobody's rules. Another router may be a newer one."""
    return Failure(kind=FailureKind.INTERNAL, message="the router failed on this step; its log says why")


def too_large() -> Failure:
    """The step, wrapped for its way, exceeds the size of a record."""
    return Failure(kind=FailureKind.TOO_LARGE, message="the step exceeds the size of a record")
