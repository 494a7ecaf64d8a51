"""Kept things and the watermark: told in history, written again by distance and by age. Every interleaving of the rule.

One home, things that are told, kept and ended; two planners with one append under way each (a thing with a capital letter is written again
in two appends, a snapshot that is cut), late appends of dead planners and zombies, PlannerStarted, the gap, one fenced commit of the
watermark, replay from there; retention that deletes what is two days old; crashes and a rebalance.
Reductions: as in `test_look_ahead`. A day passes only where the owner has nothing left to do, the log's end is its own last event and no
late append is under way: a planner has its hours. Inputs are not modelled. What ends without an event, by time, is in history until the
watermark passes it, and does no harm.

Checked in every state: who replays from the committed watermark knows what all of history tells; where the owner rests, the watermark is
not far behind the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from tests.model.owners import fates, is_there, owns, put, rebalances
from tests.model.search import Explored, Step, checks, explore, valid

DISTANCE = 4
PORTION = 1
"""So many are written again in a round."""
ON_ITS_WAY = -1


class Event(NamedTuple):
    kind: str
    """started, told (also: once more), first, last (of a copy in two), ended"""
    epoch: int = -1
    name: str = ""
    day: int = 0
    """When it came into the log."""


class Thing(NamedTuple):
    name: str
    place: int = ON_ITS_WAY
    day: int = 0


class Planner(NamedTuple):
    doing: str = "idle"
    """idle, start, taking, ready, appending, dead"""
    generation: int = 0
    life: int = 0
    """Which PlannerStarted of its own."""
    epoch: int = -1
    next: int = 0
    """Offset that the next event must get; while the home is taken: from where to replay."""
    things: frozenset[Thing] = frozenset()
    first: int = ON_ITS_WAY
    """Where the first part of a copy lies."""
    rest: tuple[Event, ...] = ()
    """What the next append holds of a round that is cut."""
    leaving: Thing | None = None
    """Its end is on its way."""


class Append(NamedTuple):
    by: int
    life: int
    events: tuple[Event, ...]


class State(NamedTuple):
    untold: str
    crashes: int
    rebalances: int
    days: int
    today: int = 0
    portion: bool = False
    """Something was written again today."""
    events: tuple[Event, ...] = ()
    deleted: int = 0
    """By retention: all before this offset."""
    watermark: int = 0
    planners: tuple[Planner, Planner] = (Planner("start", 1), Planner())
    owner: int = 0
    generation: int = 1
    appends: frozenset[Append] = frozenset()


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule; set otherwise, a planted bug."""

    names: str = "aB"
    crashes: int = 1
    rebalances: int = 0
    days: int = 0
    holds: bool = True
    """The watermark stays at or before the place of each thing."""
    awaited: bool = True
    """A place moves when the event is acknowledged, not when it is sent."""
    whole: bool = True
    """A copy in two appends counts when its last part is acknowledged."""
    place_told: bool = True
    """A place is where the acknowledgement says, not where the event was expected."""
    end_awaited: bool = True
    """What ends holds the watermark until its end is acknowledged."""
    looked_up: bool = True
    """What ends in the same round is not written again."""
    by_age: bool = True
    by_distance: bool = True
    at_once: bool = True
    """While more is due another round follows, not on the next day."""


def replayed(events: tuple[Event, ...], start: int) -> frozenset[Thing]:
    found: dict[str, Thing] = {}
    first: dict[str, int] = {}
    for offset, event in valid(events, start):
        if event.kind == "told":
            found[event.name] = Thing(event.name, offset, event.day)
        elif event.kind == "first":
            first[event.name] = offset
        elif event.kind == "last" and event.name in first:
            found[event.name] = Thing(event.name, first.pop(event.name), event.day)
        elif event.kind == "ended":
            found.pop(event.name, None)
    return frozenset(found.values())


