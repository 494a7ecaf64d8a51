"""Equal steps and the cache: every interleaving of three such steps, of which one answer may serve all.

Each step asks the cache once; it is told of a hit, that it leads (it is sent to a model), or that it follows. A step's planner may die (its
successor sends what is asked and knows of no lookup), so may the cache's instance (who waits there is forgotten), a model may fail, the
entry may be evicted, timers may ring early. The third step is of a higher class; the second one streams. Not modelled: scopes, ages, the
store's words, attempts after the first.

Checked: a step is answered once, and what a stream's reader was shown is what is accepted; no step waits for one of a lower class; while
nothing fails one step a class is sent, and no timer is needed; and where only faults could still happen all have ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple

from tests.model.search import Explored, Step, checks, explore

STEPS = range(3)
RANK = (1, 1, 0)
"""0 is the highest class."""
STREAMS = 1
Phase = Literal["new", "asks", "follows", "sent", "done"]


class Flight(NamedTuple):
    leader: int
    followers: tuple[int, ...] = ()


class State(NamedTuple):
    phases: tuple[Phase, ...] = ("new",) * 3
    runs: tuple[bool, ...] = (False,) * 3
    """A model is at it."""
    volatile: tuple[bool, ...] = (False,) * 3
    """Its planner knows that it has asked the cache."""
    accepted: tuple[int, ...] = (0,) * 3
    lookups: tuple[int, ...] = ()
    fills: tuple[tuple[int, bool], ...] = ()
    """Of which step; whether there is an answer."""
    told: tuple[tuple[str, ...], ...] = ((),) * 3
    """Words of the cache that the step's planner has not read."""
    entry: bool = False
    flight: Flight | None = None
    calls: int = 0
    faults: int = 2
    calm: bool = True
    conflict: bool = False
    rung: bool = False
    """A follower's timer was needed although nothing had failed."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule; set otherwise, a planted bug."""

    comes_back: bool = True
    """A follower's own timer ends its wait."""
    first_counts: bool = True
    """A hit of a step that has its answer is waste."""
    unsent_only: bool = True
    """A hit of a stream counts only while it was not sent."""
    higher_leads: bool = True
    one_leads: bool = True
    """Who asks while another one leads follows."""
    serves_followers: bool = True
    """A fill is told to who waits for it."""
    tells_end: bool = True
    """Who asked and ends without an answer says so."""


def put(items: tuple, index: int, value: object) -> tuple:  # type: ignore[type-arg]
    return (*items[:index], value, *items[index + 1 :])


def send(state: State, step: int) -> State:
    return state._replace(phases=put(state.phases, step, "sent"), runs=put(state.runs, step, True), calls=state.calls + 1)


def tell(state: State, step: int, word: str) -> State:
    return state._replace(told=put(state.told, step, (*state.told[step], word)))


def fault(state: State) -> State:
    return state._replace(faults=state.faults - 1, calm=False)


def planners(state: State, rule: Rule) -> Iterator[Step[State]]:
    for step in STEPS:
        phase = state.phases[step]
        if phase == "new":
            asks = state._replace(phases=put(state.phases, step, "asks"), volatile=put(state.volatile, step, True))
            yield Step(f"{step} asks", asks._replace(lookups=(*state.lookups, step)))
        if state.told[step]:
            yield Step(f"{step} reads {state.told[step][0]}", read(state, rule, step))
        early = step in state.lookups or bool(state.told[step]) or flies(state, step)
        if (phase == "asks" or (phase == "follows" and rule.comes_back)) and (state.faults or not early):
            due = fault(state) if early else state._replace(rung=state.rung or (state.calm and phase == "follows"))
            again = due._replace(phases=put(due.phases, step, "asks"), lookups=(*due.lookups, step))
            after = again if phase == "follows" and step not in state.lookups else send(due, step)
            yield Step(f"the timer of {step} rings", after, fault=early)
        if phase not in {"new", "done"} and state.faults and state.volatile[step]:
            gone = fault(state)._replace(volatile=put(state.volatile, step, False))
            yield Step(f"the planner of {step} dies", gone if phase == "sent" else send(gone, step), fault=True)


def flies(state: State, step: int) -> bool:
    """Whether what it waits for is on its way."""
    if state.flight is None or step not in state.flight.followers:
        return False
    leader = state.flight.leader
    return state.runs[leader] or bool(state.told[leader]) or any(of == leader for of, _ in state.fills)


def read(state: State, rule: Rule, step: int) -> State:
    word, phase = state.told[step][0], state.phases[step]
    state = state._replace(told=put(state.told, step, state.told[step][1:]))
    waits = phase in ("asks", "follows") and state.volatile[step]
    if word == "hit":
        if phase == "done" and rule.first_counts:
            return state
        if step == STREAMS and not waits and rule.unsent_only:
            return state
        shown = step == STREAMS and phase == "sent"
        accepted = put(state.accepted, step, state.accepted[step] + 1)
        over = state._replace(phases=put(state.phases, step, "done"), runs=put(state.runs, step, False))
        return over._replace(accepted=accepted, conflict=state.conflict or shown)
    if not waits:
        return state
    return send(state, step) if word == "lead" else state._replace(phases=put(state.phases, step, "follows"))


