"""Reviews: every interleaving of people who decide, the end of the time, take-overs and the end of the job, on one home.

A job waits for a review of a text; then for a second one, of another text, at the same place of its pattern; then it ends. What people say
lies in `outcomes`; a planner folds a part of it and fires its timer in one round, whose events are appended as one and of which a position
is committed afterwards: a successor folds what was not committed again, over what history says. People see history, and may say it again.
The timer fires only behind what lay in the log when it became due.
Not modelled: leases of homes (`protocol`), escalation (it only adds people), several reviews at once (they share nothing).

Checked: a review is over once; its decision has as many different people as the quorum asks for, all of this text, or is the default, which
holds against nobody who was in time; what history says of somebody's decision it says for good; and nobody waits for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import NamedTuple

from tests.model.search import Explored, Step, checks, explore

PEOPLE = ("ann", "bob")


class Given(NamedTuple):
    """Somebody has looked at the text and approves."""

    by: str
    text: int


class Heard(NamedTuple):
    """An event: this counts; `over`: the job goes on. Without `by` the default holds."""

    review: int
    by: str | None
    text: int
    over: bool
    early: bool = False
    """The default, although somebody had decided in time."""


class State(NamedTuple):
    outcomes: tuple[Given, ...] = ()
    events: tuple[Heard, ...] = ()
    committed: int = 0
    """Of outcomes."""
    folded: int | None = 0
    """By the living planner; None: there is none."""
    due: int | None = None
    """Where outcomes ended when the time was over; None: it is not."""
    lied: bool = False
    """What somebody was told, or could have been, is not so any more."""
    deaths: int = 1
    repeats: int = 1


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule; set otherwise, a planted bug."""

    quorum: int = 1
    last: int = 2
    """Reviews of the job."""
    closes: bool = True
    """What is over takes no more; else a decision and the end of the time in one round are both facts."""
    by_history: bool = True
    """A successor judges by all that history holds, also of what it folds again."""
    counts_people: bool = True
    """Else messages."""
    compares: bool = True
    """The text that was looked at must be the one that is decided on."""
    ends: bool = True
    """Once the job has ended nothing is a fact of it."""
    fences: bool = True
    """The timer waits for what lay in the log when it became due."""


def current(events: tuple[Heard, ...]) -> int:
    """The review that is open: the first that is not over."""
    return sum(event.over for event in events)


def hear(events: tuple[Heard, ...], seen: tuple[Heard, ...], given: Given, rule: Rule) -> tuple[Heard, ...]:
    """The fold of one decision. `seen`: what the planner judges by."""
    review = current(events)
    if not rule.closes and events and events[-1].over and given.text == events[-1].review:
        review = events[-1].review
    if review >= rule.last:
        if rule.ends:
            return events
        review = rule.last - 1
    if rule.compares and given.text != review:
        return events
    said = [event for event in seen if event.review == review and event.by is not None]
    if rule.counts_people and any(event.by == given.by for event in said):
        return events
    return (*events, Heard(review, given.by, given.text, len(said) + 1 >= rule.quorum))


def planner(state: State, rule: Rule) -> Iterator[Step[State]]:
    if state.folded is None:
        yield Step("a successor begins", state._replace(folded=state.committed))
        return
    for upto, fires in product(range(state.folded, len(state.outcomes) + 1), (False, True)):
        events, review = state.events, current(state.events)
        fenced = state.due is not None and (upto >= state.due or not rule.fences)
        if (fires and not fenced) or (not fires and upto == state.folded):
            continue
        for given in state.outcomes[state.folded : upto]:
            seen = events if rule.by_history else events[len(state.events) :]
            events = hear(events, seen, given, rule)
        if fires and ((current(events) == review and review < rule.last) or not rule.closes):
            early = rule.quorum == 1 and any(given.text == review for given in state.outcomes[: state.due])
            events = (*events, Heard(review, None, review, over=True, early=early))
        due = None if fires or current(events) != review else state.due
        lied = any(fate(state.events, given) not in (None, fate(events, given)) for given in state.outcomes)
        yield Step(f"a round up to {upto}, timer {fires}", state._replace(events=events, folded=upto, due=due, lied=lied))
    if state.committed < state.folded:
        yield Step("the position is committed", state._replace(committed=state.folded))
    if state.deaths:
        yield Step("the planner dies", state._replace(folded=None, deaths=state.deaths - 1), fault=True)


def fate(events: tuple[Heard, ...], given: Given) -> bool | None:
    """What an ingress tells: heard, not heard, or nothing yet. It sees the events alone."""
    if any(event.by == given.by and event.text == given.text for event in events):
        return True
    return False if current(events) > given.text else None


def people(state: State, rule: Rule) -> Iterator[Step[State]]:
    review = current(state.events)
    for by in PEOPLE if review < rule.last else ():
        given = Given(by, review)
        if given not in state.outcomes:
            yield Step(f"{by} approves {review}", state._replace(outcomes=(*state.outcomes, given)))
        elif state.repeats:
            again = (*state.outcomes, given)
            yield Step(f"{by} says it again", state._replace(outcomes=again, repeats=state.repeats - 1), fault=True)


def time(state: State, rule: Rule) -> Iterator[Step[State]]:
    if state.due is None and current(state.events) < rule.last:
        yield Step("the time is over", state._replace(due=len(state.outcomes)))


def steps(state: State, rule: Rule) -> Iterator[Step[State]]:
    yield from planner(state, rule)
    yield from people(state, rule)
    yield from time(state, rule)


def wrong(state: State, rule: Rule) -> str | None:
    if any(current(state.events[:number]) >= rule.last for number in range(len(state.events))):
        return "a fact of a job that has ended" if not rule.ends else "a review was over twice"
    for review in range(rule.last):
        of_it = [event for event in state.events if event.review == review]
        if sum(event.over for event in of_it) > 1:
            return "a review was over twice"
        if any(event.text != review for event in of_it):
            return "a decision on another text"
        people = [event.by for event in of_it if event.by is not None]
        if len(people) != len(set(people)):
            return "one person counted twice"
        if of_it and of_it[-1].over and of_it[-1].by is not None and len(people) < rule.quorum:
            return "too few people"
    if state.lied:
        return "somebody was told what is not so"
    return "the time was over for one who was in time" if any(event.early for event in state.events) else None


def over(state: State, rule: Rule) -> str | None:
    if current(state.events) < rule.last:
        return "the job waits for ever"
    return None if all(fate(state.events, given) is not None for given in state.outcomes) else "somebody is never told"


def search(rule: Rule) -> Explored:
    return explore(State(), partial(steps, rule=rule), partial(wrong, rule=rule), partial(over, rule=rule))


RULE = Rule()
BUGS = {
    "a decision and the expiry in one round are both facts": (replace(RULE, closes=False), "a review was over twice"),
    "a successor folds a decision twice": (replace(RULE, quorum=2, by_history=False), "one person counted twice"),
    "messages are counted, not people": (replace(RULE, quorum=2, counts_people=False), "one person counted twice"),
    "a decision for an older text": (replace(RULE, compares=False), "a decision on another text"),
    "a decision after the job's end": (replace(RULE, last=1, ends=False, compares=False), "a fact of a job that has ended"),
    "the timer does not wait for what lies unread": (replace(RULE, fences=False), "the time was over for one who was in time"),
}


HOLDS = {"one is enough": RULE, "two must agree": replace(RULE, quorum=2, last=1)}
test_the_rule_holds, test_a_planted_bug_is_seen = checks(search, HOLDS, BUGS, states=100)
