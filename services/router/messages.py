"""The messages that a router writes, and what each finishes. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from pydantic_core import to_json

from services.router.handlers import PendingStep
from services.router.unplaced import Leaves
from shared.contracts import headers
from shared.contracts.failure import Failure
from shared.contracts.outcome import StepFailed, StepRouted, StepUnplaced
from shared.contracts.step import Step
from shared.kafka.port import Message
from shared.placement.choosing import Chosen
from shared.placement.ledger import OpenDispatch
from shared.processing.delays import build_waiting
from shared.processing.window import Window
from shared.topics import Topics

_MODEL = re.compile(rb'\{"agent":"(?:[^"\\]|\\.)*","capability":"[a-z0-9-]*","operation":"[a-z]*","model":(?=")')
"""How every step begins, up to its model."""
_STEP = headers.envelope("step")
_ROUTED = headers.envelope("routed")
_FAILED = headers.envelope("failed")
_UNPLACED = headers.envelope("unplaced")


class Placed(NamedTuple):
    """A step, the node it is given to, and the place that it uses."""

    entry: PendingStep
    chosen: Chosen
    dispatch: OpenDispatch


class Closing(NamedTuple):
    """A message after whose acknowledgement the record at `offset` of `window` needs nothing more; without a window, mere news of it."""

    message: Message
    window: Window | None
    offset: int
    entry: PendingStep | None = None
    """Of a step that goes to delay: if the message proves too large, it fails instead."""


def work(placed: Placed, topics: Topics, now: float) -> Message:
    """The step for its node's mailbox: the very bytes that came, unless the model was left open or the class was raised.

    How long it has waited travels beside it, where it counts.
    """
    entry, step, chosen = placed.entry, placed.entry.step, placed.chosen
    value = entry.record.value or b""
    if entry.priority_class is not step.priority_class:
        value = step.changed(model=chosen.model, priority_class=entry.priority_class).to_bytes()
    elif chosen.model != step.model:
        value = with_model(value, step, chosen.model)
    head = (*_STEP, *_trace(entry), (headers.NODE, chosen.node.encode()), (headers.WHY, chosen.why()))
    if step.seconds_left is not None:
        head = (*head, headers.waiting(entry.waited + now - entry.arrived_at))
    return Message(topics.work(step.capability), value, entry.record.key, chosen.account.mailbox, head, step.tenant)


def with_model(value: bytes, step: Step, model: str) -> bytes:
    """The step for this model: in the bytes as they came, if planners wrote them; else written anew."""
    found, before = _MODEL.match(value), to_json(step.model)
    if found is None or not value.startswith(before, found.end()):
        return step.changed(model=model).to_bytes()
    return b"%b%b%b" % (value[: found.end()], to_json(model), value[found.end() + len(before) :])


def routed(placed: Placed, offset: int, mailbox: int, topics: Topics) -> Closing:
    """Tells the job's planner where the step lies."""
    entry, step, chosen = placed.entry, placed.entry.step, placed.chosen
    outcome = StepRouted(
        job=step.job,
        step=step.id,
        attempt=step.attempt,
        node=chosen.node,
        mailbox=mailbox,
        offset=offset,
        model=chosen.model,
        why=chosen.why().decode(),
    )
    return _to_home(entry, outcome, _ROUTED, topics)


def failed(entry: PendingStep, failure: Failure, topics: Topics) -> Closing:
    """Tells the job's planner that the attempt ended here."""
    step = entry.step
    return _to_home(entry, StepFailed(job=step.job, step=step.id, attempt=step.attempt, failure=failure), _FAILED, topics)


def unplaced(entry: PendingStep, missing: tuple[str, ...], topics: Topics) -> Closing:
    """Tells the job's planner what the step waits for. Its record stays open."""
    step = entry.step
    told = StepUnplaced(job=step.job, step=step.id, attempt=step.attempt, missing=missing)
    return _to_home(entry, told, _UNPLACED, topics)._replace(window=None)


def delayed(entry: PendingStep, leaves: Leaves, topics: Topics) -> Closing:
    """Sends the step to where it came from, later; in a topic of more partitions than settings say, to one that all know."""
    record, known = entry.record, topics.steps_partitions(entry.step.capability)
    back = Message(record.topic, leaves.step.to_bytes(), record.key, record.partition % known, (*_STEP, *_trace(entry)), entry.step.tenant)
    return Closing(build_waiting(topics, back, leaves.seconds), entry.window, record.offset, entry)


def _to_home(
    entry: PendingStep, outcome: StepRouted | StepUnplaced | StepFailed, head: tuple[tuple[str, bytes], ...], topics: Topics
) -> Closing:
    message = Message(
        topics.outcomes, outcome.to_bytes(), outcome.job.encode(), entry.step.home, (*head, *_trace(entry)), entry.step.tenant
    )
    return Closing(message, entry.window, entry.record.offset)


def _trace(entry: PendingStep) -> tuple[tuple[str, bytes], ...]:
    return ((headers.TRACEPARENT, entry.trace),) if entry.trace is not None else ()