def models(state: State, rule: Rule) -> Iterator[Step[State]]:
    for step in STEPS:
        if not state.runs[step]:
            continue
        ends = state._replace(runs=put(state.runs, step, False), phases=put(state.phases, step, "done"))
        answered = ends._replace(accepted=put(state.accepted, step, state.accepted[step] + 1), fills=(*state.fills, (step, True)))
        yield Step(f"a model answers {step}", answered)
        if state.faults:
            told = (*state.fills, (step, False)) if state.volatile[step] and rule.tells_end else state.fills
            yield Step(f"{step} fails for good", fault(ends)._replace(fills=told), fault=True)


def caches(state: State, rule: Rule) -> Iterator[Step[State]]:
    if state.lookups:
        yield Step(f"the cache looks {state.lookups[0]} up", looked_up(state._replace(lookups=state.lookups[1:]), rule, state.lookups[0]))
    if state.fills:
        step, answer = state.fills[0]
        yield Step(f"the cache takes what came of {step}", filled(state._replace(fills=state.fills[1:]), rule, step, answer))
    if state.faults and state.flight is not None:
        yield Step("the instance dies", fault(state)._replace(flight=None), fault=True)
    if state.faults and state.entry:
        yield Step("the entry is evicted", fault(state)._replace(entry=False), fault=True)


def looked_up(state: State, rule: Rule, step: int) -> State:
    if state.entry:
        return tell(state, step, "hit")
    flight = state.flight
    if flight is None:
        return tell(state._replace(flight=Flight(step)), step, "lead")
    higher = rule.higher_leads and RANK[step] < RANK[flight.leader]
    others = tuple(one for one in flight.followers if one != step)
    if higher or not rule.one_leads:
        return tell(state._replace(flight=Flight(step, others)), step, "lead")
    if step == flight.leader:
        return tell(state, step, "lead")
    if step in flight.followers and not flies(state, step):  # its leader is believed no longer
        return tell(state._replace(flight=Flight(step, others)), step, "lead")
    return tell(state._replace(flight=Flight(flight.leader, (*others, step))), step, "follow")


def filled(state: State, rule: Rule, step: int, answer: bool) -> State:
    flight = state.flight
    if answer:
        state = state._replace(entry=True, flight=None)
        for follower in flight.followers if flight is not None and rule.serves_followers else ():
            state = tell(state, follower, "hit")
        return state
    if flight is None or flight.leader != step:
        return state
    if not flight.followers:
        return state._replace(flight=None)
    first = min(flight.followers, key=lambda one: RANK[one])
    return tell(state._replace(flight=Flight(first, tuple(one for one in flight.followers if one != first))), first, "lead")


def steps(state: State, rule: Rule) -> Iterator[Step[State]]:
    yield from planners(state, rule)
    yield from models(state, rule)
    yield from caches(state, rule)


def wrong(state: State) -> str | None:
    if max(state.accepted) > 1:
        return "a step is answered twice"
    if state.conflict:
        return "a stream's reader is shown two texts"
    flight = state.flight
    if flight is not None and any(RANK[one] < RANK[flight.leader] for one in flight.followers):
        return "a step waits for one of a lower class"
    if state.calm and state.calls > len(set(RANK)):
        return "more steps are sent than need be"
    return "a follower waits for its timer" if state.rung else None


def over(state: State) -> str | None:
    return None if all(phase == "done" for phase in state.phases) else "a step waits for ever"


def search(rule: Rule, faults: int = 2) -> Explored:
    return explore(State(faults=faults), partial(steps, rule=rule), wrong, over)


RULE = Rule()
BUGS = {
    "a follower has no timer": (replace(RULE, comes_back=False), "a step waits for ever"),
    "a late hit is accepted": (replace(RULE, first_counts=False), "a step is answered twice"),
    "a hit of a stream that was sent": (replace(RULE, unsent_only=False), "a stream's reader is shown two texts"),
    "the leader keeps the lead": (replace(RULE, higher_leads=False), "a step waits for one of a lower class"),
    "everybody leads": (replace(RULE, one_leads=False), "more steps are sent than need be"),
    "who waits is not served": (replace(RULE, serves_followers=False), "a follower waits for its timer"),
}


HOLDS = {"the rule": RULE, "an end without an answer is not told: timers do, only later": replace(RULE, tells_end=False)}
test_the_rule_holds, test_a_planted_bug_is_seen = checks(search, HOLDS, BUGS, states=5_000)
