"""Callers ended by a job's settle event (`callers.py`): the rule holds, each planted bug breaks it.

Checked: a caller is told only what a valid settle event says, or that its job was dropped, and at most once; where only faults could still
happen no caller of a living ingress waits. A crash and a rebalance together were never searched to the end.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from tests.model.callers import DROPPED, Rule, State, first_state, steps, valid
from tests.model.search import Explored, checks, explore


def wrong(state: State, rule: Rule) -> str | None:
    history = {DROPPED: "dropped"}
    for _, event in valid(state.events):
        if event.kind == "settled":
            history[event.job] = event.answer
    for (_, job), caller in zip(rule.callers, state.callers, strict=True):
        if len(caller.told) > 1:
            return "told twice"
        if caller.told and caller.told[0] != history.get(job):
            return "told what history does not hold"
    return None


def waiting(state: State) -> str | None:
    return "a caller waits for ever" if any(caller.doing == "open" for caller in state.callers) else None


def search(rule: Rule) -> Explored:
    return explore(first_state(rule), partial(steps, rule=rule), partial(wrong, rule=rule), waiting)


ONE = Rule()
REPEAT = Rule(callers=((None, "j"), (1, "j")))
"""The caller repeats an id that may be new, live or ended."""
TWO = Rule(callers=((0, "j"), (0, "j")))
DROP = Rule(callers=((0, DROPPED),))


def rebalanced(rule: Rule) -> Rule:
    return replace(rule, crashes=0, rebalances=1)


HOLDS = {
    "one caller, a crash": ONE,
    "two callers of one ingress, its crash": replace(TWO, crashes=0, ingress_crashes=1),
    "dropped by a cancel, a crash": DROP,
    "dropped by a cancel, a rebalance": rebalanced(DROP),
    "a repeated id, a crash": REPEAT,
}
LONG = {
    "one caller, a rebalance": rebalanced(ONE),
    "two callers of one ingress, a crash": TWO,
    "a repeated id, a rebalance": rebalanced(REPEAT),
}
"""68,000 to 1.3 million states each."""
BUGS = {
    "the highest epoch seen": (replace(rebalanced(REPEAT), establishes=False), "told what history does not hold"),
    "a repeat of an ended id without a final": (replace(REPEAT, repeat_gets_final=False), "a caller waits for ever"),
    "a drop without a final": (replace(DROP, drop_gets_final=False), "a caller waits for ever"),
    "no register": (replace(TWO, register="none"), "told twice"),
    "no final although the ingress is not established": (replace(rebalanced(REPEAT), asks="never"), "a caller waits for ever"),
    "who joined is kept in memory only": (replace(REPEAT, joined_asks=False), "a caller waits for ever"),
    "a final is never waited for, drop": (replace(DROP, awaits_finals=False), "a caller waits for ever"),
    "a final is never waited for, repeat": (replace(REPEAT, awaits_finals=False), "a caller waits for ever"),
    "the register swallows a later caller's end": (replace(TWO, register="swallows"), "a caller waits for ever"),
}
LONG_BUGS = {"a repeat of a live id appends nothing": (replace(rebalanced(REPEAT), joins=False), "a caller waits for ever")}
"""233,000 states."""


test_the_rule_holds, test_a_planted_bug_is_seen = checks(search, HOLDS | LONG, BUGS | LONG_BUGS, states=100, long=(*LONG, *LONG_BUGS))
