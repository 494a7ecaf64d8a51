"""Callers ended by a job's settle event: the model; `test_callers.py` searches it.

One home; two planners (PlannerStarted, late appends of zombies and dead ones, the gap, a fenced commit of position and watermark, finals
after the acknowledgement and again after a replay); two ingresses that read the log from its end, from the committed watermark or, after a
crash, from a stored position with its epoch; callers that submit a job, repeat the id of one that has ended or lives, or submit one that an
earlier cancel drops. A caller whose ingress is not established when he submits asks for a final, in his record. A final is a record that
dies with a planner that has not had its acknowledgement.
Reductions: an append lands and is acknowledged in one step, a commit lands when sent; an ingress keeps only ends of its own callers.
Not modelled: streams, steps, blobs, time, the window of remembered ids (every ended id of the log is known), truncation, what is published
besides finals.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.model.owners import fates, owns, put, rebalances
from tests.model.search import Step

DROPPED = "c"
"""The job that an earlier cancel drops."""


class Event(NamedTuple):
    kind: str
    """started, accepted, joined, settled"""
    epoch: int = -1
    job: str = ""
    answer: str = ""
    asks: int = -1
    """Of accepted and joined: the caller who is to have a final."""


class Known(NamedTuple):
    """What a planner knows of a job."""

    job: str
    first: int
    """Offset of its first event."""
    answer: str = ""
    """Empty: it lives."""
    asking: frozenset[int] = frozenset()
    """Callers who are to have a final."""


class Planner(NamedTuple):
    doing: str = "idle"
    """idle, start, taking, ready, appending, dead"""
    generation: int = 0
    life: int = 0
    epoch: int = -1
    next: int = 0
    position: int = 0
    book: tuple[Known, ...] = ()
    unpublished: frozenset[str] = frozenset()
    """Ended jobs whose finals are still to be sent."""


class Ingress(NamedTuple):
    up: bool = False
    position: int = 0
    epoch: int | None = None
    """None: not established."""
    register: frozenset[tuple[str, str]] = frozenset()
    """(job, answer): each end once."""


class Caller(NamedTuple):
    doing: str = "to come"
    """to come, open, told, gone"""
    told: tuple[str, ...] = ()


class Append(NamedTuple):
    by: int
    life: int
    event: Event


class Final(NamedTuple):
    by: int
    caller: int
    job: str
    answer: str


class State(NamedTuple):
    crashes: int
    rebalances: int
    ingress_crashes: int
    jobs: tuple[tuple[str, int, bool], ...]
    """Records: (job, caller, he is to have a final)."""
    callers: tuple[Caller, ...]
    events: tuple[Event, ...] = ()
    position: int = 0
    watermark: int | None = None
    """Committed."""
    planners: tuple[Planner, Planner] = (Planner("start", 1), Planner())
    owner: int = 0
    generation: int = 1
    appends: frozenset[Append] = frozenset()
    finals: frozenset[Final] = frozenset()
    ingresses: tuple[Ingress, Ingress] = (Ingress(), Ingress())


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule; set otherwise, a planted bug."""

    callers: tuple[tuple[int | None, str], ...] = ((0, "j"),)
    """(ingress, or None for a producer that waits for nothing, job)"""
    crashes: int = 1
    rebalances: int = 0
    ingress_crashes: int = 0
    establishes: bool = True
    """Bug: the highest epoch seen counts as in force."""
    repeat_gets_final: bool = True
    drop_gets_final: bool = True
    awaits_finals: bool = True
    """Such a final is acknowledged before the position of its record is committed."""
    joins: bool = True
    """A repeat of a live id appends an event, so that a superseded planner cannot commit past it."""
    register: str = "tells"
    """A later caller is told the kept end. Bugs: swallows (a later end of a job), none."""
    asks: str = "early"
    """Who asks for a final: a caller who comes before his ingress is established. Bug: never."""
    joined_asks: bool = True
    """A repeat of a live id keeps in history that its caller asks for a final. Bug: in memory only."""


def first_state(rule: Rule) -> State:
    produced = tuple((job, at, False) for at, (ingress, job) in enumerate(rule.callers) if ingress is None)
    callers = tuple(Caller("gone" if ingress is None else "to come") for ingress, _ in rule.callers)
    return State(rule.crashes, rule.rebalances, rule.ingress_crashes, produced, callers)


def valid(events: tuple[Event, ...]) -> Iterator[tuple[int, Event]]:
    current = -1
    for offset, event in enumerate(events):
        if event.kind == "started":
            current = offset
        elif event.epoch == current:
            yield offset, event


def put_ingress(state: State, at: int, ingress: Ingress) -> State:
    return state._replace(ingresses=(ingress, state.ingresses[1]) if at == 0 else (state.ingresses[0], ingress))


def put_caller(state: State, at: int, caller: Caller) -> State:
    return state._replace(callers=(*state.callers[:at], caller, *state.callers[at + 1 :]))


