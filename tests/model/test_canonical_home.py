"""The rule of the canonical home, as an explicit-state model: every interleaving of forward, acknowledgement, commit and crash.

One id, two partitions, a planner for each. Records (a job, its repeat, its cancel) lie on either; the id is at home on partition 0.
Partition 1's planner sends what it reads on, and its position passes a record only when the copy is acknowledged. A crash takes a planner
back to what it committed; a copy under way then may land later, or never; an acknowledgement may be lost, so that it is sent again.
Reductions: an acceptance and its acknowledgement are one step (what an append of unknown fate does is not asked here), a commit lands when
sent. Not modelled: the window in which an id is remembered, delays, take-overs by zombies (the epochs' rule stops those).

Checked: the job is accepted at most once; where only faults could still happen it was accepted, and is cancelled if a cancel was sent.
Each planted bug must break that, so that the model is known to look.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from tests.model.search import Explored, Step, checks, explore

MOST_RECORDS = 8
"""A partition that grows beyond this holds a record that goes round."""


class Rec(NamedTuple):
    kind: str
    """J: the job; C: its cancel."""
    sent_on: bool = False


class State(NamedTuple):
    """Each pair: of partition 0 and 1."""

    logs: tuple[tuple[Rec, ...], tuple[Rec, ...]]
    position: tuple[int, int] = (0, 0)
    committed: tuple[int, int] = (0, 0)
    under_way: tuple[Rec | None, Rec | None] = (None, None)
    """The copy that the planner waits for."""
    adrift: frozenset[tuple[int, Rec]] = frozenset()
    """Copies of planners that have died: (to, record)."""
    accepted: tuple[int, int] = (0, 0)
    guessed: tuple[bool, bool] = (False, False)
    cancelled: bool = False
    refused: int = 0
    crashes: int = 2
    lost_acks: int = 1


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule, and how each planted bug differs from it."""

    homes: tuple[int, int] = (0, 0)
    """Where each planner says that the id is at home. Bug: they count other homes."""
    awaits: bool = True
    """The position passes a record only after its copy's acknowledgement."""
    once: bool = True
    """What was sent on is not sent on again."""
    keeps_guesses: bool = True
    """A cancel ahead of its job is kept."""
    remembers: bool = True
    """The home knows the id when it comes again."""


def put(pair: tuple[int, int], at: int, value: int) -> tuple[int, int]:
    return (value, pair[1]) if at == 0 else (pair[0], value)


def append(state: State, to: int, record: Rec) -> State:
    logs = state.logs
    return state._replace(logs=(((*logs[0], record), logs[1]) if to == 0 else (logs[0], (*logs[1], record))))


def set_under_way(state: State, at: int, record: Rec | None) -> State:
    pair = state.under_way
    return state._replace(under_way=(record, pair[1]) if at == 0 else (pair[0], record))


def passed(state: State, at: int) -> State:
    return state._replace(position=put(state.position, at, state.position[at] + 1))


def fold(state: State, at: int, kind: str, rule: Rule) -> State:
    """The home reads a record of its id."""
    if kind == "C":
        if state.accepted[at]:
            return state._replace(cancelled=True)
        guessed = (True, state.guessed[1]) if at == 0 else (state.guessed[0], True)
        return state._replace(guessed=guessed) if rule.keeps_guesses else state
    if state.accepted[at] and rule.remembers:
        return state
    accepted = put(state.accepted, at, state.accepted[at] + 1)
    return state._replace(accepted=accepted, cancelled=state.cancelled or state.guessed[at])


def read(state: State, at: int, rule: Rule) -> State:
    """A planner takes its next record."""
    record = state.logs[at][state.position[at]]
    if rule.homes[at] == at:
        return passed(fold(state, at, record.kind, rule), at)
    if record.sent_on and rule.once:
        return passed(state._replace(refused=state.refused + 1), at)
    waiting = set_under_way(state, at, Rec(record.kind, sent_on=True))
    return waiting if rule.awaits else passed(waiting, at)


def steps(state: State, rule: Rule) -> Iterator[Step[State]]:
    for at in (0, 1):
        copy = state.under_way[at]
        if copy is None and state.position[at] < len(state.logs[at]):
            yield Step(f"planner {at} reads", read(state, at, rule))
        if copy is not None:
            landed = append(state, rule.homes[at], copy)
            arrived = set_under_way(landed, at, None)
            yield Step(f"copy to {rule.homes[at]} lands", passed(arrived, at) if rule.awaits else arrived)
            if state.lost_acks:
                yield Step(
                    f"copy to {rule.homes[at]} lands, its acknowledgement is lost",
                    landed._replace(lost_acks=state.lost_acks - 1),
                    fault=True,
                )
        if state.committed[at] < state.position[at]:
            yield Step(f"planner {at} commits", state._replace(committed=put(state.committed, at, state.position[at])))
        if state.crashes and (copy is not None or state.committed[at] < state.position[at]):
            dead = set_under_way(state, at, None)._replace(crashes=state.crashes - 1)
            dead = dead._replace(position=put(state.position, at, state.committed[at]))
            yield Step(f"planner {at} crashes", dead, fault=True)
            if copy is not None:
                adrift = dead._replace(adrift=dead.adrift | {(rule.homes[at], copy)})
                yield Step(f"planner {at} crashes, its copy is adrift", adrift, fault=True)
    for to, copy in state.adrift:
        yield Step(f"copy to {to} lands late", append(state._replace(adrift=state.adrift - {(to, copy)}), to, copy))


def wrong(state: State) -> str | None:
    if sum(state.accepted) > 1:
        return "accepted twice"
    return "goes round" if max(map(len, state.logs)) > MOST_RECORDS else None


def unfinished(state: State) -> str | None:
    kinds = {record.kind for log in state.logs for record in log}
    if state.refused:
        return None  # told by a dead letter
    if "J" in kinds and not sum(state.accepted):
        return "lost"
    return "not cancelled" if "C" in kinds and not state.cancelled else None


def search(case: tuple[tuple[str, str], Rule]) -> Explored:
    """The kinds of the records that producers wrote to each partition; the rule. To exhaustion, two crashes, a lost acknowledgement."""
    lies, rule = case
    first = State(logs=(tuple(map(Rec, lies[0])), tuple(map(Rec, lies[1]))))
    return explore(first, partial(steps, rule=rule), wrong, unfinished)


SCENES = [("J", ""), ("", "J"), ("J", "J"), ("", "JJ"), ("J", "C"), ("C", "J"), ("", "CJ"), ("JC", "J"), ("C", "JJ")]
RULE = Rule()
BUGS = {
    "forward committed before it is acknowledged": ((("", "J"), replace(RULE, awaits=False)), "lost"),
    "the home changes": ((("J", "J"), replace(RULE, homes=(0, 1))), "accepted twice"),
    "sent on again": ((("", "J"), replace(RULE, homes=(1, 0), once=False)), "goes round"),
    "a cancel ahead of its job is dropped": ((("C", "J"), replace(RULE, keeps_guesses=False)), "not cancelled"),
    "the home forgets": ((("J", "J"), replace(RULE, remembers=False)), "accepted twice"),
}
HOLDS = {"-".join(lies): (lies, RULE) for lies in SCENES}
HOLDS["planners that count other homes: each refuses the other's record"] = (("", "J"), replace(RULE, homes=(1, 0)))
test_the_rule_holds, test_a_planted_bug_is_seen = checks(search, HOLDS, BUGS, states=5)
