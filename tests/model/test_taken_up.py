"""StepRouted only for steps that were not taken up: every interleaving of one step's way from its record to its claim.

Routers one after the other, each reading the step again unless its record is committed past; one node whose worker may die and come back,
or find its mailbox begun at the end; credits that are read late, or written by a worker that is dead by now. A mailbox record may be one
that the worker cannot read. `told` is what credits say: of each record from `since` to before `upto` a claim is acknowledged.
Not modelled: releases and outcomes (they count as claims), several nodes, Kafka's lost sends.

Checked: where only faults could still happen, the step is claimed (a lease runs), or its claim timeout has begun.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from tests.model.search import Explored, Step, checks, explore


class Reach(NamedTuple):
    """Of one credits record."""

    since: int = 0
    upto: int = 0
    read: int = 0


class State(NamedTuple):
    """`dispatched`: the living router's record in the mailbox, with whether it may be dropped; `finished`: its step needs nothing more."""

    mailbox: int = 0
    """Records that lie there."""
    dispatched: tuple[int, bool] | None = None
    finished: bool = False
    committed: bool = False
    known: Reach = Reach()
    """What the living router has read of credits."""
    credits: Reach = Reach()
    """The newest record."""
    worker: Reach | None = Reach()
    position: int = 0
    """Committed by the worker."""
    claimed: bool = False
    armed: bool = False
    """The claim timeout runs."""
    deaths: int = 2
    odd: int = 1


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule; set otherwise, a planted bug."""

    waits: bool = True
    """The record is committed past only when the step is told of, one way or the other."""
    by_told: bool = True
    """StepRouted is dropped for records that are told of; else for those that are read."""
    tells_no_odd: bool = True
    """What the worker could not read is not told of."""
    tells_own: bool = True
    """A worker tells only of what it has read itself."""
    doubts: bool = True
    """A record that lies below what was told before it was written lies in another topic of that name."""


def routers(state: State, rule: Rule) -> Iterator[Step[State]]:
    if state.credits != state.known:
        yield Step("the router reads the credits", state._replace(known=state.credits))
    if state.committed:
        return
    if state.dispatched is None and not state.finished:
        at = state.mailbox
        written = state._replace(mailbox=at + 1, dispatched=(at, not rule.doubts or at >= state.known.upto))
        yield Step(f"the router writes the step at {at}", written)
    if state.dispatched is not None:
        at, sure = state.dispatched
        upto = state.known.upto if rule.by_told else state.known.read
        if sure and state.known.since <= at < upto:
            yield Step("the router drops StepRouted", state._replace(dispatched=None, finished=True))
        yield Step("the router sends StepRouted", state._replace(dispatched=None, finished=True, armed=True))
    if state.finished or (state.dispatched is not None and not rule.waits):
        yield Step("the router commits", state._replace(committed=True))
    if state.deaths:
        gone = state._replace(dispatched=None, finished=False, known=Reach(), deaths=state.deaths - 1)
        yield Step("the router dies", gone, fault=True)


def workers(state: State, rule: Rule) -> Iterator[Step[State]]:
    worker = state.worker
    if worker is None:
        yield Step("the worker comes back", state._replace(worker=Reach(*(3 * (state.position,)))), fault=True)
        since = state.mailbox if rule.tells_own else 0
        yield Step("the mailbox begins at its end", state._replace(worker=Reach(since, *(2 * (state.mailbox,)))), fault=True)
        return
    if worker.read < state.mailbox:
        yield Step(f"the worker reads {worker.read}", state._replace(worker=worker._replace(read=worker.read + 1)))
        if state.odd and worker.upto == worker.read:
            behind = worker.read + 1
            passed = Reach(behind if rule.tells_no_odd else worker.since, behind, behind)
            yield Step(f"the worker cannot read {worker.read}", state._replace(worker=passed, odd=0), fault=True)
    if worker.upto < worker.read:
        yield Step(
            f"the claim of {worker.upto} is acknowledged", state._replace(worker=worker._replace(upto=worker.upto + 1), claimed=True)
        )
    if state.position < worker.upto:
        yield Step("the worker commits", state._replace(position=worker.upto))
    if worker != state.credits:
        yield Step("the worker writes credits", state._replace(credits=worker))
    if state.deaths:
        yield Step("the worker dies", state._replace(worker=None, deaths=state.deaths - 1), fault=True)


def steps(state: State, rule: Rule) -> Iterator[Step[State]]:
    yield from routers(state, rule)
    yield from workers(state, rule)


LOST = "no claim timeout runs"


def over(state: State) -> str | None:
    return None if state.claimed or state.armed else LOST


def search(case: tuple[Rule, State]) -> Explored:
    rule, first = case
    return explore(first, partial(steps, rule=rule), lambda _: None, over)


RULE = Rule()
FRESH = State()
MADE_ANEW = State(known=Reach(0, 1, 1), credits=Reach(0, 1, 1), worker=None, deaths=0)
"""One record was read and told of; then the mailbox's topic was made anew. A router that reads old credits only after it has written into
the new topic is misled: not covered. It takes a worker, too, that dies before it reads there.
"""
BUGS = {
    "the router commits before it knows": ((replace(RULE, waits=False), FRESH), LOST),
    "StepRouted is dropped by what is read": ((replace(RULE, by_told=False), FRESH), LOST),
    "what could not be read is told of": ((replace(RULE, tells_no_odd=False), FRESH), LOST),
    "a worker tells of what it has not read": ((replace(RULE, tells_own=False), FRESH), LOST),
    "a new topic under an old position": ((replace(RULE, doubts=False), MADE_ANEW), LOST),
}
test_the_rule_holds, test_a_planted_bug_is_seen = checks(search, {"fresh": (RULE, FRESH), "made anew": (RULE, MADE_ANEW)}, BUGS, states=100)
