"""What can happen in the model of the planner's protocol: each planner's steps, the broker's, the worker's, and the faults."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from tests.model.protocol import (
    IDLE,
    NOBODY,
    UNCHANGED,
    Append,
    Case,
    Commit,
    Committed,
    Entry,
    Event,
    Outcome,
    Planner,
    Reader,
    State,
    assigned,
    commands_for,
    fold,
    made_anew,
    put,
    replay,
    send,
    spend,
    valid,
    wanted,
    with_commands,
)
from tests.model.search import Step

Steps = Iterator[Step[State]]
NOTICES = "notices the rebalance"


def steps(state: State, case: Case) -> Steps:
    for _, part in parts(state, case):
        yield from part


def parts(state: State, case: Case) -> Iterator[tuple[str, Steps]]:
    """By who does it."""
    for at in range(case.planners):
        yield f"P{at}", chain(planner_steps(state, at, case), commits(state, at, case))
    yield "broker", broker_steps(state, case)
    yield "worker", worker_steps(state, case)
    yield "group", group_steps(state, case)
    yield "losses", losses(state)


def planner_steps(state: State, at: int, case: Case) -> Steps:
    """All but its commits."""
    planner = state.planners[at]
    if planner.doing in ("dead", "idle", "left"):
        return
    if not owns(state, at):
        yield Step(f"P{at} {NOTICES}", made_anew(state, at, IDLE))
    if planner.doing == "start":
        yield from start(state, at, planner, case)
    elif planner.doing == "taking" and planner.acknowledged:
        yield Step(f"P{at} has the home", take(state, at, planner, case))
    elif planner.doing == "appending":
        if planner.acknowledged:
            yield read_acknowledgement(state, at, planner, case)
        if state.faults.producer_fails:
            yield from producer_fails(spend(state, "producer_fails"), at, planner, case)
    elif planner.doing == "publishing":
        out = {job for job, _ in planner.results}
        book = tuple(entry._replace(out=True) if entry.job in out else entry for entry in planner.book)
        published = put(state, at, planner._replace(doing="ready", results=(), book=book))
        yield Step(f"P{at} publishes {planner.results}", published._replace(results=state.results | set(planner.results)))
    elif planner.doing == "ready":
        yield from take_input(state, at, planner, case)
        yield from tend_jobs(state, at, planner, case)


def owns(state: State, at: int) -> bool:
    return state.owner == at and state.planners[at].generation == state.generation


def start(state: State, at: int, planner: Planner, case: Case) -> Steps:
    positions = state.committed
    epoch = {
        "offset": NOBODY,  # known when it is acknowledged
        "generation": planner.generation,
        "counted": 1 + max((event.epoch for event in state.events if event.kind == "started"), default=0),
    }[case.rule.epoch]
    taking = Planner("taking", planner.generation, epoch, next=positions.watermark, jobs_at=positions.jobs, outcomes_at=positions.outcomes)
    yield Step(f"P{at} reads {positions}, sends PlannerStarted", send(state, at, taking, Event("started", epoch)))


def take(state: State, at: int, planner: Planner, case: Case) -> State:
    (offset,) = planner.acknowledged
    before = state.events[:offset]
    begin = min(planner.next, offset)
    if at in case.older and case.rule.leaves_newer and any(event.newer for _, event in valid(before, begin, case.rule.epoch)):
        return put(state, at, planner._replace(doing="left", acknowledged=()))
    book = replay(before, begin, reader(at, case))
    results = tuple((entry.job, entry.answers[-1] if entry.answers else NOBODY) for entry in book if entry.settled)
    known: frozenset[int] = frozenset()
    if case.rule.remembers and len(set(case.jobs)) < len(case.jobs):
        known = frozenset(event.job for _, event in valid(before, 0, case.rule.epoch) if event.kind == "settled")
    ready = planner._replace(
        doing="publishing" if results else "ready",
        epoch=offset if case.rule.epoch == "offset" else planner.epoch,
        next=offset + 1,
        book=book,
        known=known,
        acknowledged=(),
        results=results,
    )
    return put(state, at, ready)


def reader(at: int, case: Case) -> Reader:
    return Reader(case.rule.epoch, case.rule.ends_whole, ignorant=at in case.older)


def read_acknowledgement(state: State, at: int, planner: Planner, case: Case) -> Step[State]:
    landed = planner.acknowledged
    if landed == tuple(range(planner.next, planner.next + len(landed))):
        return Step(f"P{at} is acknowledged at {landed}", accepted(state, at, planner, case))
    if not case.rule.inspects_gaps:
        return Step(
            f"P{at} wanted {planner.next}, got {landed}, stops", made_anew(state, at, planner._replace(doing="stopped", acknowledged=()))
        )
    gap = state.events[planner.next : landed[-1]]
    if landed[0] >= planner.next and all(event.kind != "started" for event in gap):
        return Step(f"P{at} is acknowledged at {landed}, the gap is stale", accepted(state, at, planner, case))
    again = Planner("start", planner.generation) if owns(state, at) else IDLE
    return Step(f"P{at} is superseded" + (", takes the home again" if owns(state, at) else ""), made_anew(state, at, again))


def accepted(state: State, at: int, planner: Planner, case: Case) -> State:
    """The acknowledged events become state and effects."""
    book = {entry.job: entry for entry in planner.book}
    events = tuple(state.events[offset] for offset in planner.acknowledged)
    for offset, event in zip(planner.acknowledged, events, strict=True):
        book = fold(book, offset, event, reader(at, case))
    results = planner.results + tuple((event.job, event.answers[-1]) for event in events if event.kind == "settled")
    after = planner._replace(
        doing="publishing" if results else "ready",
        next=planner.acknowledged[-1] + 1,
        book=tuple(sorted(book.values())),
        acknowledged=(),
        results=results,
    )
    return with_commands(put(state, at, after), [] if case.rule.dispatches_beside else commands_for(events))


def producer_fails(state: State, at: int, planner: Planner, case: Case) -> Steps:
    if case.rule.starts_anew:
        yield Step(f"P{at} has a new producer, starts anew", made_anew(state, at, Planner("start", planner.generation)))
        return
    for append in state.appends:
        if append.by == at:
            yield Step(f"P{at} has a new producer, sends again", send(made_anew(state, at, planner), at, planner, *append.events))


def take_input(state: State, at: int, planner: Planner, case: Case) -> Steps:
    book = {entry.job: entry for entry in planner.book}
    if planner.jobs_at < len(case.jobs):
        job, passed = case.jobs[planner.jobs_at], planner._replace(jobs_at=planner.jobs_at + 1)
        fresh = job not in book and job not in planner.known
        yield from take_round(state, at, passed, case, f"job {job}", *(accept(planner, job, apart=at in case.older) if fresh else ()))
    if planner.outcomes_at < len(state.outcomes):
        outcome, passed = state.outcomes[planner.outcomes_at], planner._replace(outcomes_at=planner.outcomes_at + 1)
        events = answered(planner, book.get(outcome.job), outcome, case, apart=at in case.older)
        yield from take_round(state, at, passed, case, str(outcome), *events)


def accept(planner: Planner, job: int, *, apart: bool) -> list[Event]:
    """`apart`: each fact as an event."""
    event = Event("accepted", planner.epoch, job, source=planner.jobs_at)
    return [event, Event("asked", planner.epoch, job, step=1)] if apart else [event._replace(step=1, joined=True)]


def answered(planner: Planner, entry: Entry | None, outcome: Outcome, case: Case, *, apart: bool) -> list[Event]:
    if entry is None or entry.settled or wanted(entry)[:2] != outcome[:2] or entry.asked < outcome.step:
        return []
    if case.rule.step_holds_input and wanted(entry).made_from != outcome.made_from:
        return []
    event = Event("answered", planner.epoch, outcome.job, (outcome.answer,), outcome.step, outcome.made_from)
    if outcome.step < case.steps:
        return [event, Event("asked", planner.epoch, outcome.job, step=outcome.step + 1, made_from=outcome.answer)]
    if apart:
        return [event, Event("settled", planner.epoch, outcome.job, event.answers)]
    return [event._replace(kind="settled", joined=True)]


def take_round(state: State, at: int, passed: Planner, case: Case, what: str, *events: Event) -> Steps:
    if not events:
        yield Step(f"P{at} ignores {what}", put(state, at, passed))
        return
    after = send(state, at, passed._replace(doing="appending"), *events)
    if not case.rule.settles_first:
        after = after._replace(results=after.results | {(event.job, event.answers[-1]) for event in events if event.kind == "settled"})
    commands = commands_for(events) if case.rule.dispatches_beside else []
    yield Step(f"P{at} takes {what}, sends {[event.kind for event in events]} and {commands}", with_commands(after, commands))
    if commands and state.faults.dispatch_lost:
        yield Step(f"P{at} takes {what}, loses {commands}", spend(after, "dispatch_lost"), fault=True)


def tend_jobs(state: State, at: int, planner: Planner, case: Case) -> Steps:
    """What a planner does by itself for a live job."""
    for entry in planner.book:
        if entry.settled:
            continue
        if (lacking := lacks(planner, entry, case)) is not None:
            yield from take_round(state, at, planner, case, f"job {entry.job} up again", lacking)
            continue
        if len(entry.answers) == case.steps:
            continue
        if state.faults.claim_timeout and wanted(entry) not in state.commands:
            again = with_commands(spend(state, "claim_timeout"), [wanted(entry)])
            yield Step(f"P{at} sends {wanted(entry)} again", again, fault=True)
        if state.faults.snapshot and entry.first < planner.next - 1:
            event = Event(
                "snapshot", planner.epoch, entry.job, entry.answers, entry.asked, source=entry.source, joined=at not in case.older
            )
            yield Step(
                f"P{at} writes a snapshot of {entry.job}", send(spend(state, "snapshot"), at, planner._replace(doing="appending"), event)
            )


def lacks(planner: Planner, entry: Entry, case: Case) -> Event | None:
    """What its pattern wants and history does not hold, cut off or never written."""
    if len(entry.answers) == case.steps:
        return Event("settled", planner.epoch, entry.job, entry.answers[-1:]) if case.rule.drives_on else None
    if entry.asked > len(entry.answers) or not (case.rule.drives_asks and case.rule.drives_on):
        return None
    return Event("asked", planner.epoch, *wanted(entry)[:1], step=wanted(entry).step, made_from=wanted(entry).made_from)


def watermark(planner: Planner, case: Case) -> int:
    """Before everything that a successor needs who begins at this planner's positions."""
    lowest = planner.next - 1 if case.rule.names_valid else planner.next
    for entry in planner.book:
        if not entry.settled or entry.source >= planner.jobs_at or (case.rule.holds_for_results and not entry.out):
            lowest = min(lowest, entry.first)
    return lowest


