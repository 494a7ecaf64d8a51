"""A batch and its lines: every interleaving of its owner, the lines' jobs at homes of their own, crashes, what is told twice, and a cancel.

The owner's event says which lines are open before these are sent; a line's job ends, and owes the owner its end until that is acknowledged.
What the owner is told it gathers in memory; a block of ends is written to where large bodies lie, then an event names it, and with it the
lines that are open from now on. Until that is acknowledged the ends' records count as not read: a successor folds them again. It sends open
lines again, also of a cancelled batch, once it has folded all that lay there, since an id that has ended long ago is forgotten at its
home. That takes an hour: longer than a record is on its way, not longer than an owner may be away.
Not modelled: sizes of blocks, leases of homes (`protocol`), the end of patience after a cancel.

Checked: no line runs twice, none counts twice; at the end each line that was sent has one row, and the batch is over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from tests.model.search import Explored, Step, checks, explore


class Fact(NamedTuple):
    """An event of the owner: lines that it adds to the output, how many are open or over from now on; `status` where it changes."""

    rows: tuple[int, ...]
    next: int
    status: str = ""


class State(NamedTuple):
    jobs: tuple[str, ...]
    """Of each line: none, live, ended (and owes that), out, forgotten."""
    runs: tuple[int, ...]
    told: tuple[int, ...] = ()
    """Lines, in the owner's log; -1: a cancel."""
    events: tuple[Fact, ...] = ()
    folded: int = 0
    pending: tuple[int, ...] = ()
    """Offsets of ends that no event names yet."""
    unsent: frozenset[int] = frozenset()
    """Open lines that this owner has still to send."""
    again: bool = False
    """A successor that has not sent open lines again."""
    deaths: int = 0
    repeats: int = 0
    cancels: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule; set otherwise, a planted bug."""

    lines: int = 2
    ahead: int = 1
    deaths: int = 1
    repeats: int = 1
    cancels: int = 0
    once: bool = True
    """An end counts only of a line that is open; else whenever it is told."""
    holds: bool = True
    """Ends that no event names hold their position; else a successor begins behind them."""
    owes: bool = True
    """A line's job owes its end until it is acknowledged; else it is told once, perhaps in vain."""
    behind: bool = True
    """Lines are sent behind the event that opens them; else beside it."""
    sends_again: bool = True
    """A successor sends open lines again."""
    fenced: bool = True
    """It does so once it has folded all that lay there."""
    waits: bool = True
    """A cancelled batch is over when its open lines have ended; else at once."""


class Batch(NamedTuple):
    """The fold."""

    rows: tuple[int, ...] = ()
    next: int = 0
    status: str = "runs"

    def open(self) -> frozenset[int]:
        return frozenset(range(self.next)) - frozenset(self.rows)


def batch_of(state: State) -> Batch:
    found = Batch()
    for event in state.events:
        found = Batch((*found.rows, *event.rows), event.next, event.status or found.status)
    return found


def advanced(batch: Batch, rows: tuple[int, ...], rule: Rule, status: str = "") -> Fact:
    """The next event: with these rows, and as many more lines as may be open."""
    after = Batch((*batch.rows, *rows), batch.next, status or batch.status)
    room = rule.ahead - len(after.open()) if after.status == "runs" else 0
    after = after._replace(next=min(rule.lines, batch.next + max(0, room)))
    done = not after.open() and (after.next == rule.lines or after.status == "ending")
    return Fact(rows, after.next, "over" if done else status)


def appended(state: State, event: Fact) -> State:
    batch = batch_of(state)
    return state._replace(events=(*state.events, event), unsent=state.unsent | frozenset(range(batch.next, event.next)))


def the_owner(state: State, rule: Rule) -> Iterator[Step[State]]:
    batch = batch_of(state)
    if batch.status != "over" and not state.pending and batch.next < rule.lines and not batch.open() and batch.status == "runs":
        event = advanced(batch, (), rule)
        yield from written(state, event, rule, "opens lines")
    if state.folded < len(state.told):
        line, read = state.told[state.folded], state._replace(folded=state.folded + 1)
        gathered = {state.told[at] for at in state.pending}
        if line == -1 and batch.status == "runs":
            event = advanced(batch, (), rule, "ending") if rule.waits else Fact((), batch.next, "over")
            yield Step("the owner folds the cancel", appended(read, event))
        elif line >= 0 and batch.status != "over" and ((line in batch.open() and line not in gathered) or not rule.once):
            yield Step(f"the owner gathers {line}", read._replace(pending=(*state.pending, state.folded)))
        else:
            yield Step(f"the owner passes over {line}", read)
    if state.pending and batch.status != "over":
        rows = tuple(state.told[at] for at in state.pending)
        yield from written(state._replace(pending=()), advanced(batch, rows, rule), rule, f"writes a block of {rows}")
    for line in sorted(state.unsent):
        yield Step(f"{line} is sent", sent(state, line)._replace(unsent=state.unsent - {line}))
    if state.again and rule.sends_again and (state.folded == len(state.told) or not rule.fenced):
        gathered = {state.told[at] for at in state.pending}
        yield Step("open lines are to be sent again", state._replace(unsent=state.unsent | (batch.open() - gathered), again=False))
    yield from deaths(state, rule, "the owner dies")