def send(state: State, at: int, planner: Planner, event: Event) -> State:
    return put(state, at, planner)._replace(appends=state.appends | {Append(at, planner.life, event)})


def lost(state: State, at: int) -> State:
    """What a planner has under way."""
    appends = frozenset(append for append in state.appends if append.by != at)
    return state._replace(appends=appends, finals=frozenset(final for final in state.finals if final.by != at))


def planner_steps(state: State, at: int, rule: Rule) -> Iterator[Step[State]]:
    planner = state.planners[at]
    yield from fates(state, at, lost)
    if planner.doing == "start":
        taking = Planner("taking", planner.generation, planner.life + 1, position=state.position)
        yield Step(f"P{at} sends PlannerStarted", send(state, at, taking, Event("started", at)))
    elif planner.doing in ("ready", "appending"):
        if planner.unpublished:
            ended = [known for known in planner.book if known.job in planner.unpublished]
            finals = frozenset(Final(at, caller, known.job, known.answer) for known in ended for caller in known.asking)
            published = put(state, at, planner._replace(unpublished=frozenset()))
            yield Step(f"P{at} sends {set(finals)}", published._replace(finals=state.finals | finals))
        if owns(state, at) and not (rule.awaits_finals and any(final.by == at for final in state.finals)):
            yield from commits(state, at, planner, rule)
        if planner.doing == "ready":
            yield from work(state, at, planner, rule)


def commits(state: State, at: int, planner: Planner, rule: Rule) -> Iterator[Step[State]]:
    owing = planner.unpublished | {final.job for final in state.finals if final.by == at}
    held = [known.first for known in planner.book if not known.answer or known.job in owing]
    before = state.watermark
    lowest = max(min([planner.next - 1, *held]), before or 0)
    # The watermark alone is committed only at the end of the input: fewer states, and what it lets pass is asked all the same.
    if planner.position > state.position or before is None or (lowest > before and planner.position == len(rule.callers)):
        committed = state._replace(position=planner.position, watermark=lowest)
        yield Step(f"P{at} commits {planner.position}, watermark {lowest}", committed)


def work(state: State, at: int, planner: Planner, rule: Rule) -> Iterator[Step[State]]:
    answers = {known.job: known.answer for known in planner.book}
    if planner.position < len(state.jobs):
        job, caller, asks = state.jobs[planner.position]
        asking = caller if asks else -1
        passed, appending = planner._replace(position=planner.position + 1), planner._replace(doing="appending")
        if job == DROPPED or answers.get(job):
            final = {Final(at, caller, job, answers.get(job, "dropped"))}
            wanted = rule.drop_gets_final if job == DROPPED else rule.repeat_gets_final
            answered = put(state, at, passed)
            yield Step(f"P{at} answers caller {caller}", answered._replace(finals=state.finals | final) if wanted else answered)
        elif job not in answers:
            yield Step(f"P{at} takes {job}", send(state, at, appending, Event("accepted", planner.epoch, job, asks=asking)))
        elif rule.joins:
            joined = appending if rule.joined_asks else appending._replace(book=asked(planner.book, job, asking))
            event = Event("joined", planner.epoch, job, asks=asking if rule.joined_asks else -1)
            yield Step(f"P{at} takes a repeat of live {job}", send(state, at, joined, event))
        else:
            yield Step(f"P{at} takes a repeat of live {job}, appends nothing", put(state, at, passed))
    for job, answer in answers.items():
        if not answer:
            event = Event("settled", planner.epoch, job, f"answer {at}.{planner.life}")
            yield Step(f"P{at} settles {job}", send(state, at, planner._replace(doing="appending"), event))


def acknowledged(state: State, at: int, offset: int, event: Event) -> Planner:
    planner = state.planners[at]
    if event.kind == "started":
        return taken(planner, state.events[:offset], offset, state.watermark or 0)
    if any(between.kind == "started" for between in state.events[planner.next : offset]):
        return Planner("start", planner.generation, planner.life) if owns(state, at) else Planner(life=planner.life)
    after = planner._replace(doing="ready", next=offset + 1)
    if event.kind == "settled":
        book = tuple(known._replace(answer=event.answer) if known.job == event.job else known for known in planner.book)
        return after._replace(book=book, unpublished=planner.unpublished | {event.job})
    book = (*planner.book, Known(event.job, offset)) if event.kind == "accepted" else planner.book
    return after._replace(book=asked(book, event.job, event.asks), position=planner.position + 1)


def asked(book: tuple[Known, ...], job: str, caller: int) -> tuple[Known, ...]:
    """This caller is to have a final of the job; -1: nobody."""
    if caller < 0:
        return book
    return tuple(known._replace(asking=known.asking | {caller}) if known.job == job else known for known in book)


def taken(planner: Planner, events: tuple[Event, ...], offset: int, watermark: int) -> Planner:
    """Of a job that began before the watermark all is acknowledged: only its end is remembered."""
    book: dict[str, Known] = {}
    for at, event in valid(events):
        known = Known(event.job, at) if event.kind == "accepted" else book[event.job]
        [book[event.job]] = asked((known._replace(answer=event.answer or known.answer),), event.job, event.asks)
    ended = frozenset(known.job for known in book.values() if known.answer and known.first >= watermark)
    return planner._replace(doing="ready", epoch=offset, next=offset + 1, book=tuple(book.values()), unpublished=ended)