def commits(state: State, at: int, case: Case) -> Steps:
    """Positions and watermark, one commit under way; not while an acknowledgement is awaited, and not what would be refused."""
    planner = state.planners[at]
    if planner.doing in ("ready", "publishing"):
        lowest = watermark(planner, case)
    elif planner.doing == "appending" and not case.rule.awaits_snapshots and snapshot_under_way(state, at):
        lowest = planner.next
    else:
        return
    if any(commit.generation == planner.generation for commit in state.commits) or (
        case.rule.fenced and planner.generation != state.generation
    ):
        return
    sent = [Commit(planner.generation, planner.jobs_at, planner.outcomes_at, lowest)]
    if not case.rule.one_commit:
        sent = [Commit(planner.generation, planner.jobs_at, planner.outcomes_at), Commit(planner.generation, watermark=lowest)]
    for commit in sent:
        if merged(state.committed, commit) != state.committed:
            yield Step(f"P{at} commits {commit[1:]}", state._replace(commits=tuple(sorted((*state.commits, commit)))))


def snapshot_under_way(state: State, at: int) -> bool:
    return any(append.by == at and append.events[0].kind == "snapshot" for append in state.appends)


def merged(before: Committed, commit: Commit) -> Committed:
    return Committed(*(old if new == UNCHANGED else new for old, new in zip(before, commit[1:], strict=True)))