def written(state: State, event: Fact, rule: Rule, how: str) -> Iterator[Step[State]]:
    after = appended(state, event)
    yield Step(f"the owner {how}", after)
    if not rule.behind:
        for line in sorted(after.unsent - state.unsent):
            yield from deaths(sent(state, line), rule, f"the owner {how}, {line} is sent, the append fails")


def sent(state: State, line: int) -> State:
    """A job that is known is not run again."""
    if state.jobs[line] not in {"none", "forgotten"}:
        return state
    runs = (*state.runs[:line], state.runs[line] + 1, *state.runs[line + 1 :])
    return changed(state, line, "live")._replace(runs=runs)


def changed(state: State, line: int, phase: str, *told: int) -> State:
    return state._replace(jobs=(*state.jobs[:line], phase, *state.jobs[line + 1 :]), told=(*state.told, *told))


def deaths(state: State, rule: Rule, how: str) -> Iterator[Step[State]]:
    """A successor begins where a position was committed."""
    most = min(state.pending, default=state.folded) if rule.holds else state.folded
    for committed in range(most + 1 if state.deaths else 0):
        after = state._replace(folded=committed, deaths=state.deaths - 1, pending=(), unsent=frozenset(), again=True)
        yield Step(f"{how}, committed is {committed}", after, fault=True)


def steps(state: State, rule: Rule) -> Iterator[Step[State]]:
    yield from the_owner(state, rule)
    for line, phase in enumerate(state.jobs):
        if phase == "live":
            yield Step(f"{line} ends", changed(state, line, "ended"))
        elif phase == "ended":
            yield Step(f"{line} is out", changed(state, line, "out", line))
            if not rule.owes:
                yield Step(f"{line} is out, its home dies before it has told", changed(state, line, "out"), fault=True)
    if "out" in state.jobs and not state.unsent:
        forgotten = tuple("forgotten" if phase == "out" else phase for phase in state.jobs)
        yield Step("an hour passes", state._replace(jobs=forgotten), fault=True)
    if state.repeats:
        for line in sorted({line for line in state.told if line >= 0}):
            yield Step(f"{line} is told again", state._replace(told=(*state.told, line), repeats=state.repeats - 1), fault=True)
    if state.cancels:
        yield Step("somebody cancels", state._replace(told=(*state.told, -1), cancels=state.cancels - 1), fault=True)


def wrong(state: State) -> str | None:
    rows = batch_of(state).rows
    if len(rows) != len(set(rows)):
        return "a line counts twice"
    return "a line runs twice" if max(state.runs) > 1 else None


def over(state: State, rule: Rule) -> str | None:
    batch = batch_of(state)
    if batch.status != "over":
        return "the batch is never over"
    lost = {line for line, runs in enumerate(state.runs) if runs} - set(batch.rows)
    return "a line is lost" if lost else None


def search(rule: Rule) -> Explored:
    first = State(("none",) * rule.lines, (0,) * rule.lines, deaths=rule.deaths, repeats=rule.repeats, cancels=rule.cancels)
    return explore(first, partial(steps, rule=rule), wrong, partial(over, rule=rule))


RULE = Rule()
CALM = replace(RULE, deaths=0, repeats=0)
BUGS = {
    "an end that is told twice counts twice": (replace(RULE, deaths=0, once=False), "a line counts twice"),
    "a successor forgets ends that no event names": (replace(RULE, repeats=0, holds=False), "the batch is never over"),
    "a line's end is told once": (replace(CALM, owes=False), "the batch is never over"),
    "lines are sent beside the event that opens them": (replace(RULE, repeats=0, ahead=2, behind=False), "a line runs twice"),
    "a successor does not send open lines again": (replace(RULE, repeats=0, sends_again=False), "the batch is never over"),
    "it sends them before it has folded their ends": (replace(RULE, repeats=0, fenced=False), "a line runs twice"),
    "a cancel ends the batch at once": (replace(CALM, cancels=1, waits=False), "a line is lost"),
}
RULES = {
    "crashes, and what comes again": RULE,
    "two ahead of three": replace(RULE, lines=3, ahead=2, repeats=0),
    "two deaths": replace(RULE, deaths=2, repeats=0),
    "a cancel and a crash": replace(RULE, ahead=2, cancels=1, repeats=0),
    "a cancel, and what comes again": replace(RULE, deaths=0, cancels=1),
}


test_the_rule_holds, test_a_planted_bug_is_seen = checks(search, RULES, BUGS, states=30)
