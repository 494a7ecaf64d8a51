"""Eager dispatch (decision 0029): what a planner writes into a mailbox itself uses a place that was offered, and passes nobody who waits.

Not an older step of its own home's planner: no eager step is asked for while one is on the slow way, or was given back, and not taken up
(one that asks the cache is on no way). Others' only until its worker has had time to read that a router has a backlog.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf

from shared.contracts.event import (
    AttemptFailed,
    CancelRecorded,
    JobSettled,
    JobStopped,
    PlannerStarted,
    StepAnswered,
    StepAsked,
    StepClaimedBy,
    StepFunded,
    StepRetried,
    StepWaits,
    facts_of,
)
from shared.contracts.outcome import StepReleased
from tests.support.cluster.history import Written
from tests.support.cluster.violation import Violation
from tests.support.cluster.world import World

PLACES = "only places that are offered are used"
PASSED = "nobody is passed"
READING_SECONDS = 1.5
"""In which a worker that runs has read what a router announces."""
LINK_SECONDS = 0.1
SILENT_SECONDS = 4.0
"""A router that announces nothing for so long is about to be forgotten."""


def check(world: World) -> Iterator[Violation]:
    """Over everything that planners have written into mailboxes themselves."""
    yield from _places(world)
    for home in sorted(world.history.events):
        yield from _Home(world).check(home)
    yield from _others(world)


def _places(world: World) -> Iterator[Violation]:
    """Of each record of credits at most as many as it offers to this planner. A batch that was written twice counts once."""
    used: dict[tuple[str, str], set[str]] = defaultdict(set)
    asked_by = _asked_by(world)
    for eager in world.history.eager.values():
        step = eager.written.value.id
        planner, began = asked_by.get(step, ("", inf))
        if eager.written.at >= began and eager.credits in world.history.offers:  # else a fenced planner's, or the storm's copy
            used[eager.credits, planner].add(step)
    for (name, party), steps in used.items():
        offered = world.history.offers[name].value.offers.get(party, 0)
        if len(steps) > offered:
            yield Violation(PLACES, f"{len(steps)} steps use {name}, which offers {offered} places to {party}")


def _asked_by(world: World) -> dict[str, tuple[str, float]]:
    """Step → who has asked for it and given it to a node, and when his term began: a step of the same id that was written before is another
    planner's, whose append was lost with it.
    """
    found: dict[str, tuple[str, float]] = {}
    for home, events in world.history.events.items():
        planners = {w.offset: (f"{w.value.planner}-planner", w.at) for w in events if isinstance(w.value, PlannerStarted)}
        valid = (w.value for w in world.history.valid(home))
        asked = (e for e in valid if isinstance(e, StepAsked) and (e.node is not None or e.step in world.history.looked_up))
        found |= {e.step: planners[e.epoch] for e in asked}
    return found


@dataclass(slots=True)
class _Open:
    """A step that is asked for and not known to be claimed. `slow`: its attempt goes by the routers."""

    job: str
    attempt: int
    slow: bool
    since: float
    """In one append events lie by job, not in the order in which they were decided."""
    waits: bool = True


@dataclass(slots=True)
class _Home:
    """One fold over a home's valid events."""

    world: World
    open: dict[str, _Open] = field(default_factory=dict)
    critiques: set[str] = field(default_factory=set)

    def check(self, home: int) -> Iterator[Violation]:
        valid = {(w.where, w.offset) for w in self.world.history.valid(home)}
        for written in self.world.history.events[home]:
            if isinstance(written.value, PlannerStarted):  # all that is not claimed is sent to the routers again
                for step in self.open.values():
                    step.slow = True
            elif (written.where, written.offset) in valid:
                for fact in facts_of(written.value):
                    yield from self._fold(written._replace(value=fact))

    def _fold(self, written: Written) -> Iterator[Violation]:
        event = written.value
        match event:
            case StepAsked():
                if event.node is not None:
                    yield from self._passes(written)
                if event.agent == "critique":  # it waits for no node, and for no router
                    self.critiques.add(event.step)
                elif not event.unfunded:
                    self.open[event.step] = _Open(event.job, 1, event.node is None, written.at)
            case StepFunded() | StepRetried():
                if event.step not in self.critiques and not getattr(event, "unfunded", None):
                    self.open[event.step] = _Open(event.job, event.attempt, True, written.at)
            case StepWaits() if event.step in self.open:
                self.open[event.step].waits = not event.missing
            case StepClaimedBy() | StepAnswered() | AttemptFailed():
                self.open.pop(event.step, None)
            case JobSettled() | JobStopped() | CancelRecorded():
                self.open = {step: found for step, found in self.open.items() if found.job != event.job}
            case _:
                pass

    def _passes(self, written: Written) -> Iterator[Violation]:
        event, history = written.value, self.world.history
        for step, found in self.open.items():
            if found.since >= written.at:
                continue
            in_mailbox = any(w.at <= written.at for w in history.work_of.get((step, found.attempt), ()))
            if found.slow and found.waits and not in_mailbox and not self._asks(step, event.step):
                yield Violation(PASSED, f"step {event.step} goes into a mailbox while its planner's {step} waits", event.job)
            elif not found.slow and self._given_back(step, event.step):
                yield Violation(PASSED, f"step {event.step} goes where its planner's {step} was given back", event.job)

    def _asks(self, older: str, newer: str) -> bool:
        """Whether the older one may still have asked the cache when the newer one was given a place: it was not on the slow way long before
        that lay in the mailbox.
        """
        history, mix = self.world.history, self.world.mix
        given = history.eager_of(newer)
        sent_at = history.first_sent.get((older, 1), inf) + mix.send_seconds + mix.ack_seconds + LINK_SECONDS
        return older in history.looked_up and (given is None or given.written.at <= sent_at)

    def _given_back(self, older: str, newer: str) -> bool:
        """Whether the newer one's credits tell that the older one was given back, by the same boot of the same node."""
        before, after = self.world.history.eager_of(older), self.world.history.eager_of(newer)
        if before is None or after is None:
            return False
        node, sequence = before.credits.rsplit("/", 1)
        told = self.world.history.offers.get(after.credits)
        same = after.credits.rsplit("/", 1)[0] == node
        released = any(isinstance(w.value, StepReleased) for w in self.world.history.outcomes_of.get((older, 1), ()))
        return same and released and told is not None and told.value.eager_from > int(sequence)


