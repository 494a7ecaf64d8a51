"""Eager dispatch: a planner that writes into a mailbox itself, beside the router and beside its append. Every interleaving of the rule.

One worker with a few places; a planner P that takes jobs of two tenants in turns and may write into the mailbox when the worker's newest
credits name it, a planner Q that sends all by the router, a router with one queue. The worker learns of the router's backlog late, offers
its places anew, and releases an eager record that it meets after it has read of a backlog. P's append is under way while its step may
already be read, claimed, answered; it may fail: then P forgets, reads its input again, and asks for the same step. A write into the
mailbox may fail, and may lie there nevertheless.
Not modelled: several routers, workers or capabilities, a worker's crash, time; the worker offers only while its mailbox is read.

Checked: no more records than places (but for copies of one step); an eager step is of the model that the newest credits name, and of the
tenant whose turn it is; no eager step passes an older one that waits at the router once the worker has read of the backlog, and none ever
passes an older one of its own planner; an eager step in history has its claim timeout until it is claimed; a claim that nobody knows is
stopped; where only faults could still happen every step is done. How many steps of others pass before the backlog is read depends on
time: that it is one a place is no law, and `passes_at_most` shows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from tests.model.search import Explored, Step, checks, explore


class Job(NamedTuple):
    tenant: str
    model: str


class Offer(NamedTuple):
    """The newest credits: places for P and for the router, and the model that is resident."""

    p: int = 0
    r: int = 0
    model: str = "x"


class State(NamedTuple):
    """Steps are numbers: P's are indices of `Rule.jobs`, Q's follow."""

    input: tuple[int, ...]
    """P's, not asked for yet, as they came."""
    q_left: int
    order: tuple[int, ...] = ()
    """Steps in the order in which they were first asked for."""
    turn: str | None = None
    """The tenant that P served last."""
    queue: tuple[int, ...] = ()
    """At the router."""
    mailbox: tuple[tuple[int, str], ...] = ()
    """(step, who wrote it): P, p by an offer that is over, or the router R."""
    running: frozenset[int] = frozenset()
    finished: frozenset[int] = frozenset()
    """Answers that the worker remembers."""
    model: str = "x"
    told: tuple[tuple[str, int], ...] = ()
    """What P has not read yet of the worker: (claim, success or release, step)."""
    known: frozenset[int] = frozenset()
    """What P has asked for, as its memory says."""
    history: frozenset[int] = frozenset()
    """That part of it whose append is acknowledged."""
    slow: frozenset[int] = frozenset()
    """P's steps on the slow way that are not known to be claimed."""
    doubted: frozenset[int] = frozenset()
    """P's eager steps that are not known to be claimed, and may have been given back as the newest credits say."""
    armed: frozenset[int] = frozenset()
    """Claim timeouts of eager steps."""
    done: frozenset[int] = frozenset()
    backlog_read: bool = False
    offer: Offer = Offer()
    gave_back: bool = False
    """The worker has released an eager record since it wrote its newest credits: what uses these is released too."""
    passed: int = 0
    """Older steps of others that eager ones have passed."""
    copies: int = 0
    """Records that lie in the mailbox although their write failed."""
    writes_fail: int = 1
    appends_fail: int = 1
    wrong: str | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule; set otherwise, a planted bug."""

    jobs: tuple[Job, ...]
    """P's, as they come."""
    others: int = 1
    """Q's steps."""
    places: int = 2
    writes_fail: int = 0
    appends_fail: int = 0
    offers_end: bool = True
    """A used or replaced offer is void."""
    heeds_backlog: bool = True
    """The worker offers anew, and releases, when it has read of a backlog."""
    waits_for_own: bool = True
    """No eager step while an older one of this planner is on the slow way."""
    goes_on_releasing: bool = True
    """After one the worker releases all eager records that use credits of before."""
    doubts: bool = True
    """Credits that say so make an eager step that is not known to be claimed count as one on the slow way."""
    in_turns: bool = True
    only_resident: bool = True
    sends_again: bool = True
    """A write that failed goes by the router at once."""
    arms: bool = True
    """The acknowledgement of the append starts the claim timeout."""
    stops_unknown: bool = True
    """A claim of what the planner does not know is stopped."""
    passes_at_most: int = 99

    def of_p(self, step: int) -> bool:
        return step < len(self.jobs)


