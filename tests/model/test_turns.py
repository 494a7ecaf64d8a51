"""Turns of one conversation: every interleaving of the jobs that ask for one, their homes, the owner, crashes, and messages told twice.

Each job lies at a home of its own; it asks the owner for its turn, begins when it is granted, ends, and owes the owner the end until that
is acknowledged. The owner folds what it is told one by one, in the order of its log; its events are appended, then its grants go out; a
successor folds again what was not committed. A grant that lies in a home's log may be folded there at any time, also again. Any message to
the owner may come once more, late: homes ask again by a timer, successors and superseded planners say again what they know.
Not modelled: leases of homes (`protocol`), bounds of the queue (a refusal ends a job like a cancel), what the context holds.

Checked: never do two turns run at once; they begin in the order in which they were asked for; what a turn said is added once, and never to
a conversation that was deleted meanwhile; at the end each has been added, and nobody waits for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from tests.model.search import Explored, Step, checks, explore


class Told(NamedTuple):
    """To the owner. `turn`: the serial of what has ended; None: it never began. `said`: something is to be added."""

    kind: str
    job: int = -1
    turn: int | None = None
    said: bool = False


class Fact(NamedTuple):
    """An event of the owner."""

    kind: str
    job: int = -1
    turn: int | None = None
    said: bool = False


class Job(NamedTuple):
    phase: str = "waits"
    """waits, runs, ended (and owes that), out"""
    turn: int | None = None


class State(NamedTuple):
    jobs: tuple[Job, ...]
    told: tuple[Told, ...] = ()
    events: tuple[Fact, ...] = ()
    folded: int = 0
    """By the living owner."""
    granted: frozenset[tuple[int, int]] = frozenset()
    """(job, turn), in the logs of homes."""
    queue: tuple[int, ...] = ()
    """Only of a rule that keeps it in memory."""
    term: int = 0
    """Of the owner; serials are its own."""
    deaths: int = 0
    repeats: int = 0
    cancels: int = 0
    deletes: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule; set otherwise, a planted bug."""

    jobs: int = 2
    deaths: int = 1
    repeats: int = 1
    cancels: int = 0
    deletes: int = 0
    names_turns: bool = True
    """An end counts for the turn that it names; else for whatever turn its job has."""
    recorded_queue: bool = True
    """Who waits is an event; else memory, and homes ask again."""
    checks: bool = True
    """A home says that it does not know a job only if it is still its home's owner."""
    owes: bool = True
    """An end is told until it is acknowledged; else once, perhaps in vain."""
    grants_again: bool = True
    """The owner sends a grant again, as long as the turn has not ended."""
    answers: bool = True
    """A home answers a grant of what is over there."""
    behind: bool = True
    """Grants go out behind the acknowledged append; else beside it."""
    voids: bool = True
    """A deletion also holds for the turn that is on its way."""


class Owner(NamedTuple):
    """The fold of the owner's events. `void`: what the current turn says is wanted no longer."""

    current: tuple[int, int] | None = None
    waiting: tuple[int, ...] = ()
    void: bool = False


def fold(state: Owner, event: Fact) -> Owner:
    match event:
        case Fact("queued"):
            return state._replace(waiting=(*state.waiting, event.job))
        case Fact("granted", job, int(turn)):
            return Owner((job, turn), tuple(other for other in state.waiting if other != job))
        case Fact("deleted"):
            return state._replace(void=state.current is not None)
        case Fact("left"):
            return state._replace(waiting=tuple(other for other in state.waiting if other != event.job))
        case _:
            return state._replace(current=None, void=False)


def owner_of(state: State, rule: Rule) -> Owner:
    found = Owner()
    for event in state.events:
        found = fold(found, event)
    return found if rule.recorded_queue else found._replace(waiting=state.queue)


