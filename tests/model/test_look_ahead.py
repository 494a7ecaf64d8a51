"""Records taken out of order and the bitmap of taken offsets. Not built yet; every interleaving of the rule.

One home with one jobs topic of a few records (J makes a job, X makes none: a dead letter, a record sent on), two planners that take records
in any order, one event an append and one append under way each; late appends of dead planners and zombies, PlannerStarted, the gap, one
fenced commit of (position, the topic's id, watermark), replay from the watermark, `TakenAhead(topic's id, base, bits)`; crashes, a
rebalance, a topic that is deleted and made anew (its committed position kept or removed).
Reductions: an append lands and is acknowledged in one step (a lost acknowledgement is a crash before it lands), a commit lands when sent.
Not modelled: workers (a live job settles at any moment), results, retention, truncation, the length of the bitmap; a running planner is
taken to notice a new topic before it reads from it.

Checked: no record has two valid JobAccepted; the watermark does not fall; where only faults could still happen each record has its job or
its effect.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from tests.model.owners import fates, owns, put, rebalances
from tests.model.search import Explored, Step, checks, explore, valid


class Event(NamedTuple):
    kind: str
    """started, accepted, settled, ahead (TakenAhead)"""
    epoch: int = -1
    topic: int = 0
    """Its id."""
    offset: int = 0
    """Of the job's record; ahead: the base."""
    bits: frozenset[int] = frozenset()


class Job(NamedTuple):
    topic: int
    offset: int
    first: int
    """Offset of its first event."""
    settled: bool = False


class Bitmap(NamedTuple):
    event: int
    """Its offset in the log."""
    bits: frozenset[int]


class Planner(NamedTuple):
    doing: str = "idle"
    """idle, start, taking, ready, appending, dead"""
    generation: int = 0
    life: int = 0
    """Which PlannerStarted of its own."""
    epoch: int = -1
    next: int = 0
    """Offset that the next event must get; while the home is taken: from where to replay."""
    topic: int = 0
    committed_topic: int = 0
    position: int = 0
    taken: frozenset[int] = frozenset()
    """Behind the position."""
    jobs: frozenset[Job] = frozenset()
    bitmap: Bitmap | None = None


class Append(NamedTuple):
    by: int
    life: int
    event: Event


class Committed(NamedTuple):
    position: int = 0
    topic: int = 0
    watermark: int = 0


class State(NamedTuple):
    kinds: str
    """Of the topic's records."""
    crashes: int
    rebalances: int
    anew: int
    topic: int = 0
    events: tuple[Event, ...] = ()
    committed: Committed = Committed()
    effects: frozenset[tuple[int, int]] = frozenset()
    """(topic, offset) of records without a job that were taken."""
    planners: tuple[Planner, Planner] = (Planner("start", 1), Planner())
    owner: int = 0
    generation: int = 1
    appends: frozenset[Append] = frozenset()
    fell: bool = False
    """A watermark below the committed one."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule; set otherwise, a planted bug."""

    kinds: str = "JJJ"
    kinds_anew: str = "JJ"
    crashes: int = 1
    rebalances: int = 0
    anew: int = 0
    bitmap_awaited: bool = True
    """The watermark relies on a bitmap after its acknowledgement."""
    bitmap_names_topic: bool = True
    job_names_topic: bool = True
    position_names_topic: bool = True
    below_base_taken: bool = True
    """What lies below the newest bitmap's base is taken, though the committed position may be older."""
    bitmap_kept: bool = True
    """The watermark stays at or before the bitmap that it relies on."""
    id_read_late: bool = True
    """The topic's id is read after the own PlannerStarted is acknowledged."""
    ended_hold: bool = True
    """Ended jobs at or behind the position hold the watermark, unless the bitmap has them."""
    starts_anew: bool = True
    """A running planner that meets a new topic takes the home again."""


def replayed(planner: Planner, events: tuple[Event, ...], rule: Rule) -> Planner:
    """`events`: up to its own PlannerStarted."""
    jobs: dict[tuple[int, int], Job] = {}
    bitmap, base = None, 0
    for offset, event in valid(events, planner.next):
        record = (event.topic, event.offset)
        if event.kind == "accepted":
            jobs[record] = Job(*record, first=offset)
        elif event.kind == "settled" and record in jobs:
            jobs[record] = jobs[record]._replace(settled=True)
        elif event.kind == "ahead" and (event.topic == planner.topic or not rule.bitmap_names_topic):
            bitmap, base = Bitmap(offset, event.bits), event.offset
    taken = {offset for topic, offset in jobs if topic == planner.topic or not rule.job_names_topic}
    if bitmap is not None:
        taken |= bitmap.bits | (set(range(base)) if rule.below_base_taken else set())
    return advanced(planner._replace(jobs=frozenset(jobs.values()), bitmap=bitmap), frozenset(taken))


