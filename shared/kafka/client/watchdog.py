"""When a consumer has silently stopped: a pure policy over what was observed (notes: aiokafka issues #1154, #703).

A partition is stuck when it has unread records, is asked for, is not paused, and its position has not moved for a while. A partition
that nobody asks for (no credits, paused, another class first) is no stall, and a cluster that does not answer is none either: a new
consumer would wait for it just the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from shared.kafka.port import TopicPartition


class Reason(StrEnum):
    """Why a consumer is rebuilt; a metric label."""

    STUCK_PARTITION = "stuck_partition"
    NO_ASSIGNMENT = "no_assignment"
    HUNG_POLL = "hung_poll"


@dataclass(frozen=True, slots=True)
class WatchdogLimits:
    """Seconds. `rebuilds` within `rebuild_window` are tried; the next one gives up."""

    look: float = 5.0
    """Between two looks at end offsets and positions."""
    stuck: float = 30.0
    unassigned: float = 60.0
    """A rebalance takes at most the rebalance timeout plus a session; far above both."""
    hung_poll: float = 30.0
    """How far a poll may run over its own timeout before it is broken off."""
    rebuilds: int = 3
    rebuild_window: float = 600.0
    pause_cap: float = 5.0


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a partition's position stood, and since when. A position of None was not known (the client does not tell)."""

    position: int | None
    since: float
    behind: bool


Progress = Mapping[TopicPartition, Standing]


@dataclass(frozen=True, slots=True)
class Vitals:
    """What is known about a consumer at one instant (monotonic seconds)."""

    now: float
    unassigned_since: float | None
    """Since when a group consumer waits for an assignment (an empty one counts as one); None when it does not wait."""
    progress: Progress


def observe(before: Progress, sample: Mapping[TopicPartition, tuple[int | None, int]], now: float) -> dict[TopicPartition, Standing]:
    """The standings after a look. `sample`: (position, end offset) of every partition that is asked for; all others are forgotten."""
    after = {}
    for tp, (position, end) in sample.items():
        known = before.get(tp)
        behind = position is None or position < end
        if known is None or known.position != position or not behind or not known.behind:
            known = Standing(position, now, behind)
        after[tp] = known
    return after


def diagnose(vitals: Vitals, limits: WatchdogLimits) -> Reason | None:
    """Why the consumer is to be rebuilt, or None."""
    if vitals.unassigned_since is not None:
        return Reason.NO_ASSIGNMENT if vitals.now - vitals.unassigned_since >= limits.unassigned else None
    if any(standing.behind and vitals.now - standing.since >= limits.stuck for standing in vitals.progress.values()):
        return Reason.STUCK_PARTITION
    return None


def may_rebuild(rebuilt_at: Sequence[float], now: float, limits: WatchdogLimits) -> bool:
    """Whether another rebuild is worth trying: rebuilding again and again cures nothing, and the process ends instead."""
    return sum(now - at < limits.rebuild_window for at in rebuilt_at) < limits.rebuilds


def pause_seconds(rebuilds: int, random_unit: float, limits: WatchdogLimits) -> float:
    """Full jitter, so that consumers of many processes do not come back at once after a broker restart."""
    return float(random_unit * min(limits.pause_cap, 2.0**rebuilds))
