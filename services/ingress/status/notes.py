"""Notes for who waits for a stream, a line each: what became of a job's steps; its place in line. No prompt or answer is in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from services.ingress.status.journal import Journal
from services.ingress.status.shown import parse
from shared.contracts import event as events
from shared.scheduling.places import PlaceInLine, differs, in_words
from shared.tree import StepStatus, fold_step

TOLD_SECONDS = 3.0
"""A place is told at most so often."""


class PlaceNotes:
    """Of one job, while it waits for a node."""

    def __init__(self, place: Callable[[], PlaceInLine | None]) -> None:
        self._place = place
        self._told: PlaceInLine | None = None

    def news(self) -> list[str]:
        """Where it stands, if that is another place or time than was told last."""
        now = self._place()
        if now is None or (self._told is not None and not differs(self._told, now)):
            return []
        self._told = now
        return [in_words(now.place, now.seconds)]


class StepNotes:
    """Of one job, as far as the journal has its events."""

    def __init__(self, job: str, journal: Journal) -> None:
        self._job, self._journal = job, journal
        self._offset = -1
        self._steps: list[StepStatus] = []

    def news(self) -> list[str]:
        """What came since the last look. Of the end the stream tells itself."""
        lines = []
        for raw in self._journal.after(self._job, self._offset):
            self._offset = raw.offset
            event = None if raw.kind == "job_settled" else parse(raw.kind, raw.value)
            for fact in () if event is None else events.facts_of(event):
                fold_step(self._steps, fact)
                lines += [line for step in self._steps if step.id == getattr(fact, "step", None) and (line := _note(step, fact))]
        return lines


def _note(step: StepStatus, fact: Any) -> str:
    name = f"step {step.agent or step.path or step.id}"
    match fact:
        case events.StepAnswered():
            took = step.seconds if step.seconds is not None else step.ran_seconds
            return f"{name} answered" + (f" by {fact.node}" if fact.node else "") + (f" in {took:.1f} s" if took is not None else "")
        case events.AttemptFailed():
            return f"{name} failed ({fact.failure.kind.value})" + ("" if fact.retry_after_seconds is None else ", is tried again")
        case events.TimerSet():
            return "pausing"
    return ""
