"""Laws 2 and 3: a step's outcome is accepted once, the first that was asked for; attempts rise by one; one claim stands for each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from shared.contracts.event import AttemptFailed, JobAccepted, JobSettled, StepAnswered, StepAsked, StepClaimedBy, StepRetried
from shared.contracts.outcome import StepClaimed, StepSucceeded
from tests.support.cluster.history import Written
from tests.support.cluster.violation import Violation
from tests.support.cluster.world import World

LAW = "accepted once"


@dataclass(slots=True)
class _Step:
    job: str
    attempt: int = 1
    claim: str | None = None
    ended: bool = False
    between: bool = False
    """An attempt failed, the next has not begun."""


def check(world: World) -> Iterator[Violation]:
    """Over every valid event, in order."""
    streams: dict[str, bool] = {}
    steps: dict[str, _Step] = {}
    ended: set[str] = set()
    yield from _one_input(world)
    for written in world.history.all_valid():
        event = written.value
        job = getattr(event, "job", None)
        if job in ended and isinstance(event, StepAsked | StepAnswered | StepRetried | AttemptFailed | StepClaimedBy):
            yield Violation(LAW, f"{event.type} of job {job} after its end", job)
        if isinstance(event, JobAccepted):
            streams[event.job] = event.request.stream
        elif isinstance(event, JobSettled):
            ended.add(event.job)
        elif isinstance(event, StepAsked):
            if event.step in steps:
                yield Violation(LAW, f"step {event.step} was asked for twice", job)
            steps[event.step] = _Step(event.job)
        elif isinstance(event, StepClaimedBy | StepAnswered | AttemptFailed | StepRetried):
            step = steps.get(event.step)
            if step is None:
                yield Violation(LAW, f"{event.type} of step {event.step}, which nobody asked for", job)
            else:
                yield from _advance(world, step, written, stream=streams.get(event.job, False))


def _advance(world: World, step: _Step, written: Written, *, stream: bool) -> Iterator[Violation]:
    event, job = written.value, step.job
    name = f"step {event.step} attempt {event.attempt}"
    if step.ended:
        yield Violation(LAW, f"{event.type} of {name} after its end", job)
    if isinstance(event, StepRetried):
        if event.attempt != step.attempt + 1 or not step.between:
            yield Violation(LAW, f"{name} follows attempt {step.attempt}, between attempts: {step.between}", job)
        step.attempt, step.claim, step.between = event.attempt, None, False
    elif isinstance(event, StepClaimedBy):
        if event.attempt == step.attempt and step.claim is not None and step.claim != event.claim:
            yield Violation("one claim stands", f"{name} is claimed by {step.claim} and by {event.claim}", job)
        if event.attempt != step.attempt:
            yield Violation("one claim stands", f"{name} is claimed while attempt {step.attempt} stands", job)
        step.claim = event.claim
        yield from _first_claim(world, written)
    elif isinstance(event, AttemptFailed):
        if event.attempt != step.attempt or step.between:
            yield Violation(LAW, f"{name} failed while attempt {step.attempt} stands, between attempts: {step.between}", job)
        step.between = event.retry_after_seconds is not None
        step.ended = event.retry_after_seconds is None
    elif isinstance(event, StepAnswered):
        step.ended = True
        if event.attempt > step.attempt:
            yield Violation(LAW, f"{name} was answered while attempt {step.attempt} stands", job)
        yield from _answered(world, step, written, stream=stream)


def _answered(world: World, step: _Step, written: Written, *, stream: bool) -> Iterator[Violation]:
    """An answer is that of an outcome in the log; of a stream it is the claim's that stands, and of the newest attempt."""
    event, job = written.value, step.job
    name = f"step {event.step} attempt {event.attempt}"
    outcomes = world.history.outcomes_of.get((event.step, event.attempt), ())
    sources = [w.value for w in outcomes if isinstance(w.value, StepSucceeded) and w.value.answer == event.answer and w.at <= written.at]
    if not sources:
        yield Violation(LAW, f"the answer of {name} is no outcome's", job)
    sent = world.history.work_of.get((event.step, event.attempt), ())
    stream = stream and (not sent or any(w.value.stream for w in sent))  # of a chain only the last step streams
    if event.answer.served is not None:
        if step.claim is not None and any(w.value.stream for w in sent):
            yield Violation("streams go on from one attempt", f"{name} was served although it had been claimed", job)
        return
    if stream and (event.attempt != step.attempt or step.between):
        yield Violation("streams go on from one attempt", f"{name} was accepted while attempt {step.attempt} stands", job)
    if stream and sources and step.claim is not None and step.claim not in {source.claim for source in sources}:
        yield Violation("one claim stands", f"{name} was accepted from another claim than {step.claim}", job)


def _one_input(world: World) -> Iterator[Violation]:
    """The id of a step holds its input: an answer made from another history is of a step that nobody asked for."""
    inputs: dict[str, tuple[object, ...]] = {}
    for written in world.history.steps.values():
        step = written.value
        given = (step.job, step.messages, step.prompt, step.texts)
        if inputs.setdefault(step.id, given) != given:
            yield Violation(LAW, f"step {step.id} was sent with two different inputs", step.job)


def _first_claim(world: World, written: Written) -> Iterator[Violation]:
    """Two claims of an attempt: the first in the log stands, unless its owner gave it up first."""
    event = written.value
    outcomes = world.history.outcomes_of.get((event.step, event.attempt), ())
    if not any(isinstance(w.value, StepClaimed) and w.value.claim == event.claim for w in outcomes):
        yield Violation("one claim stands", f"step {event.step}: no worker made the claim {event.claim}", event.job)


def doubly_run(world: World) -> dict[str, int]:
    """How often attempts were answered more than once: allowed, counted."""
    counts: dict[str, int] = defaultdict(int)
    for (step, attempt), outcomes in world.history.outcomes_of.items():
        claims = {w.value.claim for w in outcomes if isinstance(w.value, StepSucceeded)}
        if len(claims) > 1:
            counts[f"{step}/{attempt}"] = len(claims)
    return counts