def advanced(planner: Planner, taken: frozenset[int]) -> Planner:
    position = planner.position
    while position in taken:
        position += 1
    return planner._replace(position=position, taken=frozenset(offset for offset in taken if offset > position))


def watermark(planner: Planner, rule: Rule) -> int:
    lowest, bits = planner.next - 1, planner.bitmap.bits if planner.bitmap is not None else frozenset[int]()
    for job in planner.jobs:
        ahead = job.topic == planner.topic and job.offset >= planner.position and job.offset not in bits
        if not job.settled or (ahead and rule.ended_hold):
            lowest = min(lowest, job.first)
    replayable = {job.offset for job in planner.jobs if job.topic == planner.topic and job.first >= lowest}
    if rule.bitmap_kept and planner.bitmap is not None and (planner.taken & bits) - replayable:
        lowest = min(lowest, planner.bitmap.event)
    return lowest


def send(state: State, at: int, planner: Planner, event: Event) -> State:
    return put(state, at, planner)._replace(appends=state.appends | {Append(at, planner.life, event)})


def planner_steps(state: State, at: int, rule: Rule) -> Iterator[Step[State]]:
    planner = state.planners[at]
    yield from fates(state, at)
    if planner.doing == "start":
        committed = state.committed
        taking = Planner(
            "taking", planner.generation, planner.life + 1, -1, committed.watermark, state.topic, committed.topic, committed.position
        )
        yield Step(f"P{at} reads {committed}, sends PlannerStarted", send(state, at, taking, Event("started", at)))
    elif planner.doing == "ready":
        yield from work(state, at, planner, rule)
    if planner.doing in ("ready", "appending") and owns(state, at):
        commit = Committed(planner.position, planner.topic, watermark(planner, rule))
        if commit != state.committed:
            fell = commit.watermark < state.committed.watermark
            yield Step(f"P{at} commits {commit}", state._replace(committed=commit, fell=fell))


def work(state: State, at: int, planner: Planner, rule: Rule) -> Iterator[Step[State]]:
    if planner.topic != state.topic:
        as_it_is = planner._replace(topic=state.topic, position=0, taken=frozenset(), bitmap=None)
        again = Planner("start", planner.generation, planner.life) if rule.starts_anew else as_it_is
        yield Step(f"P{at} notices the new topic", put(state, at, again))
    else:
        for offset in range(planner.position, len(state.kinds)):
            if offset in planner.taken:
                continue
            if state.kinds[offset] == "X":
                after = put(state, at, advanced(planner, planner.taken | {offset}))
                yield Step(f"P{at} takes {offset}, no job", after._replace(effects=state.effects | {(state.topic, offset)}))
            else:
                event = Event("accepted", planner.epoch, state.topic, offset)
                yield Step(f"P{at} takes {offset}", send(state, at, planner._replace(doing="appending"), event))
        bits = planner.bitmap.bits if planner.bitmap is not None else frozenset[int]()
        if any(
            job.settled and job.topic == planner.topic and job.offset > planner.position and job.offset not in bits for job in planner.jobs
        ):
            waits = planner._replace(
                doing="appending", bitmap=planner.bitmap if rule.bitmap_awaited else Bitmap(planner.next, planner.taken)
            )
            event = Event("ahead", planner.epoch, planner.topic, planner.position, planner.taken)
            yield Step(f"P{at} sends {event}", send(state, at, waits, event))
    for job in planner.jobs:
        if not job.settled:
            event = Event("settled", planner.epoch, job.topic, job.offset)
            yield Step(f"P{at} settles {job.topic}:{job.offset}", send(state, at, planner._replace(doing="appending"), event))


def acknowledged(state: State, at: int, offset: int, event: Event, rule: Rule) -> Planner:
    planner = state.planners[at]
    if event.kind == "started":
        topic = state.topic if rule.id_read_late else planner.topic
        other = (rule.position_names_topic and planner.committed_topic != topic) or planner.position > len(state.kinds)
        begun = planner._replace(doing="ready", topic=topic, position=0 if other else planner.position)
        begun = replayed(begun, state.events[:offset], rule)
        return begun._replace(epoch=offset, next=offset + 1)
    if any(between.kind == "started" for between in state.events[planner.next : offset]):
        return Planner("start", planner.generation, planner.life) if owns(state, at) else Planner(life=planner.life)
    after = planner._replace(doing="ready", next=offset + 1)
    if event.kind == "accepted":
        after = after._replace(jobs=after.jobs | {Job(event.topic, event.offset, offset)})
        return advanced(after, after.taken | {event.offset}) if event.topic == after.topic else after
    if event.kind == "settled":
        record = (event.topic, event.offset)
        return after._replace(jobs=frozenset(job._replace(settled=True) if job[:2] == record else job for job in after.jobs))
    return after._replace(bitmap=Bitmap(offset, event.bits)) if event.topic == after.topic else after