def asking(state: State, rule: Rule) -> Iterator[Step[State]]:
    """P takes a job and asks for its step: the append is under way, and beside it a write into the mailbox or into `steps`."""
    if state.input:
        step = next_job(state, rule)
        tenant, model = rule.jobs[step]
        others_wait = any(rule.jobs[other].tenant != tenant for other in state.input)
        asked = state._replace(
            input=tuple(other for other in state.input if other != step),
            turn=tenant,
            known=state.known | {step},
            order=ordered(state, step),
        )
        yield Step(f"P sends step {step} by the router", queued(asked, step, rule))
        offered = state.offer.p > 0 or (not rule.offers_end and len(state.mailbox) <= rule.places)
        if (
            offered
            and not (rule.waits_for_own and (state.slow or state.doubted))
            and (model == state.offer.model or not rule.only_resident)
        ):
            wrong = (
                "a tenant's turn is passed over" if others_wait and state.turn == tenant
                else "an eager step loads a model" if model != state.offer.model
                else None
            )  # fmt: skip
            asked = asked._replace(offer=state.offer._replace(p=max(0, state.offer.p - 1)), wrong=state.wrong or wrong)
            yield Step(f"P writes step {step} into the mailbox", written(asked, step, stale(state, rule), rule))
            if state.writes_fail:
                failed = asked._replace(writes_fail=state.writes_fail - 1)
                again = queued(failed, step, rule) if rule.sends_again else failed
                yield Step(f"the write of step {step} fails", again, fault=True)
                there = again._replace(mailbox=(*again.mailbox, (step, stale(state, rule))), copies=again.copies + 1)
                yield Step(f"the write of step {step} seems to fail", there, fault=True)
    if state.q_left:
        step = len(rule.jobs) + rule.others - state.q_left
        yield Step(
            f"Q sends step {step} by the router", queued(state._replace(q_left=state.q_left - 1, order=(*state.order, step)), step, rule)
        )


def stale(state: State, rule: Rule) -> str:
    return "p" if state.gave_back and rule.goes_on_releasing else "P"


def next_job(state: State, rule: Rule) -> int:
    others = [step for step in state.input if rule.jobs[step].tenant != state.turn]
    return others[0] if rule.in_turns and others else state.input[0]


def ordered(state: State, step: int) -> tuple[int, ...]:
    """A step that is asked for again counts from now."""
    return (*(other for other in state.order if other != step), step)


def written(state: State, step: int, by: str, rule: Rule) -> State:
    records = {other for other, _ in state.mailbox} | state.running | {step}
    wrong = "more records than places" if len(records) > rule.places + state.copies else None
    return state._replace(mailbox=(*state.mailbox, (step, by)), wrong=state.wrong or wrong)


def queued(state: State, step: int, rule: Rule) -> State:
    return state._replace(
        queue=(*state.queue, step),
        slow=state.slow | {step} if rule.of_p(step) else state.slow,
        armed=state.armed - {step},
        doubted=state.doubted - {step},
    )


def appends(state: State, rule: Rule) -> Iterator[Step[State]]:
    """One round is under way at a time; what was asked for in it is one append."""
    under_way = state.known - state.history
    if not under_way:
        return
    eager = frozenset(step for step in under_way if step not in state.slow)
    armed = state.armed | eager if rule.arms else state.armed
    yield Step(f"the append of {sorted(under_way)} is acknowledged", state._replace(history=state.known, armed=armed))
    if state.appends_fail:
        # Forgotten; what history holds and nobody is known to have claimed is sent again, the rest is read again.
        again = tuple(sorted(state.slow & state.history | state.armed))
        yield Step(
            "P's append fails; P begins again from history",
            state._replace(
                known=state.history, input=(*sorted(under_way), *state.input), turn=None, appends_fail=state.appends_fail - 1,
                queue=(*state.queue, *again), slow=frozenset(again), armed=frozenset(), doubted=frozenset(),
            ),
            fault=True,
        )  # fmt: skip