def watermark(planner: Planner, rule: Rule) -> int:
    leaving = {planner.leaving} if planner.leaving is not None and rule.end_awaited else set()
    places = [thing.place for thing in planner.things | leaving if thing.place != ON_ITS_WAY]
    return min([planner.next - 1, *(places if rule.holds else ())])


def due(state: State, planner: Planner, rule: Rule) -> list[Thing]:
    """The oldest first."""
    if not rule.at_once and state.portion:
        return []
    late = [
        thing
        for thing in planner.things
        if (rule.by_distance and planner.next - thing.place > DISTANCE) or (rule.by_age and thing.day < state.today)
    ]
    return sorted(late, key=lambda thing: thing.place)[:PORTION]


def send(state: State, at: int, planner: Planner, *events: Event) -> State:
    return put(state, at, planner)._replace(appends=state.appends | {Append(at, planner.life, events)})


def planner_steps(state: State, at: int, rule: Rule) -> Iterator[Step[State]]:
    planner = state.planners[at]
    yield from fates(state, at)
    if planner.doing == "start":
        taking = Planner("taking", planner.generation, planner.life + 1, next=max(state.watermark, state.deleted))
        yield Step(f"P{at} reads {taking.next}, sends PlannerStarted", send(state, at, taking, Event("started", at)))
    elif planner.doing == "ready":
        yield from rounds(state, at, planner, rule)
    if planner.doing in ("ready", "appending") and owns(state, at) and watermark(planner, rule) != state.watermark:
        yield Step(f"P{at} commits {watermark(planner, rule)}", state._replace(watermark=watermark(planner, rule)))


def rounds(state: State, at: int, planner: Planner, rule: Rule) -> Iterator[Step[State]]:
    """What a round decides, then what it writes again."""
    late = due(state, planner, rule)
    named = {thing.name: thing for thing in planner.things}
    decisions = [("told", name) for name in state.untold[:1]] + [("ended", name) for name in sorted(named)]
    for kind, name in [*decisions, *([("", "")] if late else [])]:
        events: tuple[Event, ...] = (Event(kind, planner.epoch, name),) if kind else ()
        things = planner.things | {Thing(name)} if kind == "told" else planner.things - {named.get(name)}
        rest: tuple[Event, ...] = ()
        for thing in late:
            if thing.name == name and rule.looked_up:
                continue
            if thing.name.isupper():
                events += (Event("first", planner.epoch, thing.name),)
                rest = (Event("last", planner.epoch, thing.name),)
            else:
                events += (Event("told", planner.epoch, thing.name),)
            if not rule.awaited:
                things = (things - {thing}) | {thing._replace(place=planner.next + len(events) - 1, day=state.today)}
        if not events:
            continue
        leaving = named[name] if kind == "ended" else None
        after = planner._replace(doing="appending", things=frozenset(things), rest=rest, leaving=leaving)
        left = state.untold[1:] if kind == "told" else state.untold
        sent = send(state._replace(untold=left, portion=state.portion or bool(late)), at, after, *events)
        yield Step(f"P{at} sends {' '.join(f'{e.kind} {e.name}' for e in events)}", sent)


def acknowledged(state: State, at: int, base: int, events: tuple[Event, ...], rule: Rule) -> State:
    planner = state.planners[at]
    if planner.doing == "taking":
        things = replayed(state.events[:base], planner.next)
        return put(state, at, planner._replace(doing="ready", epoch=base, next=base + 1, things=things))
    if any(between.kind == "started" for between in state.events[planner.next : base]):
        again = Planner("start", planner.generation, planner.life) if owns(state, at) else Planner(life=planner.life)
        return put(state, at, again)
    places = {thing.name: thing.place for thing in planner.things}
    for offset, event in enumerate(events, base if rule.place_told else planner.next):
        if event.kind == "first":
            planner = planner._replace(first=offset)
        if event.name in places and (event.kind in ("told", "last") or (event.kind == "first" and not rule.whole)):
            places[event.name] = planner.first if event.kind == "last" else offset
    moved = frozenset(
        thing if places[thing.name] == thing.place else Thing(thing.name, places[thing.name], state.today) for thing in planner.things
    )
    after = planner._replace(doing="ready", next=base + len(events), things=moved, leaving=None)
    if after.rest:
        return send(state, at, after._replace(doing="appending", rest=()), *after.rest)
    return put(state, at, after)


