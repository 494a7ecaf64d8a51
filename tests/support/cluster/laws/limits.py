"""Limits: no retry after the last attempt, no step or call beyond what the job may spend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TypeGuard

from shared.contracts.event import AttemptFailed, Event, JobAccepted, StepAnswered, StepAsked, StepClaimedBy, WorkWasted
from shared.contracts.failure import FailureKind
from tests.support.cluster.violation import Violation
from tests.support.cluster.world import World

LAW = "limits hold"


def check(world: World) -> Iterator[Violation]:
    """Over every valid event, in order. A step without an end is abandoned at a time that no event tells: it counts while it runs."""
    ending = {w.value.step for w in world.history.all_valid() if _ends(w.value)}
    refused = {
        w.value.step
        for w in world.history.all_valid()
        if isinstance(w.value, AttemptFailed) and w.value.failure.kind is FailureKind.LIMIT and w.value.attempt == 1
    }
    limits: dict[str, JobAccepted] = {}
    asked: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    open_steps: dict[str, set[str]] = {}
    failures: Counter[str] = Counter()
    for written in world.history.all_valid():
        event = written.value
        if isinstance(event, JobAccepted):
            limits[event.job] = event
            open_steps[event.job] = set()
        elif getattr(event, "job", None) not in limits:
            continue  # which nobody accepted: another law's
        elif isinstance(event, StepAsked) and event.step not in refused:
            asked[event.job] += 1
            opened = open_steps[event.job] | {event.step}
            yield from _over(limits[event.job], "steps", asked[event.job])
            yield from _over(limits[event.job], "calls", calls[event.job] + len(opened))
            if event.step in ending:
                open_steps[event.job] = opened
        elif isinstance(event, StepClaimedBy):
            open_steps[event.job].add(event.step)
        elif isinstance(event, StepAnswered | WorkWasted | AttemptFailed):
            calls[event.job] += event.usage.calls
            if _ends(event) or event.step not in ending:
                open_steps[event.job].discard(event.step)
            if isinstance(event, AttemptFailed) and event.counted:
                failures[event.step] += 1
                yield from _retried(world, limits[event.job], event, failures[event.step])
                if event.retry_after_seconds is not None:
                    yield from _over(limits[event.job], "calls", calls[event.job] + len(open_steps[event.job]))


def _ends(event: Event) -> TypeGuard[StepAnswered | AttemptFailed]:
    """The step, not only an attempt of it."""
    return isinstance(event, StepAnswered) or (isinstance(event, AttemptFailed) and event.retry_after_seconds is None)


def _retried(world: World, accepted: JobAccepted, event: AttemptFailed, failures: int) -> Iterator[Violation]:
    most = accepted.limits.attempts or world.mix.attempts
    if event.retry_after_seconds is not None and failures >= most:
        yield Violation(LAW, f"step {event.step} is tried again after {failures} failures; {most} attempts are allowed", event.job)


def _over(accepted: JobAccepted, name: str, count: int) -> Iterator[Violation]:
    most = getattr(accepted.limits, name)
    if most is not None and count > most:
        yield Violation(LAW, f"job {accepted.job} has {count} {name}; {most} are allowed", accepted.job)
