"""Steps that are claimed and wait for a slot: most urgent class first, then arrival. A less urgent step ages, so it cannot starve.

Which attempts have been told to stop: remembered for those that still lie unread in the mailbox. Pure and bounded.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterator
from math import inf

from services.worker.attempt import Attempt
from shared.contracts.base import ClaimId, PriorityClass, StepId
from shared.contracts.chat import Operation
from shared.contracts.control import StopStep
from shared.contracts.step import Step


class StoppedSteps:
    """Step id to the highest attempt that was stopped. A stop of one claim is not remembered: that claim is known here or nowhere."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._upto: OrderedDict[StepId, tuple[int, str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._upto)

    def remember(self, stop: StopStep) -> None:
        """Keep a stop that names no claim; the oldest is forgotten beyond the bound."""
        if stop.claim is not None:
            return
        attempt, _ = self._upto.get(stop.step, (0, ""))
        if stop.attempt >= attempt:
            self._upto[stop.step] = (stop.attempt, stop.reason)
        self._upto.move_to_end(stop.step)
        while len(self._upto) > self._limit:
            self._upto.popitem(last=False)

    def reason(self, step: Step) -> str | None:
        """Why this attempt must not be run; None when it may."""
        found = self._upto.get(step.id)
        return found[1] if found and step.attempt <= found[0] else None


def concerns(stop: StopStep, attempt: Attempt) -> bool:
    """Whether `stop` is meant for this live attempt."""
    if stop.claim is not None:
        return stop.claim == attempt.claim
    return attempt.step.id == stop.step and attempt.step.attempt <= stop.attempt


HEAD_START_SECONDS = {PriorityClass.INTERACTIVE: 0.0, PriorityClass.STANDARD: 2.0, PriorityClass.BATCH: 10.0}
"""A step is passed over by more urgent ones that arrive within this many seconds after it, by no later ones."""

GROUP_SECONDS = 1.0
"""A step that has waited less than this may be passed over by one of its class for the model that ran last: fewer loads."""

Begins = Callable[[Attempt], bool]


class Inbox:
    """A heap with removal. Bounded by `limit`; the caller releases what does not fit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._heap: list[tuple[float, int, Attempt]] = []
        self._waiting: dict[int, Attempt] = {}
        self._held: dict[ClaimId, Attempt] = {}
        self._arrivals = 0
        self._waits_for_others = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._held)

    def __iter__(self) -> Iterator[Attempt]:
        return iter([*self._waiting.values(), *self._held.values()])

    @property
    def blocked(self) -> bool:
        """The most urgent one waits for others to end, as of the last look: its model would put theirs out of memory."""
        return self._waits_for_others in self._waiting

    @property
    def full(self) -> bool:
        """Nothing more fits."""
        return len(self) >= self._limit

    def hold(self, attempt: Attempt) -> None:
        """Of what must not be done twice: it waits for `let_go`."""
        assert not self.full, "release what does not fit"
        self._held[attempt.claim] = attempt

    def let_go(self, claim: ClaimId) -> None:
        """It may begin. Nothing, where it does not wait here, or no longer."""
        attempt = self._held.pop(claim, None)
        if attempt is not None:
            self.push(attempt)

    def push(self, attempt: Attempt) -> None:
        """Add a claimed attempt. `attempt.taken_at` is its arrival, monotonic seconds."""
        assert not self.full, "release what does not fit"
        self._arrivals += 1
        attempt.arrival = self._arrivals
        self._waiting[attempt.arrival] = attempt
        rank = attempt.taken_at + HEAD_START_SECONDS[attempt.step.priority_class]
        heapq.heappush(self._heap, (rank, attempt.arrival, attempt))

    def pop(self, model: str | None = None, now: float = inf, begins: Begins | None = None) -> Attempt | None:
        """The most urgent attempt; None when empty. While it has not waited long, one of its class for `model` goes first.

        `begins`: whether the model of one may begin now; as long as the most urgent one's may not, no other is taken but those.
        """
        self._drop_removed()
        self._waits_for_others = 0
        if not self._heap:
            return None
        first = self._heap[0][2]
        if now - first.taken_at < GROUP_SECONDS and first.step.model != model:
            alike = self._first_for(model, first.step.priority_class)
            if alike is not None and (begins is None or begins(alike)):
                del self._waiting[alike.arrival]
                return alike
        if begins is not None and not begins(first):
            self._waits_for_others = first.arrival
            return None
        heapq.heappop(self._heap)
        return self._waiting.pop(first.arrival)

    def _drop_removed(self) -> None:
        while self._heap and self._heap[0][1] not in self._waiting:
            heapq.heappop(self._heap)

    def _first_for(self, model: str | None, priority_class: PriorityClass) -> Attempt | None:
        for attempt in self._waiting.values():
            if attempt.step.model == model and attempt.step.priority_class is priority_class:
                return attempt
        return None

    def pop_like(self, attempt: Attempt, limit: int) -> list[Attempt]:
        """Up to `limit` attempts whose step can share the call of this one: embeddings of its model; in order of arrival.

        Not those above the inline bound: each of them is a call's worth, and all would be in memory at once.
        """
        step = attempt.step
        if step.operation is not Operation.EMBED or not self._waiting:
            return []
        wanted = (step.operation, step.model, None)
        like = [a for a in self._waiting.values() if (a.step.operation, a.step.model, a.step.input_ref) == wanted][:limit]
        for found in like:
            del self._waiting[found.arrival]
        return like

    def remove(self, attempt: Attempt) -> bool:
        """Take one attempt out; False when it does not wait here."""
        if self._held.pop(attempt.claim, None) is not None:
            return True
        return self._waiting.pop(attempt.arrival, None) is not None

    def clear(self) -> list[Attempt]:
        """Take everything out, in order of arrival."""
        taken = list(self)
        self._waiting.clear()
        self._held.clear()
        self._heap.clear()
        return taken