def outcomes(state: State, rule: Rule) -> Iterator[Step[State]]:
    """P reads in the order of the log."""
    if not state.told or state.known != state.history:
        return
    (kind, step), rest = state.told[0], state._replace(told=state.told[1:])
    if step not in state.known:
        stopped = rest._replace(running=rest.running - {step}) if kind == "claim" and rule.stops_unknown else rest
        if kind == "success":
            stopped = rest
        yield Step(f"P does not know step {step} of the {kind}", stopped)
    elif kind == "release":
        yield Step(f"P reads the release of step {step}", rest if step in state.done else queued(rest, step, rule))
    else:
        taken = rest._replace(slow=rest.slow - {step}, armed=rest.armed - {step}, doubted=rest.doubted - {step})
        yield Step(f"P reads the {kind} of step {step}", taken._replace(done=taken.done | {step}) if kind == "success" else taken)


def router(state: State, rule: Rule) -> Iterator[Step[State]]:
    if state.queue and state.offer.r:
        after = state._replace(queue=state.queue[1:], offer=state.offer._replace(r=state.offer.r - 1))
        yield Step(f"the router writes step {state.queue[0]}", written(after, state.queue[0], "R", rule))


def offers(state: State, rule: Rule) -> Iterator[Step[State]]:
    """What the worker reads of backlogs, and whom it offers its places. With fewer places than parties the router comes first."""
    if bool(state.queue) != state.backlog_read:
        yield Step(f"the worker reads: backlog {bool(state.queue)}", state._replace(backlog_read=bool(state.queue)))
    if state.mailbox:
        return
    free = rule.places - len(state.running)
    for r in {free} if state.backlog_read and rule.heeds_backlog else {min(1, free), free}:
        offer = Offer(free - r, r, state.model)
        if offer != state.offer or state.gave_back:
            unclaimed = (state.armed | (state.known - state.history)) - state.slow
            doubted = state.doubted | unclaimed if state.gave_back and rule.doubts else state.doubted
            yield Step(f"the worker offers {offer.p} to P, {offer.r} to R", state._replace(offer=offer, gave_back=False, doubted=doubted))


def worker(state: State, rule: Rule) -> Iterator[Step[State]]:
    for step in sorted(state.running):
        told = (*state.told, ("success", step)) if rule.of_p(step) else state.told
        done = state.done if rule.of_p(step) else state.done | {step}
        ended = state._replace(running=state.running - {step}, finished=state.finished | {step}, told=told, done=done)
        yield Step(f"the worker ends step {step}", ended)
    if not state.mailbox:
        return
    (step, by), rest = state.mailbox[0], state._replace(mailbox=state.mailbox[1:])
    if step in state.running:
        yield Step(f"the worker runs step {step} already", rest)
    elif step in state.finished:
        yield Step(f"the worker tells the answer of step {step} again", rest._replace(told=(*rest.told, ("success", step))))
    elif by == "p" or (by == "P" and state.backlog_read and rule.heeds_backlog):
        over = tuple((other, "p" if who == "P" and rule.goes_on_releasing else who) for other, who in rest.mailbox)
        yield Step(f"the worker releases step {step}", rest._replace(mailbox=over, told=(*rest.told, ("release", step)), gave_back=True))
    elif len(state.running) < rule.places:
        yield Step(f"the worker runs step {step}", begun(passing(rest, step, by, rule), step, rule))


def begun(state: State, step: int, rule: Rule) -> State:
    model = rule.jobs[step].model if rule.of_p(step) else state.model
    told = (*state.told, ("claim", step)) if rule.of_p(step) else state.told
    return state._replace(running=state.running | {step}, told=told, model=model)


