"""Laws 2 and 3 where mailboxes and claims must be looked at, which `tutti verify` does not: an answer that somebody watches comes from one
attempt and from the claim that stands; that claim was made; a step has one input.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from shared.contracts.event import AttemptFailed, JobAccepted, StepAnswered, StepAsked, StepClaimedBy, StepRetried
from shared.contracts.outcome import StepClaimed, StepSucceeded
from tests.support.cluster.history import Written
from tests.support.cluster.violation import Violation
from tests.support.cluster.world import World

LAW = "streams go on from one attempt"
CLAIM = "one claim stands"
INPUT = "a step has one input"


@dataclass(slots=True)
class _Step:
    attempt: int = 1
    claim: str | None = None
    between: bool = False
    """An attempt failed, the next has not begun."""


def check(world: World) -> Iterator[Violation]:
    """Over every valid event, in order."""
    streams: dict[str, bool] = {}
    steps: dict[str, _Step] = {}
    yield from _one_input(world)
    for written in world.history.all_valid():
        event = written.value
        if isinstance(event, JobAccepted):
            streams[event.job] = event.request.stream
        elif isinstance(event, StepAsked):
            steps[event.step] = _Step()
        elif isinstance(event, StepRetried):
            steps[event.step] = _Step(event.attempt)
        elif isinstance(event, AttemptFailed) and event.step in steps:
            steps[event.step].between = True
        elif isinstance(event, StepClaimedBy):
            steps.setdefault(event.step, _Step()).claim = event.claim
            yield from _made(world, event)
        elif isinstance(event, StepAnswered):
            yield from _answered(world, steps.get(event.step, _Step()), written, stream=streams.get(event.job, False))


def _answered(world: World, step: _Step, written: Written, *, stream: bool) -> Iterator[Violation]:
    event, job = written.value, written.value.job
    name = f"step {event.step} attempt {event.attempt}"
    outcomes = world.history.outcomes_of.get((event.step, event.attempt), ())
    sources = [w.value for w in outcomes if isinstance(w.value, StepSucceeded) and w.value.answer == event.answer and w.at <= written.at]
    if not sources:
        yield Violation(LAW, f"the answer of {name} was no outcome's yet", job)
    sent = world.history.work_of.get((event.step, event.attempt), ())
    stream = stream and (not sent or any(w.value.stream for w in sent))  # of a chain only the last step streams
    if event.answer.served is not None:
        if step.claim is not None and any(w.value.stream for w in sent):
            yield Violation(LAW, f"{name} was served although it had been claimed", job)
        return
    if stream and (event.attempt != step.attempt or step.between):
        yield Violation(LAW, f"{name} was accepted while attempt {step.attempt} stands", job)
    if stream and sources and step.claim is not None and step.claim not in {source.claim for source in sources}:
        yield Violation(CLAIM, f"{name} was accepted from another claim than {step.claim}", job)


def _one_input(world: World) -> Iterator[Violation]:
    """The id of a step holds its input: an answer made from another history is of a step that nobody asked for."""
    inputs: dict[str, tuple[object, ...]] = {}
    for written in world.history.steps.values():
        step = written.value
        given = (step.job, step.messages, step.prompt, step.texts)
        if inputs.setdefault(step.id, given) != given:
            yield Violation(INPUT, f"step {step.id} was sent with two different inputs", step.job)


def _made(world: World, event: StepClaimedBy) -> Iterator[Violation]:
    outcomes = world.history.outcomes_of.get((event.step, event.attempt), ())
    if not any(isinstance(w.value, StepClaimed) and w.value.claim == event.claim for w in outcomes):
        yield Violation(CLAIM, f"step {event.step}: no worker made the claim {event.claim}", event.job)
