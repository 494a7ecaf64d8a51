"""What must not be done twice: every interleaving of one such step's way from its ask to its end, with two nodes that may get it.

The planner may die between what it appends and what it sends (a successor reads history and outcomes again), a worker at any moment (its
next boot reads its mailbox from the committed position). Words to nodes arrive late, also those of planners that are gone. A worker may
give back what it has claimed and not begun. Not modelled: homes, epochs (test_protocol), credits, time but as faults.

Checked: it is never begun twice, and where only faults could still happen it was begun, or history says that it may have been.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from tests.model.search import Explored, Step, checks, explore


class Claim(NamedTuple):
    node: int
    boot: int
    attempt: int


class Worker(NamedTuple):
    """One node. `read`, `committed`: of its mailbox; `held`: claimed and not begun; `words`: what it is told and has not read."""

    boot: int = 0
    alive: bool = True
    mailbox: tuple[int, ...] = ()
    """Attempts."""
    read: int = 0
    committed: int = 0
    held: tuple[Claim, ...] = ()
    words: tuple[Claim, ...] = ()
    known: tuple[int, ...] = ()
    """Attempts that this boot has claimed."""


class Planned(NamedTuple):
    """A planner's memory besides history: how far it has read the outcomes, and what it has appended and not sent yet."""

    read: int = 0
    says: tuple[Claim, ...] = ()
    sends: tuple[int, ...] = ()