def passing(state: State, step: int, by: str, rule: Rule) -> State:
    at = state.order.index(step)
    older = [other for other in state.order[:at] if other in state.queue and not (other in state.running or other in state.finished)]
    if by == "R" or not older or step in state.slow:
        return state
    if any(rule.of_p(other) and other in state.known for other in older):
        wrong = "passes its own planner's step"
    else:
        wrong = "passed after its backlog was read" if state.backlog_read else ""
    return state._replace(passed=state.passed + 1, wrong=state.wrong or wrong or None)


def steps(state: State, rule: Rule) -> Iterator[Step[State]]:
    if state.done == frozenset(range(len(rule.jobs) + rule.others)) and not state.told:
        return
    for part in (asking, appends, outcomes, router, offers, worker):
        yield from part(state, rule)


def wrong(state: State, rule: Rule) -> str | None:
    if state.wrong or state.passed > rule.passes_at_most:
        return state.wrong or "passed more than once"
    under_way = state.queue + tuple(step for step, _ in state.mailbox)
    for step in sorted(state.known - state.done):
        if not (step in under_way or taken(state, step)):
            return f"step {step} is nowhere"
    for step in sorted(state.history - state.slow - state.armed - state.done):
        if not taken(state, step):
            return f"no claim timeout runs for step {step}"
    for step in state.running:
        if rule.of_p(step) and step not in state.known and ("claim", step) not in state.told and not rule.stops_unknown:
            return f"step {step} runs for nobody"
    return None


def taken(state: State, step: int) -> bool:
    """Whether the worker has taken or released the step, read or not."""
    return step in state.running or step in state.finished or ("release", step) in state.told


def search(rule: Rule) -> Explored:
    every = frozenset(range(len(rule.jobs) + rule.others))
    first = State(tuple(range(len(rule.jobs))), rule.others, writes_fail=rule.writes_fail, appends_fail=rule.appends_fail)
    return explore(
        first, partial(steps, rule=rule), partial(wrong, rule=rule), lambda state: None if state.done == every else "a step waits for ever"
    )


TWO, THREE = (Job("a", "x"), Job("b", "x")), (Job("a", "x"), Job("a", "x"), Job("b", "x"))
CALM = Rule(jobs=TWO)
HOLDS = {
    "two tenants and another planner": CALM,
    "turns": replace(CALM, jobs=THREE),
    "two models": replace(CALM, jobs=(Job("a", "x"), Job("a", "y"), Job("b", "x"))),
    "three places": replace(CALM, places=3),
    "a write fails": replace(CALM, writes_fail=1),
    "an append fails": replace(CALM, jobs=TWO[:1], appends_fail=1),
}
AT_LENGTH = {
    "an append and a write fail": replace(CALM, writes_fail=1, appends_fail=1),
    "two others": replace(CALM, others=2, places=3),
}
BUGS = {
    "a void offer is used, or one that another home has used": (replace(CALM, offers_end=False), "more records than places"),
    "the worker ignores the backlog": (replace(CALM, heeds_backlog=False), "passed after its backlog was read"),
    "an older step of its own is passed": (replace(CALM, waits_for_own=False), "passes its own planner's step"),
    "the worker takes eager records again at once": (replace(CALM, places=3, goes_on_releasing=False), "passes its own planner's step"),
    "what was given back is not known to be": (replace(CALM, doubts=False), "passes its own planner's step"),
    "jobs are taken as they come": (replace(CALM, jobs=THREE, in_turns=False), "a tenant's turn is passed over"),
    "any model will do": (replace(HOLDS["two models"], only_resident=False), "an eager step loads a model"),
    "a failed write is not sent again": (replace(CALM, writes_fail=1, sends_again=False), "step 0 is nowhere"),
    "no claim timeout": (replace(CALM, arms=False), "no claim timeout runs for step 0"),
    "a claim of what nobody asked goes on": (replace(HOLDS["an append fails"], stops_unknown=False), "step 0 runs for nobody"),
    "at most one step a place passes": (replace(CALM, others=2, passes_at_most=1), "passed more than once"),
}


test_the_rule_holds, test_a_planted_bug_is_seen = checks(search, HOLDS | AT_LENGTH, BUGS, long=AT_LENGTH)
