"""Critiques: a step without a claim, from its ask to its end: every interleaving of one step, planners one after the other, and a critic.

The planner writes the step into `critiques` beside the append that asks for it, sends it again, the same attempt, while no outcome comes,
and gives up after its patience. The critic answers each record and commits past it after that; it may die at any time. Outcomes are folded
in order by whoever owns the home; a successor replays history and reads those again that were not committed past.
Not modelled: retries (another attempt is another step of this kind), what the verdict says.

Checked: history asks before it accepts; it holds one end at most; where only faults could still happen the step has ended, and that
without the patience: as long as a critic comes back, it answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from tests.model.search import Explored, Step, checks, explore

MOST_RECORDS = 3


class State(NamedTuple):
    """`history`: a asked, + answered, - given up. `records`, `outcomes`: what was ever written there."""

    history: str = ""
    appending: bool = False
    """The ask is on its way into history, its record may be in `critiques`."""
    sent: bool = False
    """This planner has sent it."""
    armed: bool = False
    """This planner's timer runs: it sends again, and gives up in the end."""
    folded: int = 0
    """Outcomes that this planner has folded; as many are committed past once what they say is in history."""
    committed: int = 0
    records: int = 0
    outcomes: int = 0
    critic: int | None = 0
    """Where it reads; None: dead."""
    answered: int = 0
    """Of what it has read; its outcomes are acknowledged."""
    passed: int = 0
    """Its committed position."""
    deaths: int = 2
    lost: int = 1
    patience: int = 1


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule; set otherwise, a planted bug."""

    resends: bool = True
    """What is asked and unanswered is sent again."""
    arms: bool = True
    """Also by who takes over."""
    only_open: bool = True
    """Only an outcome of a step that history asks for and has no end of is accepted."""
    answers_first: bool = True
    """The critic commits past a record once its outcome is acknowledged."""


def planners(state: State, rule: Rule) -> Iterator[Step[State]]:
    asked, ended = state.history.startswith("a"), state.history[1:] != ""
    if not asked and not state.appending:
        yield Step("the planner asks", state._replace(appending=True))
    if state.appending:
        yield Step("the ask is in history", state._replace(history="a", appending=False, armed=True))
    if (state.appending or (asked and not ended)) and not state.sent and state.records < MOST_RECORDS:
        yield Step("the step is sent", state._replace(sent=True, records=state.records + 1))
    if state.armed and not ended and state.sent and rule.resends and state.records < MOST_RECORDS:
        yield Step("the timer sends it again", state._replace(records=state.records + 1))
    if state.armed and not ended and state.patience:
        yield Step("the patience is over", state._replace(history=state.history + "-", patience=0), fault=True)
    if state.folded < state.outcomes and not state.appending:
        accepted = (asked and not ended) if rule.only_open else True
        yield Step("an outcome is folded", state._replace(folded=state.folded + 1, history=state.history + "+" * accepted))
    if state.committed < state.folded:
        yield Step("outcomes are committed past", state._replace(committed=state.folded))
    if state.deaths:
        taken = state._replace(appending=False, sent=False, folded=state.committed, deaths=state.deaths - 1)
        yield Step("the planner is succeeded", taken._replace(armed=rule.arms and asked and not ended), fault=True)
        if state.appending:
            late = taken._replace(history="a", armed=rule.arms)
            yield Step("the planner is succeeded, its ask is in history", late, fault=True)


def critics(state: State, rule: Rule) -> Iterator[Step[State]]:
    if state.critic is None:
        back = state._replace(critic=state.passed, answered=state.passed)
        yield Step("the critic comes back", back)
        return
    if state.critic < state.records:
        yield Step("the critic reads", state._replace(critic=state.critic + 1))
    if state.answered < state.critic:
        yield Step("the critic answers", state._replace(answered=state.answered + 1, outcomes=state.outcomes + 1))
    upto = state.answered if rule.answers_first else state.critic
    if state.passed < upto:
        yield Step("the critic commits", state._replace(passed=upto))
    if state.deaths:
        yield Step("the critic dies", state._replace(critic=None, deaths=state.deaths - 1), fault=True)
    if state.lost and state.critic < state.records < MOST_RECORDS:
        gone = state._replace(critic=state.records, answered=state.records, passed=state.records, lost=0)
        yield Step("what lies in critiques is gone", gone, fault=True)


def steps(state: State, rule: Rule) -> Iterator[Step[State]]:
    if state.outcomes < 2 * MOST_RECORDS:
        yield from planners(state, rule)
        yield from critics(state, rule)


def wrong(state: State) -> str | None:
    if state.history and not state.history.startswith("a"):
        return "an outcome is accepted that nobody asked for"
    return "a step has two ends" if len(state.history) > 2 else None


def over(state: State) -> str | None:
    return None if state.history[1:] or state.outcomes >= 2 * MOST_RECORDS else "the step waits for a critic for ever"


def search(rule: Rule) -> Explored:
    return explore(State(), partial(steps, rule=rule), wrong, over)


RULE = Rule()
BUGS = {
    "what is lost is not sent again": (replace(RULE, resends=False), "the step waits for a critic for ever"),
    "who takes over arms no timer": (replace(RULE, arms=False), "the step waits for a critic for ever"),
    "a late twin is accepted": (replace(RULE, only_open=False), None),
    "the critic commits before it answers": (replace(RULE, answers_first=False, resends=False), "the step waits for a critic for ever"),
}


test_the_rule_holds, test_a_planted_bug_is_seen = checks(search, {"the rule": RULE}, BUGS)
