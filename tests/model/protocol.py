"""The planner's protocol as an explicit-state model: one writer a home, checked by offsets.

One home (jobs, outcomes, job-events, results and the group's commit), planners that come and go, a worker. Each step happens at any moment
or never: a pause is a planner that is not scheduled, a zombie one whose generation is old, a late acknowledgement a step that waits.
Modelled: PlannerStarted and its offset as the epoch, rounds of several events, the gap, results after the acknowledgement, one commit of
positions and watermark (one under way, fenced by the generation), snapshots, replay, driving on after it, claim timeouts, ids that come
again, a command run twice, the input that an answer was made from, planners of two versions: an older one (`Case.older`) writes each fact
as an event of its own, a newer one its first ask with the acceptance and the last answer with the end. Faults have budgets (`Faults`).
Not modelled: the loss of acknowledged events (Kafka's replicas answer for that), timers, leases, cancels, delays, limits, replies, batches
of several jobs, retention; the other models of this folder ask some of it. A result counts as acknowledged when it is sent, commands go to
one worker, remembered ids are known as soon as a home is taken.

`Rule` is the protocol; each of its fields that is set otherwise is a planted bug. What must hold is in `protocol_laws.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

NOBODY = -1
UNCHANGED = -1


class Faults(NamedTuple):
    """How often each may happen."""

    rebalance: int = 0
    crash: int = 0
    run_twice: int = 0
    """The worker runs a command and finds it again."""
    dispatch_lost: int = 0
    producer_fails: int = 0
    """An append's fate stays unknown to who sent it."""
    cut: int = 0
    """The first event of a round lands, others may come before the rest."""
    snapshot: int = 0
    claim_timeout: int = 0
    group_forgotten: int = 0
    """The committed offsets expire."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The protocol as it is; set otherwise, a planted bug."""

    epoch: str = "offset"
    """Of the own PlannerStarted. Bugs: generation (of the group), counted (one more than any seen)."""
    inspects_gaps: bool = True
    """Bug: stops at any."""
    holds_for_results: bool = True
    """The watermark waits for a result's acknowledgement."""
    awaits_snapshots: bool = True
    """The watermark passes old events after the snapshot's acknowledgement. Bug: when it is sent."""
    one_commit: bool = True
    """Positions and watermark go together. Bug: one after the other."""
    fenced: bool = True
    """A commit of an old generation is refused."""
    names_valid: bool = True
    """The watermark names an own event. Bug: the next offset, whatever comes to lie there."""
    step_holds_input: bool = True
    """An outcome counts only for the input that history has."""
    starts_anew: bool = True
    """A new producer is a new PlannerStarted. Bug: it sends the same append again."""
    drives_on: bool = True
    """After a replay what history lacks is appended."""
    settles_first: bool = True
    """A result is published after its event's acknowledgement."""
    remembers: bool = True
    """Ids that ended are known to whoever takes the home."""
    repeats_outcomes: bool = True
    """The worker answers a command that it has done before. Bug: it is silent."""
    leaves_newer: bool = True
    """A planner leaves a home alone whose history is of a newer version. Bug: it passes over the fields that it does not know."""
    ends_whole: bool = True
    """A settle event holds the last answer. Bug: readers look for it in an event before."""
    drives_asks: bool = True
    """After a replay an acceptance without its ask is driven on. Bug: it is taken for whole, as newer ones are."""
    dispatches_beside: bool = True
    """Commands go out beside the append; False: after its acknowledgement (also right, and slower)."""


@dataclass(frozen=True, slots=True)
class Case:
    faults: Faults
    rule: Rule = field(default_factory=Rule)
    jobs: tuple[int, ...] = (0,)
    """Ids by offset of their records; the same id twice: a client repeats it."""
    steps: int = 1
    """Of each job, one after the other."""
    planners: int = 2
    older: frozenset[int] = frozenset()
    """Planners that know only the events of before."""


class Event(NamedTuple):
    kind: str
    """started, accepted, asked, answered, settled, snapshot"""
    epoch: int
    job: int = NOBODY
    answers: tuple[int, ...] = ()
    """answered and settled: one; snapshot: all so far."""
    step: int = 0
    """asked, answered; accepted: that is asked for with it; settled: that is answered with it; snapshot: the last that was asked for."""
    made_from: int = 0
    source: int = -1
    """accepted, snapshot: offset of the job's record."""

    joined: bool = False
    """Several facts in one event, as newer planners write them."""

    @property
    def newer(self) -> bool:
        """Its version says so: an older planner would misread it. Of a settle event it needs no more than it knows."""
        return self.joined and self.kind != "settled"


class Entry(NamedTuple):
    """What a planner knows of a job."""

    job: int
    first: int
    """Offset of its first event."""
    source: int
    answers: tuple[int, ...] = ()
    asked: int = 0
    """The last step that history has asked for."""
    settled: bool = False
    out: bool = False
    """Its result is acknowledged."""


class Command(NamedTuple):
    job: int
    step: int
    made_from: int


class Outcome(NamedTuple):
    job: int
    step: int
    answer: int
    made_from: int


class Append(NamedTuple):
    by: int
    """Who waits for the acknowledgement."""
    events: tuple[Event, ...]
    landed: tuple[int, ...] = ()


class Commit(NamedTuple):
    generation: int
    jobs: int = UNCHANGED
    outcomes: int = UNCHANGED
    watermark: int = UNCHANGED


