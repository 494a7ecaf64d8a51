"""Served: what the cache gives is an answer that history holds for an equal step of somebody who shares with this one; nothing that its
job does not want, and nothing that was kept for nobody. While nothing fails, of equal steps of a class one is sent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from math import inf
from typing import NamedTuple

from shared.contracts.base import CLASSES
from shared.contracts.cache import CacheLookup
from shared.contracts.chat import Answer
from shared.contracts.event import JobAccepted, StepAnswered, facts_of
from shared.contracts.job import Job
from shared.contracts.outcome import CacheMissed
from tests.support.cluster import settings
from tests.support.cluster.violation import Violation
from tests.support.cluster.world import World

LAW = "served"


class _Source(NamedTuple):
    at: float
    request: Job


def check(world: World) -> Iterator[Violation]:
    """Over every valid event. Nodes never give the same answer twice, so that its words tell where one comes from."""
    jobs: dict[str, Job] = {}
    given: dict[str, list[_Source]] = defaultdict(list)
    answers: list[tuple[float, StepAnswered]] = []
    for written in world.history.all_valid():
        for event in facts_of(written.value):
            if isinstance(event, JobAccepted):
                jobs[event.job] = event.request
            elif isinstance(event, StepAnswered) and event.job in jobs:
                answers.append((written.at, event))
    for at, event in answers:
        if event.answer.served is None:
            given[_words(event.answer)].append(_Source(at, jobs[event.job]))
    for at, event in answers:
        if event.answer.served is not None:
            yield from _served(event, jobs[event.job], at, given)


def _words(answer: Answer) -> str:
    return f"{answer.text}|{answer.node}"


def _served(event: StepAnswered, asked: Job, at: float, given: dict[str, list[_Source]]) -> Iterator[Violation]:
    control, served = asked.cache, event.answer.served
    assert served is not None
    if control is None or control.mode == "off" or control.no_cache:
        yield Violation(LAW, "a job that does not want it is served from the cache", event.job)
    elif control.max_age is not None and served.age_seconds > control.max_age:
        yield Violation(LAW, f"an answer {served.age_seconds:.1f} s old is served; at most {control.max_age} are wanted", event.job)
    if asked.options.temperature != 0.0 and asked.options.seed is None:
        yield Violation(LAW, "a drawn answer is served", event.job)
    if event.usage.calls or event.usage.completion_tokens:
        yield Violation(LAW, "what is served is charged", event.job)
    sources = [source for source in given.get(_words(event.answer), ()) if source.at <= at]
    if not sources:
        yield Violation(LAW, "what is served is no answer of history", event.job)
    elif not any(_shared(source.request, asked) for source in sources):
        yield Violation(LAW, "what is served is another tenant's, another question's, or was not to be kept", event.job)


def _shared(source: Job, asked: Job) -> bool:
    """A step of a chain asks in words of its own; its job's are enough to tell the questions apart."""
    kept = source.cache is not None and not source.cache.no_store and source.cache.mode != "off"
    return kept and source.tenant == asked.tenant and (source.prompt, source.options) == (asked.prompt, asked.options)


def hits(world: World) -> int:
    """How many steps were served."""
    facts = (fact for written in world.history.all_valid() for fact in facts_of(written.value))
    return sum(isinstance(fact, StepAnswered) and fact.answer.served is not None for fact in facts)


def one_leads(world: World) -> Iterator[Violation]:
    """Where nothing fails: of equal steps of a tenant none is told to go ahead while the newest leader, not of a lower class, is at it, and
    none to wait for one that is. A leader that a higher class has passed is known no more.
    """
    leads: dict[tuple[str, str], list[tuple[float, CacheLookup]]] = defaultdict(list)
    ended = {written.value.step: written.at for written in reversed(world.history.fills)}
    for written in world.history.outcomes:
        said = written.value
        if not isinstance(said, CacheMissed):
            continue
        asked = world.history.looked_up[said.step]
        lookup, others = asked.value, leads[asked.value.key, asked.value.tenant]
        at_it = [
            (at, one)
            for at, one in others[-1:]
            if asked.at < ended.get(one.step, inf) and written.at - at < settings.cache().flight_seconds
        ]
        if said.follow_seconds is None:
            if any(_rank(lookup) >= _rank(leader) for _, leader in at_it):
                yield Violation(LAW, f"step {said.step} leads beside another", said.job)
            others.append((written.at, lookup))
        elif not any(_rank(leader) <= _rank(lookup) for _, leader in at_it):
            yield Violation(LAW, f"step {said.step} waits for nobody, or for one of a lower class", said.job)


def _rank(lookup: CacheLookup) -> int:
    """0 is the highest class."""
    return CLASSES.index(lookup.priority_class)