def decide(state: State, told: Told, rule: Rule) -> tuple[list[Fact], Owner]:
    """The events of one message."""
    owner, events = owner_of(state, rule), list[Fact]()

    def emit(event: Fact) -> None:
        nonlocal owner
        owner = fold(owner, event)
        events.append(event)

    match told.kind:
        case "asked" if owner.current is None or owner.current[0] != told.job:
            if told.job not in owner.waiting:
                emit(Fact("queued", told.job))
        case "deleted":
            emit(Fact("deleted"))
        case "ended":
            mine = owner.current is not None and owner.current[0] == told.job
            if mine and (told.turn in (None, owner.current[1]) or not rule.names_turns):  # type: ignore[index]
                said = told.said and not (owner.void and rule.voids)
                emit(Fact("ended", told.job, owner.current[1], said))  # type: ignore[index]
            elif told.job in owner.waiting and told.turn is None:
                emit(Fact("left", told.job))
    if owner.current is None and owner.waiting:
        emit(Fact("granted", owner.waiting[0], 100 * state.term + len(state.events) + len(events)))
    return events, owner


def the_owner(state: State, rule: Rule) -> Iterator[Step[State]]:
    if state.folded < len(state.told):
        told = state.told[state.folded]
        events, owner = decide(state, told, rule)
        grants = frozenset((event.job, event.turn) for event in events if event.kind == "granted" and event.turn is not None)
        kept = tuple(event for event in events if rule.recorded_queue or event.kind not in {"queued", "left"})
        appended = state._replace(events=(*state.events, *kept), folded=state.folded + 1)
        sent = appended._replace(granted=state.granted | grants, queue=() if rule.recorded_queue else owner.waiting)
        yield Step(f"the owner folds {told}", sent)
        if grants:
            yield from deaths(appended, f"it folds {told} and dies")
            if not rule.behind:
                yield from deaths(state._replace(granted=sent.granted), f"its append of {told} fails")
    current = owner_of(state, rule).current
    if rule.grants_again and current is not None and current not in state.granted:
        yield Step("the grant is sent again", state._replace(granted=state.granted | {current}))
    yield from deaths(state, "the owner dies")


def deaths(state: State, how: str) -> Iterator[Step[State]]:
    """A successor begins where a position was committed: anywhere up to what was folded."""
    for committed in range(state.folded + 1 if state.deaths else 0):
        after = state._replace(folded=committed, deaths=state.deaths - 1, queue=(), term=state.term + 1)
        yield Step(f"{how}, committed is {committed}", after, fault=True)


def home(state: State, number: int, rule: Rule) -> Iterator[Step[State]]:
    job = state.jobs[number]

    def to(changed: Job, *told: Told) -> State:
        return state._replace(jobs=(*state.jobs[:number], changed, *state.jobs[number + 1 :]), told=(*state.told, *told))

    asked = Told("asked", number)
    again = not rule.recorded_queue and state.folded == len(state.told) and asked not in state.told[state.folded :]
    if job.phase == "waits" and (asked not in state.told or again):
        yield Step(f"{number} asks", to(job, asked))
    for grant in sorted(state.granted):
        if grant[0] != number:
            continue
        no = Told("ended", number, grant[1])
        if job.phase == "waits":
            yield Step(f"{number} begins", to(Job("runs", grant[1])))
        elif rule.answers and no not in state.told and (job.phase == "out" or job.turn != grant[1]):
            yield Step(f"{number} says of {grant[1]} that it is over", to(job, no))
        if not rule.checks and no not in state.told:
            yield Step(f"a superseded home does not know {number}", to(job, no), fault=True)
    if job.phase == "runs":
        yield Step(f"{number} ends", to(job._replace(phase="ended")))
    if job.phase == "waits" and state.cancels:
        cancelled = to(Job("ended"))
        yield Step(f"{number} is cancelled", cancelled._replace(cancels=state.cancels - 1), fault=True)
    if job.phase == "ended":
        end = Told("ended", number, job.turn, job.turn is not None)
        yield Step(f"{number} is out", to(job._replace(phase="out"), end))
        if not rule.owes:
            yield Step(f"{number} is out, and nobody is told", to(job._replace(phase="out")), fault=True)


