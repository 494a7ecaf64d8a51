"""When a consumer has silently stopped: a pure policy over looks at it (aiokafka issues #1154, #703). And when a producer is not heard.

A partition is stuck when it has unread records, is asked for, is not paused, and its position does not move. A partition that nobody asks
for (no credits, paused, another class first) is no stall. Looks are counted, not seconds: while the cluster does not answer, or the process
is stopped, there are none, and nobody is to blame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf

from shared.kafka.port import TopicPartition


class Reason(StrEnum):
    """Why a consumer is given up."""

    STUCK_PARTITION = "a partition has unread records and does not move"
    NO_ASSIGNMENT = "the group assigns nothing"
    HUNG_POLL = "a poll does not return"


@dataclass(frozen=True, slots=True)
class WatchdogLimits:
    """`look`: seconds between two looks at a consumer; the others are how many looks in a row find it so."""

    look: float = 5.0
    stuck: int = 6
    unassigned: int = 12
    """A rebalance takes at most the rebalance timeout plus a session; far above both."""
    hung_poll: int = 6


@dataclass(frozen=True, slots=True)
class Sight:
    """What one look sees."""

    partitions: Mapping[TopicPartition, tuple[int | None, int]] = field(default_factory=dict)
    """(position, end offset) of what is asked for; a position of None is not known, the client does not tell."""
    unassigned: bool = False
    """A member of a group that waits for its assignment (an empty one is one)."""
    poll: int | None = None
    """The number of the poll that is under way."""


class Watchdog:
    """The looks at one consumer."""

    def __init__(self, limits: WatchdogLimits) -> None:
        self._limits = limits
        self._behind: dict[TopicPartition, tuple[int | None, int]] = {}
        """Where it stands, and in how many looks since the first that found it there."""
        self._unassigned = 0
        self._poll: tuple[int | None, int] = (None, 0)

    def look(self, sight: Sight) -> Reason | None:
        """Why the consumer is to be given up, or None."""
        number, looks = self._poll
        self._poll = (sight.poll, looks + 1 if sight.poll is not None and sight.poll == number else 0)
        self._unassigned = self._unassigned + 1 if sight.unassigned else 0
        before, self._behind = self._behind, {}
        for tp, (position, end) in sight.partitions.items():
            if position is None or position < end:
                stood, looks = before.get(tp, (position, -1))
                self._behind[tp] = (position, looks + 1 if stood == position else 0)
        if self._poll[1] >= self._limits.hung_poll:
            return Reason.HUNG_POLL
        if self._unassigned > self._limits.unassigned:
            return Reason.NO_ASSIGNMENT
        return Reason.STUCK_PARTITION if self.stuck else None

    @property
    def stuck(self) -> list[str]:
        """What stands still, and where."""
        return [f"{tp.topic}/{tp.partition} at {at}" for tp, (at, looks) in self._behind.items() if looks >= self._limits.stuck]


UNHEARD_SECONDS = 10.0
"""Far above a slow acknowledgement; a broker that is lost is replaced within its session."""
AGAIN_SECONDS = 5.0
"""Within this what has failed is sent again: the silence goes on. Beyond it nobody sends, and nothing is known."""


class Hearing:
    """Whether what one producer sends is acknowledged at all. Monotonic seconds.

    Reads say nothing of it: with fewer replicas than `min.insync.replicas` Kafka serves every fetch and takes no write, and the client goes
    on trying without a word.
    """

    __slots__ = ("_failed_at", "_since", "_under_way")

    def __init__(self) -> None:
        self._under_way, self._since, self._failed_at = 0, inf, -inf

    def begun(self, now: float) -> None:
        """A batch is on its way."""
        if not self._under_way and now - self._failed_at > AGAIN_SECONDS:
            self._since = now
        self._under_way += 1

    def ended(self, now: float, *, acknowledged: bool) -> None:
        """Of one that had begun."""
        self._under_way -= 1
        if acknowledged:
            self._since, self._failed_at = now, -inf
        else:
            self._failed_at = now

    def unheard(self, now: float) -> bool:
        """Something has been on its way, or sent again and again, for so long, and nothing was acknowledged."""
        waits = self._under_way or now - self._failed_at <= AGAIN_SECONDS
        return bool(waits) and now - self._since > UNHEARD_SECONDS