def _others(world: World) -> Iterator[Violation]:
    mix, backlogs = world.mix, _backlogs(world)
    slack = READING_SECONDS + 2 * mix.delivery_seconds + mix.send_seconds + mix.ack_seconds
    for eager in world.history.eager.values():
        step = eager.written.value
        outcomes = world.history.outcomes_of.get((step.id, step.attempt), ())
        taken_at = min((w.at for w in outcomes if getattr(w.value, "node", None) == eager.node), default=inf)
        begin = eager.written.at - slack
        if mix.away or mix.slow or any(isinstance(w.value, StepReleased) for w in outcomes) or taken_at < eager.written.at:
            continue  # a copy of what it has already is not taken again
        for router, since, until in backlogs:
            if since <= begin and taken_at <= until and not world.missing(eager.node, begin, taken_at):
                yield Violation(PASSED, f"{eager.node} took step {step.id} although {router} had a backlog since {since:.1f}", step.job)
                break


def _backlogs(world: World) -> list[tuple[str, float, float]]:
    """(router, from, to): it has announced a backlog again and again, and never none in between."""
    found: list[tuple[str, float, float]] = []
    for router, said in world.history.presence.items():
        since, last = None, 0.0
        for at, backlog in [*said, (inf, 0)]:
            if since is not None and (not backlog or at - last > SILENT_SECONDS):
                found.append((router, since, last))
                since = None
            if backlog and since is None:
                since = at
            last = at
    return found
