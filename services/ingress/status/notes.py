"""StepNotes: what became of a job's steps, a line each, for who waits for its stream. Nothing of prompts or answers is in them."""

from __future__ import annotations

from typing import Any

from services.ingress.status.journal import Journal
from services.ingress.status.shown import parse
from shared.contracts import event as events
from shared.tree import StepStatus, fold_step


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