def steps(state: State, rule: Rule) -> Iterator[Step[State]]:
    for at in (0, 1):
        yield from planner_steps(state, at, rule)
    for append in state.appends:
        base, planner = len(state.events), state.planners[append.by]
        landed = tuple(event._replace(day=state.today) for event in append.events)
        after = state._replace(events=(*state.events, *landed), appends=state.appends - {append})
        if planner.life == append.life and planner.doing in ("taking", "appending"):
            after = acknowledged(after, append.by, base, append.events, rule)
        yield Step(f"P{append.by}'s {[event.kind for event in append.events]} lands at {base}", after)
    yield from rebalances(state)
    owner = state.planners[state.owner]
    idle = owner.doing == "ready" and owner.next == len(state.events) and not due(state, owner, rule) and not state.appends
    if state.days and idle and state.watermark == watermark(owner, rule) and not is_there(state, 1 - state.owner):
        today = state.today + 1
        deleted = sum(event.day < today - 1 for event in state.events)
        passed = state._replace(today=today, days=state.days - 1, deleted=deleted, portion=False)
        yield Step(f"day {today}, the log begins at {deleted}", passed, fault=True)


def wrong(state: State, rule: Rule) -> str | None:
    """The law, whoever is alive."""
    known = {thing.name for thing in replayed(state.events, max(state.watermark, state.deleted))}
    told = {thing.name for thing in replayed(state.events, 0)} - ended(state)
    if told != known:
        return "forgotten" if told - known else "not ended"
    owner = state.planners[state.owner]
    rests = owner.doing == "ready" and owner.next == len(state.events) and not due(state, owner, rule)
    return "far behind" if rests and state.watermark == watermark(owner, rule) < owner.next - DISTANCE - 2 else None


def ended(state: State) -> set[str]:
    """Once for all: by valid events."""
    return {event.name for _, event in valid(state.events, 0) if event.kind == "ended"}


def search(rule: Rule) -> Explored:
    first = State(rule.names, rule.crashes, rule.rebalances, rule.days)
    return explore(first, partial(steps, rule=rule), partial(wrong, rule=rule))


CRASH = Rule()
REBALANCE = Rule(crashes=0, rebalances=1)
DAYS = Rule(crashes=0, days=2)
HOLDS = {
    "a crash": CRASH,
    "a rebalance": REBALANCE,
    "two days": DAYS,
    "a day, a crash": replace(CRASH, days=1),
}
LONG = {
    "two crashes": replace(CRASH, crashes=2),
    "two days, a crash": replace(CRASH, days=2),
    "two days, a rebalance": replace(REBALANCE, days=2),
    "three things, three days": replace(DAYS, names="abC", days=3),
}
"""59,000 to 210,000 states each."""
BUGS = {
    "watermark past an unwritten thing": (replace(CRASH, holds=False), "forgotten"),
    "a place that moves when the copy is sent": (replace(CRASH, awaited=False), "forgotten"),
    "a cut copy that counts with its first part": (replace(CRASH, whole=False), "forgotten"),
    "written again, the place from before the gap was seen": (replace(REBALANCE, place_told=False), "forgotten"),
    "watermark past what ends, before its end is acknowledged": (replace(CRASH, end_awaited=False), "forgotten"),
    "what ended is written again": (replace(CRASH, looked_up=False), "not ended"),
    "age rule missing": (replace(DAYS, by_age=False), "forgotten"),
    "distance rule missing": (Rule(names="abcd", crashes=0, by_distance=False), "far behind"),
    "one portion a day": (replace(DAYS, at_once=False), "forgotten"),
}


test_the_rule_holds, test_a_planted_bug_is_seen = checks(search, HOLDS | LONG, BUGS, long=LONG)