class State(NamedTuple):
    attempt: int = 1
    """That history asks for."""
    stands: Claim | None = None
    """In history."""
    failed: bool = False
    """History has ended the step: it may have been done."""
    outcomes: tuple[Claim | tuple[str, int, int], ...] = ()
    """Claims, and of a node: (released, started; node; attempt or boot)."""
    planner: Planned | None = Planned(sends=(1,))
    committed: int = 0
    nodes: tuple[Worker, Worker] = (Worker(), Worker())
    begun: int = 0
    faults: int = 2


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule; set otherwise, a planted bug."""

    waits: bool = True
    """It begins when the planner says that its claim stands."""
    after_append: bool = True
    """The planner says so of what is in history, and no sooner."""
    says_again: bool = True
    """A successor says it again."""
    first_stands: bool = True
    """Of two claims of an attempt the first one, and none once history goes on."""
    never_again: bool = True
    """A claim that is lost, once it stands, ends the step."""
    forgets: bool = True
    """What is given back is not begun, whatever is said later."""


def with_node(state: State, number: int, **changes: Any) -> State:
    nodes = list(state.nodes)
    nodes[number] = nodes[number]._replace(**changes)
    return state._replace(nodes=(nodes[0], nodes[1]))


def again(state: State, planner: Planned) -> State:
    """The next attempt is asked for. There are three."""
    if state.attempt == 3:
        return state._replace(failed=True, stands=None, planner=planner)
    following = state.attempt + 1
    return state._replace(attempt=following, stands=None, planner=planner._replace(sends=(*planner.sends, following)))


def lost(state: State, planner: Planned, rule: Rule) -> State:
    """The claim that stands is lost."""
    return state._replace(failed=True, planner=planner) if rule.never_again else again(state, planner)


def folded(state: State, planner: Planned, rule: Rule) -> State:
    """The next outcome, and what is appended with it."""
    outcome = state.outcomes[planner.read]
    planner = planner._replace(read=planner.read + 1)
    state = state._replace(planner=planner, committed=planner.read)
    if state.failed:
        return state
    if isinstance(outcome, Claim):
        if outcome.attempt != state.attempt or (state.stands is not None and rule.first_stands):
            return state
        return state._replace(stands=outcome, planner=planner._replace(says=(*planner.says, outcome)))
    what, node, number = outcome
    if what == "started":
        mine = state.stands is not None and state.stands.node == node and state.stands.boot < number
        return lost(state, planner, rule) if mine else state
    mine = state.stands is None or state.stands.node == node
    return again(state, planner) if number == state.attempt and mine else state


def planners(state: State, rule: Rule) -> Iterator[Step[State]]:
    planner = state.planner
    if planner is None:
        says = (state.stands,) if state.stands is not None and rule.says_again else ()
        sends = (state.attempt,) if state.stands is None and not state.failed else ()
        yield Step("a successor takes over", state._replace(planner=Planned(state.committed, says, sends)))
        return
    if planner.read < len(state.outcomes):
        outcome = state.outcomes[planner.read]
        if not rule.after_append and isinstance(outcome, Claim) and outcome.attempt == state.attempt and state.stands is None:
            told = with_node(state, outcome.node, words=(*state.nodes[outcome.node].words, outcome))
            yield Step("it is said before the append, which never comes", told._replace(planner=None), fault=True)
        yield Step("the planner folds an outcome", folded(state, planner, rule))
    for number, attempt in enumerate(planner.sends[:1]):
        rest = state._replace(planner=planner._replace(sends=planner.sends[number + 1 :]))
        for node in range(2):
            mailbox = state.nodes[node].mailbox
            if len(mailbox) < 3:
                yield Step(f"attempt {attempt} goes to node {node}", with_node(rest, node, mailbox=(*mailbox, attempt)))
    for claim in planner.says[:1]:
        rest = state._replace(planner=planner._replace(says=planner.says[1:]))
        yield Step("the planner says that it may begin", with_node(rest, claim.node, words=(*state.nodes[claim.node].words, claim)))
    if state.faults and not state.failed:
        less = state._replace(faults=state.faults - 1)
        yield Step("the planner dies", less._replace(planner=None), fault=True)
        if state.stands is not None:
            yield Step("the claim's lease ends", lost(less, planner, rule), fault=True)
        elif not planner.sends:
            yield Step("nobody claims it in time", again(less, planner), fault=True)


def workers(state: State, rule: Rule) -> Iterator[Step[State]]:
    for number, node in enumerate(state.nodes):
        if not node.alive:
            reborn = node._replace(alive=True, boot=node.boot + 1, read=node.committed, held=(), known=())
            told = state._replace(outcomes=(*state.outcomes, ("started", number, reborn.boot)))
            yield Step(f"node {number} starts again", with_node(told, number, **reborn._asdict()))
            continue
        if node.read < len(node.mailbox):
            yield claimed(state, rule, number, node)
        if node.committed < node.read:
            yield Step(f"node {number} commits", with_node(state, number, committed=node.read))
        for claim in node.words[:1]:
            heard = with_node(state, number, words=node.words[1:], held=tuple(held for held in node.held if held != claim))
            begins = claim in node.held or (not rule.forgets and claim.boot == node.boot)
            yield Step(f"node {number} is told", heard._replace(begun=state.begun + begins))
        if state.faults:
            less = state._replace(faults=state.faults - 1)
            yield Step(f"node {number} dies", with_node(less, number, alive=False), fault=True)
            for claim in node.held[:1]:
                given = with_node(less, number, held=node.held[1:])
                given = given._replace(outcomes=(*state.outcomes, ("released", number, claim.attempt)))
                yield Step(f"node {number} gives it back", given, fault=True)


def claimed(state: State, rule: Rule, number: int, node: Worker) -> Step[State]:
    attempt, read = node.mailbox[node.read], node.read + 1
    if attempt in node.known:
        return Step(f"node {number} reads it once more", with_node(state, number, read=read))
    claim = Claim(number, node.boot, attempt)
    told = state._replace(outcomes=(*state.outcomes, claim))
    if not rule.waits:
        begun = told._replace(begun=state.begun + 1)
        return Step(f"node {number} claims and begins", with_node(begun, number, read=read, known=(*node.known, attempt)))
    return Step(f"node {number} claims", with_node(told, number, read=read, known=(*node.known, attempt), held=(*node.held, claim)))


def steps(state: State, rule: Rule) -> Iterator[Step[State]]:
    yield from planners(state, rule)
    yield from workers(state, rule)


def wrong(state: State) -> str | None:
    return "it is done twice" if state.begun > 1 else None


def over(state: State) -> str | None:
    return None if state.begun or state.failed else "nobody does it"


def search(rule: Rule) -> Explored:
    return explore(State(), partial(steps, rule=rule), wrong, over)


RULE = Rule()
BUGS = {
    "it begins when it is claimed": (replace(RULE, waits=False), "it is done twice"),
    "it is said before the append": (replace(RULE, after_append=False), "it is done twice"),
    "a successor says nothing": (replace(RULE, says_again=False), "nobody does it"),
    "every claim stands": (replace(RULE, first_stands=False), "it is done twice"),
    "a lost claim is asked again": (replace(RULE, never_again=False), "it is done twice"),
    "what is given back begins all the same": (replace(RULE, forgets=False), "it is done twice"),
}


test_the_rule_holds, test_a_planted_bug_is_seen = checks(search, {"the rule": RULE}, BUGS)
