"""Eager dispatch: a planner that writes into a mailbox itself, beside the router. Not built yet; every interleaving of the rule.

One worker with one place; a planner P that may write into the mailbox when the worker's credits name it, a planner Q that sends all by the
router, a router with one queue; the worker learns of the router's backlog late, offers its place anew, and releases an eager record that it
meets after it has read of a backlog. A write into the mailbox may fail; a claim timeout is armed in the same step as the write.
Not modelled: the append beside the write, several places, routers or capabilities, classes, tenants, residency, a worker's crash, time.

Checked: at most one written record for the offered place; no eager step passes an older one that waits at the router once the worker has
read of the backlog, and none ever passes an older one of its own planner; each dispatched step has its claim timeout or its loss is known;
where only faults could still happen every step is done. How many steps of others pass before the backlog is read depends on time: that it
is one a place is no law, and `passes_at_most` shows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import pytest

from tests.model.search import Explored, Step, explore


class State(NamedTuple):
    """Steps are numbered in the order in which they were asked."""

    new: int = 0
    """Asked so far."""
    queue: tuple[tuple[int, str], ...] = ()
    """At the router: (step, planner)."""
    mailbox: tuple[tuple[int, str], ...] = ()
    """(step, who wrote it): P or the router R."""
    running: int | None = None
    done: frozenset[int] = frozenset()
    armed: frozenset[int] = frozenset()
    """Claim timeouts."""
    backlog_read: bool = False
    offer: str | None = None
    """Whom the newest credits name: P or R."""
    used: bool = False
    passed: int = 0
    """Older steps of others that eager ones have passed."""
    failures: int = 1
    wrong: str | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule; set otherwise, a planted bug."""

    steps: int = 3
    offers_end: bool = True
    """A used or replaced offer is void."""
    heeds_backlog: bool = True
    """The worker offers anew, and releases, when it has read of a backlog."""
    waits_for_own: bool = True
    """No eager step while an older one of this planner waits at the router."""
    sends_again: bool = True
    """A write that failed goes by the router at once."""
    passes_at_most: int = 99


def planners(state: State, rule: Rule) -> Iterator[Step[State]]:
    step = state.new
    if step == rule.steps:
        return
    offered = (state.offer == "P" and not state.used) or (not rule.offers_end and state.used and len(state.mailbox) < 2)
    if offered and not (rule.waits_for_own and any(by == "P" for _, by in state.queue)):
        after = written(state._replace(new=step + 1), step, "P")
        yield Step(f"P writes step {step} into the mailbox", after)
        if state.failures:
            failed = state._replace(new=step + 1, used=True, failures=state.failures - 1)
            yield Step(f"the write of step {step} fails", queued(failed, step, "P") if rule.sends_again else failed, fault=True)
    for by in "PQ":
        yield Step(f"{by} sends step {step} by the router", queued(state._replace(new=step + 1), step, by))


def written(state: State, step: int, by: str) -> State:
    wrong = "two records for one place" if state.mailbox or state.running is not None else None
    return state._replace(mailbox=(*state.mailbox, (step, by)), armed=state.armed | {step}, used=True, wrong=state.wrong or wrong)


def queued(state: State, step: int, by: str) -> State:
    return state._replace(queue=(*state.queue, (step, by)))


def router(state: State) -> Iterator[Step[State]]:
    if state.queue and state.offer == "R" and not state.used:
        step = state.queue[0][0]
        yield Step(f"the router writes step {step}", written(state._replace(queue=state.queue[1:]), step, "R"))


def offers(state: State, rule: Rule) -> Iterator[Step[State]]:
    """What the worker reads of backlogs, and whom it offers its place."""
    if bool(state.queue) != state.backlog_read:
        yield Step(f"the worker reads: backlog {bool(state.queue)}", state._replace(backlog_read=bool(state.queue)))
    if state.mailbox or state.running is not None:
        return
    heeded = state.backlog_read and rule.heeds_backlog
    if state.offer is None or state.used:
        for to in "R" if heeded else "PR":
            yield Step(f"the worker offers its place to {to}", state._replace(offer=to, used=False))
    elif state.offer == "P" and heeded:
        yield Step("the worker offers to R instead", state._replace(offer="R"))
    elif state.offer == "R" and not state.backlog_read and not state.queue and state.new < rule.steps:
        yield Step("the worker offers to P in turn", state._replace(offer="P"))


def worker(state: State, rule: Rule) -> Iterator[Step[State]]:
    if state.running is not None:
        yield Step(f"the worker ends step {state.running}", state._replace(running=None, done=state.done | {state.running}))
    elif state.mailbox:
        (step, by), rest = state.mailbox[0], state._replace(mailbox=state.mailbox[1:], armed=state.armed - {state.mailbox[0][0]})
        if by == "P" and state.backlog_read and rule.heeds_backlog:
            yield Step(f"the worker releases step {step}", queued(rest, step, "P"))
        else:
            yield Step(f"the worker runs step {step}", passing(rest, step, by)._replace(running=step))


def passing(state: State, step: int, by: str) -> State:
    older = [planner for waiting, planner in state.queue if waiting < step]
    if by == "R" or not older:
        return state
    wrong = "passes its own planner's step" if "P" in older else "passed after its backlog was read" if state.backlog_read else None
    return state._replace(passed=state.passed + 1, wrong=state.wrong or wrong)


def steps(state: State, rule: Rule) -> Iterator[Step[State]]:
    yield from planners(state, rule)
    yield from router(state)
    yield from offers(state, rule)
    yield from worker(state, rule)


def wrong(state: State, rule: Rule) -> str | None:
    if state.wrong or state.passed > rule.passes_at_most:
        return state.wrong or "passed more than once"
    somewhere = (
        state.done | {state.running} | {step for step, _ in state.queue} | {step for step, _ in state.mailbox if step in state.armed}
    )
    lost = set(range(state.new)) - somewhere
    return f"step {min(lost)} is nowhere" if lost else None


def search(rule: Rule) -> Explored:
    return explore(
        State(),
        partial(steps, rule=rule),
        partial(wrong, rule=rule),
        lambda state: None if len(state.done) == rule.steps else "a step waits for ever",
    )


RULE = Rule(steps=5)
BUGS = {
    "a void offer is used": (replace(RULE, steps=3, offers_end=False), "two records for one place"),
    "the worker ignores the backlog": (replace(RULE, heeds_backlog=False), "passed after its backlog was read"),
    "the ledger is not shared": (replace(RULE, waits_for_own=False), "passes its own planner's step"),
    "at most one step a place passes": (replace(RULE, passes_at_most=1), "passed more than once"),
    "a failed write is not sent again": (replace(RULE, steps=3, sends_again=False), "step 0 is nowhere"),
}


def test_the_rule_holds() -> None:
    found = search(RULE)
    assert found.wrong is None, found
    assert found.states > 1_000


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_seen(name: str) -> None:
    rule, expected = BUGS[name]
    found = search(rule)
    assert found.wrong == expected, found
