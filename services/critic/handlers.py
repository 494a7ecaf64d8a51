"""Records of `critiques` as what is asked, and what was found as outcomes. A record that asks for no critique is an InvalidRecord."""

from __future__ import annotations

from typing import NamedTuple

from shared.contracts import headers
from shared.contracts.chat import Answer
from shared.contracts.critique import Critique
from shared.contracts.failure import Failure
from shared.contracts.outcome import StepFailed, StepSucceeded
from shared.contracts.step import Step
from shared.contracts.usage import Timings
from shared.contracts.verdict import CritiqueVerdict
from shared.errors import InvalidRecord
from shared.kafka.port import Message, Record
from shared.processing.tries import message
from shared.processing.window import Window
from shared.topics import Topics

_SENTENCES = 32
"""Findings that keep their sentences: more go into no prompt, and a verdict must fit a record."""


class AskedCritique(NamedTuple):
    """A critique in this critic's hands."""

    step: Step
    critique: Critique
    trace: str | None
    offset: int
    window: Window


def read_critique(record: Record, window: Window, topics: Topics) -> AskedCritique:
    """Raises InvalidRecord."""
    step = message(record, Step.model_validate_json, "step")
    if not step.is_critique or step.critique is None:
        raise InvalidRecord("the step is no critique")
    if step.home >= topics.settings.home_partitions:
        raise InvalidRecord("the step's home is not a partition of this cluster")
    return AskedCritique(step, step.critique, headers.Envelope(record.headers).traceparent(), record.offset, window)


def succeeded(asked: AskedCritique, verdict: CritiqueVerdict, seconds: float, topics: Topics) -> Message:
    """To the job's home."""
    short = tuple(each if at < _SENTENCES else each.model_copy(update={"says": ""}) for at, each in enumerate(verdict.findings))
    answer = Answer(verdict=verdict.model_copy(update={"findings": short}))
    step = asked.step
    outcome = StepSucceeded(job=step.job, step=step.id, attempt=step.attempt, answer=answer, timings=Timings(total_ms=1e3 * seconds))
    return _message(asked, outcome, topics)


def failed(asked: AskedCritique, failure: Failure, topics: Topics) -> Message:
    """The same of one that could not be made."""
    step = asked.step
    return _message(asked, StepFailed(job=step.job, step=step.id, attempt=step.attempt, failure=failure), topics)


def _message(asked: AskedCritique, outcome: StepSucceeded | StepFailed, topics: Topics) -> Message:
    step = asked.step
    return Message(
        topics.outcomes, outcome.to_bytes(), step.job.encode(), step.home, headers.envelope(outcome.type, asked.trace), step.tenant
    )
