"""What this worker has claimed, and the outcomes of what it has finished lately.

An attempt met again while it runs is ignored; met again after its end, its kept outcome is sent again. Both memories are bounded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from services.worker.attempt import Attempt, AttemptKey
from shared.contracts.base import ClaimId, NodeId, StepId
from shared.contracts.outcome import claim_id
from shared.contracts.step import Step

Kept = TypeVar("Kept")


class LeaseLog(Generic[Kept]):
    """Claims by attempt. `Kept` is whatever has to be sent again for a finished attempt."""

    def __init__(self, node: NodeId, *, kept_outcomes: int, kept_bytes: int) -> None:
        self.incarnation = 0
        """Of this boot; known before anything is read."""
        self._node = node
        self.claimed = 0
        """So many attempts, since the start."""
        self._live: dict[AttemptKey, Attempt] = {}
        self._steps: dict[StepId, list[Attempt]] = {}
        self._kept: OrderedDict[AttemptKey, tuple[Kept, int]] = OrderedDict()
        self._kept_bytes = 0
        self.estimated_tokens = 0
        """Of everything claimed and not ended."""
        self._most_outcomes, self._most_bytes = kept_outcomes, kept_bytes

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[Attempt]:
        return iter(list(self._live.values()))

    def claim(self, step: Step, trace: str | None, now: float) -> Attempt | None:
        """Claim the attempt; None when this worker runs it already."""
        key = (step.id, step.attempt)
        if key in self._live:
            return None
        self.claimed += 1
        attempt = Attempt(step, claim_id(self._node, self.incarnation, self.claimed), trace, now)
        self._live[key] = attempt
        self._steps.setdefault(step.id, []).append(attempt)
        self.estimated_tokens += step.estimated_tokens
        return attempt

    def finished(self, step: Step) -> Kept | None:
        """The kept outcome of this attempt, if it ended here and is still remembered."""
        key = (step.id, step.attempt)
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def end(self, attempt: Attempt, kept: Kept | None = None, size: int = 0) -> None:
        """The claim is over. `kept` (of `size` bytes) is remembered; a released attempt keeps nothing, it may come again."""
        if self._live.pop(attempt.key, None) is None:
            return
        self.estimated_tokens -= attempt.step.estimated_tokens
        of_step = self._steps[attempt.step.id]
        of_step.remove(attempt)
        if not of_step:
            del self._steps[attempt.step.id]
        if kept is not None:
            self.keep(attempt.key, kept, size)

    def keep(self, key: AttemptKey, kept: Kept, size: int) -> None:
        """Remember an outcome; the longest unused ones are forgotten beyond the bounds."""
        self._kept[key] = (kept, size)
        self._kept_bytes += size
        while len(self._kept) > self._most_outcomes or (self._kept_bytes > self._most_bytes and len(self._kept) > 1):
            _, (_, dropped) = self._kept.popitem(last=False)
            self._kept_bytes -= dropped

    def of_step(self, step: StepId) -> Iterable[Attempt]:
        """All live attempts of a step."""
        return tuple(self._steps.get(step, ()))

    def by_home(self) -> dict[int, tuple[ClaimId, ...]]:
        """Every live claim, grouped by the home partition that must hear of it."""
        homes: dict[int, list[ClaimId]] = {}
        for attempt in self._live.values():
            homes.setdefault(attempt.step.home, []).append(attempt.claim)
        return {home: tuple(claims) for home, claims in homes.items()}