class Committed(NamedTuple):
    jobs: int = 0
    outcomes: int = 0
    watermark: int = 0


class Planner(NamedTuple):
    doing: str = "idle"
    """idle, start, taking, ready, appending, publishing, stopped, left (to a newer one), dead"""
    generation: int = -1
    epoch: int = NOBODY
    next: int = 0
    """Offset that the next event must get; while the home is taken: from where to replay."""
    jobs_at: int = 0
    outcomes_at: int = 0
    book: tuple[Entry, ...] = ()
    known: frozenset[int] = frozenset()
    acknowledged: tuple[int, ...] = ()
    results: tuple[tuple[int, int], ...] = ()
    """To be published: (job, answer)."""


class State(NamedTuple):
    planners: tuple[Planner, ...]
    faults: Faults
    owner: int = 0
    generation: int = 1
    events: tuple[Event, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    results: frozenset[tuple[int, int]] = frozenset()
    commands: tuple[Command, ...] = ()
    committed: Committed = Committed()
    appends: tuple[Append, ...] = ()
    """Under way, as `commits` and `commands` in an order of their values: any may come first."""
    commits: tuple[Commit, ...] = ()


IDLE = Planner()


def first_state(case: Case) -> State:
    return State((Planner("start", 1), *(IDLE,) * (case.planners - 1)), case.faults)


@lru_cache(maxsize=100_000)
def valid(events: tuple[Event, ...], start: int, epochs: str) -> tuple[tuple[int, Event], ...]:
    """(offset, event) of those that a reader who begins at `start` takes for valid; the epoch of what lies there counts as in force."""
    taken: list[tuple[int, Event]] = []
    current = None if start >= len(events) else start if events[start].kind == "started" else events[start].epoch
    for offset in range(start, len(events)):
        event = events[offset]
        if epochs == "offset":
            if event.kind == "started":
                current = offset
            good = event.kind == "started" or event.epoch == current
        else:
            if event.kind == "started":
                current = event.epoch
            good = current is not None and event.epoch >= current
        if good:
            taken.append((offset, event))
    return tuple(taken)


class Reader(NamedTuple):
    """How somebody reads history. `ignorant`: of fields that came later."""

    epochs: str
    ends_whole: bool = True
    ignorant: bool = False


@lru_cache(maxsize=100_000)
def replay(events: tuple[Event, ...], start: int, reader: Reader) -> tuple[Entry, ...]:
    book: dict[int, Entry] = {}
    for offset, event in valid(events, start, reader.epochs):
        book = fold(book, offset, event, reader)
    return tuple(sorted(book.values()))


def fold(book: dict[int, Entry], offset: int, event: Event, reader: Reader) -> dict[int, Entry]:
    entry = book.get(event.job)
    if reader.ignorant and event.joined:
        event = event._replace(step=0)
    if event.kind == "accepted" and entry is None:
        entry = Entry(event.job, offset, event.source, asked=event.step)
    elif event.kind == "snapshot" and (entry is None or not entry.settled):
        known = Entry(event.job, offset, event.source, event.answers, event.step)
        entry = known if entry is None else known._replace(answers=entry.answers, asked=entry.asked)
    elif event.kind == "asked" and entry is not None and not entry.settled:
        entry = entry._replace(asked=max(entry.asked, event.step))
    elif event.kind == "answered" and entry is not None and not entry.settled and event.step == len(entry.answers) + 1:
        entry = entry._replace(answers=entry.answers + event.answers)
    elif event.kind == "settled":  # it is self-contained: its result can be published again
        last = event.answers if reader.ends_whole or event.step == 0 else ()
        before = Entry(event.job, offset, NOBODY) if entry is None else entry
        entry = before._replace(answers=last or before.answers, settled=True)
    return book if entry is None else book | {event.job: entry}


def spend(state: State, fault: str) -> State:
    return state._replace(faults=state.faults._replace(**{fault: getattr(state.faults, fault) - 1}))


def put(state: State, at: int, planner: Planner) -> State:
    return state._replace(planners=(*state.planners[:at], planner, *state.planners[at + 1 :]))


def made_anew(state: State, at: int, planner: Planner) -> State:
    """It knows nothing of what it has under way."""
    adrift = tuple(sorted(append._replace(by=NOBODY) if append.by == at else append for append in state.appends))
    return put(state, at, planner)._replace(appends=adrift)


def assigned(state: State, at: int, case: Case) -> State:
    """In a new generation; commits of older ones are refused."""
    generation = state.generation + 1
    commits = () if case.rule.fenced else state.commits
    return made_anew(state, at, Planner("start", generation))._replace(owner=at, generation=generation, commits=commits)


def send(state: State, at: int, planner: Planner, *events: Event) -> State:
    return put(state, at, planner)._replace(appends=tuple(sorted((*state.appends, Append(at, events)))))


def with_commands(state: State, commands: list[Command]) -> State:
    return state._replace(commands=tuple(sorted((*state.commands, *commands)))) if commands else state


def commands_for(events: tuple[Event, ...]) -> list[Command]:
    return [Command(event.job, event.step, event.made_from) for event in events if event.kind in ("accepted", "asked") and event.step]


def wanted(entry: Entry) -> Command:
    """The next step that its pattern wants."""
    return Command(entry.job, len(entry.answers) + 1, entry.answers[-1] if entry.answers else 0)
