"""Deliveries: every interleaving of the ends of two jobs, their receiver, the ingresses that deliver one after the other, and a delay.

One partition holds what is to be delivered: what planners wrote, and what comes back from `delays`. An owner takes records out of order,
sends, and finishes one when its receiver took it, or the next try of it, or its dead letter, is acknowledged; it commits up to the first
that is unfinished. It may die at any time; it may lose the partition and hear late of what it had sent. A receiver may take it and its
answer be lost. Delay may forward twice. Not modelled: lanes, times, the group (who is no longer the owner cannot commit).

Checked: where only faults could still happen, each end was received or lies in the dead letters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from tests.model.search import Explored, Step, checks, explore

MOST_ATTEMPTS = 2
JOBS = "ab"


class State(NamedTuple):
    """A record is (job, failed attempts). `open`: offsets in the owner's hands, each with what it does there."""

    log: tuple[tuple[str, int], ...] = (("a", 0), ("b", 0))
    delays: tuple[tuple[str, int], ...] = ()
    received: frozenset[str] = frozenset()
    letters: frozenset[str] = frozenset()
    next: int = 0
    """That the owner takes."""
    open: tuple[tuple[int, str], ...] = ()
    committed: int = 0
    faults: int = 2
    full: int = 1
    """A lane may be full once."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule; set otherwise, a planted bug."""

    waits: bool = True
    """A record is finished when what became of it is acknowledged; else when it is sent."""
    in_order: bool = True
    """The position stands at the first unfinished record; else behind the last finished one."""
    buries: bool = True
    """What was tried often enough goes to the dead letters."""
    tries_again: bool = True
    defers: bool = True
    """What finds no room in its lane goes to `delays`."""
    from_committed: bool = True
    """A new owner begins at the committed position; else at the end."""


def owner(state: State, rule: Rule) -> Iterator[Step[State]]:
    if state.next < len(state.log):
        taken = state._replace(next=state.next + 1)
        yield Step(f"take {state.next}", taken._replace(open=(*state.open, (state.next, "sending"))))
        if state.full:
            does = ((state.next, "delaying"),) if rule.defers else ()
            yield Step(f"no room for {state.next}", taken._replace(open=(*state.open, *does), full=0), fault=True)
    for place in state.open:
        yield from _goes_on(state, rule, *place)
    unfinished = min((offset for offset, does in state.open if rule.waits or does == "sending"), default=state.next)
    position = unfinished if rule.in_order else max(state.committed, state.next - len(state.open))
    if position > state.committed:
        yield Step(f"commit {position}", state._replace(committed=position))


def _goes_on(state: State, rule: Rule, offset: int, does: str) -> Iterator[Step[State]]:
    job, attempts = state.log[offset]
    rest = tuple(each for each in state.open if each[0] != offset)
    if does == "sending":
        taken = state._replace(received=state.received | {job})
        yield Step(f"the receiver takes {job}", taken._replace(open=rest))
        failed = "" if not rule.tries_again else "delaying" if attempts + 1 < MOST_ATTEMPTS else "burying" if rule.buries else ""
        then = (*rest, (offset, failed)) if failed else rest
        if state.faults:
            less = state.faults - 1
            yield Step(f"the receiver refuses {job}", state._replace(open=then, faults=less), fault=True)
            yield Step(f"the receiver's answer for {job} is lost", taken._replace(open=then, faults=less), fault=True)
    elif does == "delaying":
        yield Step(f"{job} lies in delays", state._replace(open=rest, delays=(*state.delays, (job, attempts + 1))))
    else:
        yield Step(f"{job} lies in the dead letters", state._replace(open=rest, letters=state.letters | {job}))


def others(state: State, rule: Rule) -> Iterator[Step[State]]:
    for number, record in enumerate(state.delays):
        on = state._replace(log=(*state.log, record))
        yield Step(f"delay sends {record[0]} on", on._replace(delays=state.delays[:number] + state.delays[number + 1 :]))
        if state.faults:
            yield Step(f"delay sends {record[0]} on, and dies", on._replace(faults=state.faults - 1), fault=True)
    if state.faults and (state.open or state.next > state.committed):
        begins = state.committed if rule.from_committed else len(state.log)
        yield Step("the owner dies", state._replace(open=(), next=begins, faults=state.faults - 1), fault=True)
        for offset, does in state.open:
            if does == "sending":
                job = state.log[offset][0]
                late = state._replace(open=(), next=begins, faults=state.faults - 1, received=state.received | {job})
                yield Step(f"the partition moves, and {job} is taken all the same", late, fault=True)


def steps(state: State, rule: Rule) -> Iterator[Step[State]]:
    yield from owner(state, rule)
    yield from others(state, rule)


def over(state: State) -> str | None:
    told = state.received | state.letters
    return None if told >= set(JOBS) else "an end is neither delivered nor a dead letter"


def search(rule: Rule) -> Explored:
    return explore(State(), partial(steps, rule=rule), lambda _: None, over)


BUGS = {
    "a record is finished before its next try is acknowledged": Rule(waits=False),
    "the position passes what is unfinished": Rule(in_order=False),
    "what was tried often enough is forgotten": Rule(buries=False),
    "what failed is forgotten": Rule(tries_again=False),
    "what finds no room is forgotten": Rule(defers=False),
    "a new owner begins at the end": Rule(from_committed=False),
}


LOST = "an end is neither delivered nor a dead letter"
test_the_rule_holds, test_a_planted_bug_is_seen = checks(search, {"the rule": Rule()}, {name: (rule, LOST) for name, rule in BUGS.items()})