def steps(state: State, rule: Rule) -> Iterator[Step[State]]:
    for at in (0, 1):
        yield from planner_steps(state, at, rule)
    for append in state.appends:
        offset, planner = len(state.events), state.planners[append.by]
        after = state._replace(events=(*state.events, append.event), appends=state.appends - {append})
        if planner.life == append.life and planner.doing in ("taking", "appending"):
            after = put(after, append.by, acknowledged(after, append.by, offset, append.event, rule))
        yield Step(f"P{append.by}'s {append.event} lands at {offset}", after)
    yield from rebalances(state)
    if state.anew:
        anew = state._replace(topic=1, kinds=rule.kinds_anew, anew=0)
        yield Step("the topic is made anew, its position kept", anew, fault=True)
        removed = Committed(0, 1, state.committed.watermark)
        yield Step("the topic is made anew, its position removed", anew._replace(committed=removed), fault=True)


def accepted(state: State) -> list[tuple[int, int]]:
    return [(event.topic, event.offset) for _, event in valid(state.events, 0) if event.kind == "accepted"]


def wrong(state: State) -> str | None:
    if state.fell:
        return "the watermark falls"
    records = accepted(state)
    return None if len(set(records)) == len(records) else "accepted twice"


def unfinished(state: State) -> str | None:
    records = {(state.topic, offset) for offset in range(len(state.kinds))}
    return "lost" if records - set(accepted(state)) - state.effects else None


def search(rule: Rule) -> Explored:
    first = State(rule.kinds, rule.crashes, rule.rebalances, rule.anew)
    return explore(first, partial(steps, rule=rule), wrong, unfinished)


RULE = Rule()
REBALANCE = Rule(crashes=0, rebalances=1)
ANEW = Rule(kinds="JJ", anew=1)
ONE_ANEW, ONE_ANEW_REBALANCE = replace(ANEW, kinds="J", kinds_anew="J"), replace(REBALANCE, kinds="J", kinds_anew="J", anew=1)
HOLDS = {
    "three records, one without a job, a crash": replace(RULE, kinds="JXJ"),
    "two records, a rebalance": replace(REBALANCE, kinds="JJ"),
    "two records, one without a job, a rebalance": replace(REBALANCE, kinds="XJ"),
    "made anew, one record, a crash": ONE_ANEW,
}
LONG = {
    "three jobs, a crash": RULE,
    "four records, a crash": replace(RULE, kinds="XJXJ"),
    "two jobs, a crash and a rebalance": replace(RULE, kinds="JJ", rebalances=1),
    "made anew, no other fault": replace(ANEW, crashes=0),
    "made anew, one record, a rebalance": ONE_ANEW_REBALANCE,
    "made anew, two records then one, a crash": replace(ANEW, kinds_anew="J"),
    "made anew, met while running, home not taken again": replace(ONE_ANEW_REBALANCE, starts_anew=False),
}
"""51,000 to 4.2 million states each."""
BUGS = {
    "commit before the bitmap is acknowledged": (replace(RULE, bitmap_awaited=False), "accepted twice"),
    "job without the topic's id": (replace(ANEW, job_names_topic=False), "lost"),
    "position without the topic's id": (replace(ANEW, position_names_topic=False), "lost"),
    "id read before the own PlannerStarted": (replace(ONE_ANEW_REBALANCE, id_read_late=False), "accepted twice"),
    "ended jobs ahead do not hold the watermark": (replace(RULE, ended_hold=False), "accepted twice"),
    "bitmap not kept by the watermark": (replace(RULE, bitmap_kept=False), "accepted twice"),
}
LONG_BUGS = {
    "bitmap without the topic's id": (replace(ANEW, bitmap_names_topic=False), "lost"),
    "below the base not taken": (replace(RULE, kinds="XJXJ", below_base_taken=False), "accepted twice"),
}
"""149,000 and 206,000 states."""


test_the_rule_holds, test_a_planted_bug_is_seen = checks(search, HOLDS | LONG, BUGS | LONG_BUGS, long=(*LONG, *LONG_BUGS))
