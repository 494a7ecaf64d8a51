"""Which attempts have been told to stop: remembered for those that still lie unread in the mailbox. Pure and bounded."""

from __future__ import annotations

from collections import OrderedDict

from services.worker.attempt import Attempt
from shared.contracts.base import StepId
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