def kafka_steps(state: State, rule: Rule) -> Iterator[Step[State]]:
    for append in state.appends:
        offset, planner = len(state.events), state.planners[append.by]
        after = state._replace(events=(*state.events, append.event), appends=state.appends - {append})
        if planner.life == append.life and planner.doing in ("taking", "appending"):
            after = put(after, append.by, acknowledged(after, append.by, offset, append.event))
        yield Step(f"P{append.by}'s {append.event} lands at {offset}", after)
    for final in state.finals:
        ingress, after = rule.callers[final.caller][0], state._replace(finals=state.finals - {final})
        told = ingress is not None and state.callers[final.caller].doing != "gone"
        yield Step(f"{final} arrives", tell(after, ingress, final.job, final.answer, rule) if told and ingress is not None else after)
    yield from rebalances(state)


def tell(state: State, at: int, job: str, answer: str, rule: Rule) -> State:
    """An ingress learns an end; it keeps those of its own callers."""
    ingress = state.ingresses[at]
    register = dict(ingress.register)
    own = any(rule.callers[index] == (at, job) and caller.doing == "open" for index, caller in enumerate(state.callers))
    if (job not in register and not own) or (rule.register == "swallows" and job in register):
        return state
    answer = register.get(job, answer) if rule.register == "tells" else answer
    kept = put_ingress(state, at, ingress._replace(register=frozenset((register | {job: answer}).items())))
    for index, caller in enumerate(state.callers):
        again = caller.doing == "told" and rule.register == "none"
        if rule.callers[index] == (at, job) and (caller.doing == "open" or again):
            kept = put_caller(kept, index, Caller("told", (*caller.told, answer)))
    return kept


def ingress_steps(state: State, at: int, rule: Rule) -> Iterator[Step[State]]:
    ingress, own = state.ingresses[at], [index for index, (where, _) in enumerate(rule.callers) if where == at]
    if not own:
        return
    if not ingress.up:
        yield from begin(state, at, ingress)
        return
    if state.ingress_crashes and any(state.callers[index].doing == "open" for index in own):
        down = put_ingress(state, at, ingress._replace(up=False, register=frozenset()))._replace(ingress_crashes=state.ingress_crashes - 1)
        for index in own:
            if state.callers[index].doing in ("open", "told"):
                down = put_caller(down, index, state.callers[index]._replace(doing="gone"))
        yield Step(f"ingress {at} crashes", down, fault=True)
    if ingress.position < len(state.events):
        yield Step(f"ingress {at} reads {ingress.position}", read(state, at, rule))
    for index in own:
        if state.callers[index].doing == "to come":
            yield from submit(state, at, index, rule)


def begin(state: State, at: int, ingress: Ingress) -> Iterator[Step[State]]:
    yield Step(f"ingress {at} begins at the end", put_ingress(state, at, Ingress(up=True, position=len(state.events))))
    lowest = state.watermark
    if lowest is not None:
        named = state.events[lowest]
        epoch = lowest if named.kind == "started" else named.epoch
        yield Step(f"ingress {at} begins at the watermark {lowest}", put_ingress(state, at, Ingress(up=True, position=lowest, epoch=epoch)))
    if ingress.position:
        yield Step(f"ingress {at} begins at its stored {ingress.position}", put_ingress(state, at, ingress._replace(up=True)))


def read(state: State, at: int, rule: Rule) -> State:
    ingress = state.ingresses[at]
    event, epoch = state.events[ingress.position], ingress.epoch
    if event.kind == "started":
        epoch = ingress.position
    elif not rule.establishes:
        epoch = max(event.epoch, -1 if epoch is None else epoch)
    after = put_ingress(state, at, ingress._replace(position=ingress.position + 1, epoch=epoch))
    return tell(after, at, event.job, event.answer, rule) if event.kind == "settled" and event.epoch == epoch else after


def submit(state: State, at: int, index: int, rule: Rule) -> Iterator[Step[State]]:
    ingress, job = state.ingresses[at], rule.callers[index][1]
    kept = dict(ingress.register).get(job)
    if kept is not None and rule.register == "tells":
        yield Step(f"caller {index} is told the kept end", put_caller(state, index, Caller("told", (kept,))))
    else:
        asks = rule.asks == "early" and ingress.epoch is None
        waits = put_caller(state, index, Caller("open"))
        yield Step(f"caller {index} submits {job}", waits._replace(jobs=(*state.jobs, (job, index, asks))))


def steps(state: State, rule: Rule) -> Iterator[Step[State]]:
    for at in (0, 1):
        yield from planner_steps(state, at, rule)
    yield from kafka_steps(state, rule)
    for at in (0, 1):
        yield from ingress_steps(state, at, rule)