def broker_steps(state: State, case: Case) -> Steps:
    for index, append in enumerate(state.appends):
        rest = state._replace(appends=state.appends[:index] + state.appends[index + 1 :])
        yield Step(f"{[event.kind for event in append.events]} of P{append.by} land at {len(state.events)}", land(rest, append))
        if state.faults.cut and len(append.events) > 1:
            begun = spend(rest, "cut")._replace(events=(*state.events, append.events[0]))
            left = Append(append.by, append.events[1:], (*append.landed, len(state.events)))
            yield Step(f"{append.events[0].kind} alone lands", begun._replace(appends=tuple(sorted((*begun.appends, left)))), fault=True)
    for index, commit in enumerate(state.commits):
        rest = state._replace(commits=state.commits[:index] + state.commits[index + 1 :])
        if not case.rule.fenced or commit.generation == state.generation:
            yield Step(f"{commit} lands", rest._replace(committed=merged(state.committed, commit)))


def land(rest: State, append: Append) -> State:
    after = rest._replace(events=rest.events + append.events)
    if append.by == NOBODY:
        return after
    offsets = append.landed + tuple(range(len(rest.events), len(after.events)))
    return put(after, append.by, after.planners[append.by]._replace(acknowledged=offsets))


def worker_steps(state: State, case: Case) -> Steps:
    answer = len(state.outcomes) + 1
    for index, command in enumerate(state.commands):
        if index and command == state.commands[index - 1]:
            continue
        rest = state._replace(commands=state.commands[:index] + state.commands[index + 1 :])
        if not case.rule.repeats_outcomes and any(outcome[:2] == command[:2] for outcome in state.outcomes):
            yield Step(f"the worker drops {command}", rest)
            continue
        outcomes = (*state.outcomes, Outcome(command.job, command.step, answer, command.made_from))
        yield Step(f"the worker runs {command}: {answer}", rest._replace(outcomes=outcomes))
        if state.faults.run_twice:
            twice = spend(state, "run_twice")._replace(outcomes=outcomes)
            yield Step(f"the worker runs {command}: {answer}, and will again", twice, fault=True)