def steps(state: State, rule: Rule) -> Iterator[Step[State]]:
    yield from the_owner(state, rule)
    for number in range(rule.jobs):
        yield from home(state, number, rule)
    if state.repeats:
        for told in sorted(set(state.told), key=str):
            yield Step(f"{told} comes again", state._replace(told=(*state.told, told), repeats=state.repeats - 1), fault=True)
    if state.deletes:
        deleted = state._replace(told=(*state.told, Told("deleted")), deletes=state.deletes - 1)
        yield Step("somebody deletes it", deleted, fault=True)


def wrong(state: State) -> str | None:
    if sum(job.phase == "runs" for job in state.jobs) > 1:
        return "two turns at once"
    added = [event.job for event in state.events if event.kind == "ended" and event.said]
    if len(added) != len(set(added)):
        return "a turn was added twice"
    asked = list(dict.fromkeys(told.job for told in state.told if told.kind == "asked"))
    granted = list(dict.fromkeys(event.job for event in state.events if event.kind == "granted"))
    if [job for job in asked if job in granted] != granted:
        return "turns out of order"
    begun = None
    for event in state.events:
        if event.kind == "granted":
            begun = "granted"
        elif event.kind == "deleted" and begun == "granted":
            begun = "deleted"
        elif event.kind == "ended":
            if event.said and begun == "deleted":
                return "what was deleted comes back"
            begun = None
    return None


def over(state: State, rule: Rule) -> str | None:
    owner = owner_of(state, rule)
    if any(job.phase != "out" for job in state.jobs) or owner.current is not None or owner.waiting:
        return "somebody waits for ever"
    added = {event.job for event in state.events if event.kind == "ended" and event.said}
    lost = {number for number, job in enumerate(state.jobs) if job.turn is not None} - added
    return "a turn is lost" if lost and not rule.deletes else None


def search(rule: Rule) -> Explored:
    jobs = tuple(Job() for _ in range(rule.jobs))
    first = State(jobs, deaths=rule.deaths, repeats=rule.repeats, cancels=rule.cancels, deletes=rule.deletes)
    return explore(first, partial(steps, rule=rule), wrong, partial(over, rule=rule))


RULE = Rule()
ONCE, CALM = replace(RULE, repeats=0), replace(RULE, deaths=0, repeats=0)
BUGS = {
    "an end counts for whatever turn its job has": (replace(RULE, names_turns=False), "a turn was added twice"),
    "the queue is not recorded": (replace(ONCE, jobs=3, recorded_queue=False), "turns out of order"),
    "a superseded home says what it does not know": (replace(RULE, checks=False), "two turns at once"),
    "an end is told once": (replace(CALM, owes=False), "a turn is lost"),
    "a grant is sent once": (replace(ONCE, grants_again=False), "somebody waits for ever"),
    "nobody answers a grant of what is over": (replace(RULE, answers=False), "somebody waits for ever"),
    "grants go out beside the append": (replace(RULE, behind=False), "two turns at once"),
    "a deletion forgets the turn on its way": (replace(CALM, deletes=1, voids=False), "what was deleted comes back"),
}
RULES = {
    "crashes, and what comes again": RULE,
    "a cancel and a crash": replace(ONCE, cancels=1),
    "a deletion and a crash": replace(ONCE, deletes=1),
    "a deletion, and what comes again": replace(CALM, repeats=1, deletes=1),
}


LONG = {"two, a cancel": replace(RULE, cancels=1), "two, a deletion": replace(RULE, deletes=1), "three": replace(ONCE, jobs=3)}
test_the_rule_holds, test_a_planted_bug_is_seen = checks(
    search, RULES | LONG, BUGS, states=100, long=(*LONG, *(name for name, (rule, _) in BUGS.items() if rule.jobs > 2))
)