def group_steps(state: State, case: Case) -> Steps:
    """Who has the home: a dead planner's session times out, a living one may lose it. None older while a newer one lives."""
    owner = state.planners[state.owner]
    for at, planner in enumerate(state.planners):
        if at == state.owner or planner.doing not in ("dead", "idle"):
            continue
        if at in case.older and any(other.doing != "dead" and newer not in case.older for newer, other in enumerate(state.planners)):
            continue
        if owner.doing == "dead":
            yield Step(f"the session of P{state.owner} times out, P{at} is assigned", assigned(state, at, case))
        elif owner.doing == "left" and at not in case.older:
            yield Step(f"P{at}, a newer one, is assigned", assigned(state, at, case))
        elif state.faults.rebalance:
            yield Step(f"P{at} is assigned", spend(assigned(state, at, case), "rebalance"), fault=True)
    if state.faults.group_forgotten and state.committed != Committed():
        yield Step("the group's offsets expire", spend(state, "group_forgotten")._replace(committed=Committed()), fault=True)


def losses(state: State) -> Steps:
    for at, planner in enumerate(state.planners):
        if state.faults.crash and planner.doing not in ("dead", "idle"):
            yield Step(f"P{at} crashes", spend(made_anew(state, at, IDLE._replace(doing="dead")), "crash"), fault=True)
