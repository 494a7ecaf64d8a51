"""What must hold in the model of the planner's protocol, in every state and once faults stop; walks at random where a search is too long.

In every state: a job has at most one valid settle event; a result is the one of it, and there is one; a step is asked for once; an accepted
answer was made from what history holds; replay from the committed watermark gives every live job as the whole log gives it.
Once faults stop (from any state: the planner that has the home goes on, a dead one is replaced, claims time out): everything comes to
rest, every job has its result, and the above still holds.
"""

from __future__ import annotations

from functools import lru_cache, partial
from itertools import chain
from random import Random

from tests.model.protocol import Case, Event, Faults, Reader, State, first_state, replay, valid, wanted
from tests.model.protocol_steps import NOTICES, broker_steps, group_steps, parts, planner_steps, steps, worker_steps
from tests.model.search import Explored, Step, explore

LONGEST_REST = 300
"""Steps without faults within which all is quiet."""


def broken(state: State, case: Case) -> str | None:
    return unlike_history(state.events, state.results, state.committed.watermark, case.rule.epoch)


@lru_cache(maxsize=100_000)
def unlike_history(events: tuple[Event, ...], results: frozenset[tuple[int, int]], watermark: int, epochs: str) -> str | None:
    settled: dict[int, int] = {}
    answers: dict[int, tuple[int, ...]] = {}
    asked: set[tuple[int, int]] = set()
    for _, event in valid(events, 0, epochs):
        if event.kind in ("accepted", "asked") and event.step:
            if (event.job, event.step) in asked:
                return f"job {event.job}: step {event.step} is asked for twice"
            asked.add((event.job, event.step))
        if event.kind == "settled":
            if event.job in settled:
                return f"job {event.job} is settled twice"
            settled[event.job] = event.answers[-1]
        if event.kind in ("answered", "settled") and event.step == len(before := answers.get(event.job, ())) + 1:
            if before and event.made_from != before[-1]:
                return f"job {event.job}: step {event.step} was made from what history does not hold"
            answers[event.job] = before + event.answers
    for job, answer in results:
        if settled.get(job) != answer:
            return f"job {job}: a result that history does not hold"
    whole = replay(events, 0, Reader(epochs))
    known = {entry.job: entry[3:5] for entry in replay(events, min(watermark, len(events)), Reader(epochs))}
    for entry in whole:
        if not entry.settled and known.get(entry.job) != (entry.answers, entry.asked):
            return f"job {entry.job} is live, its events lie before the watermark"
    return None


class Rest:
    """Whether all ends well from a state when faults stop; what is known of one state is known of all on the way from it."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._known: dict[State, str | None] = {}

    def wrong(self, state: State) -> str | None:
        if (why := broken(state, self._case)) is not None:
            return why
        state, way = state._replace(faults=Faults()), list[State]()
        while state not in self._known:
            way.append(state)
            after = calm_step(state, self._case)
            if after is None:
                self._known[state] = unfinished(state, self._case)
            elif len(way) > LONGEST_REST:
                self._known[state] = "does not come to rest"
            else:
                state = after.after
        verdict = self._known[state]
        self._known.update(dict.fromkeys(way, verdict))
        return verdict


def calm_step(state: State, case: Case) -> Step[State] | None:
    """The next step of a world without faults; None: it is at rest."""
    planners = (planner_steps(state, at, case) for at in range(case.planners))
    by_themselves = chain(broker_steps(state, case), worker_steps(state, case), *planners, group_steps(state, case))
    if (step := next(by_themselves, None)) is not None:
        return step
    owner = state.planners[state.owner]
    waiting = tuple(wanted(entry) for entry in owner.book if not entry.settled and len(entry.answers) < entry.asked)
    return None if owner.doing == "stopped" or not waiting else Step("claims time out", state._replace(commands=waiting))


def unfinished(state: State, case: Case) -> str | None:
    if state.planners[state.owner].doing == "stopped":
        return "the home has no planner"
    missing = set(case.jobs) - {job for job, _ in state.results}
    return f"job {min(missing)} never gets a result" if missing else broken(state, case)


def check(case: Case) -> Explored:
    """To exhaustion."""
    return explore(first_state(case), partial(steps, case=case), Rest(case).wrong)


def walk(case: Case, seed: int, length: int = 160) -> Explored:
    """One way at random; each walk has slow ones of its own, so that long pauses happen."""
    random, trace = Random(seed), list[str]()
    pace = {who: random.choice((0.03, 0.3, 1, 1)) for who in ("P0", "P1", "P2", "broker", "worker")}
    state = first_state(case)
    for _ in range(length):
        ways = [
            (step, pace.get(who, 1) * (0.1 if step.fault or step.what.endswith(NOTICES) else 1))
            for who, part in parts(state, case)
            for step in part
        ]
        if not ways:
            break
        (step,) = random.choices([step for step, _ in ways], [weight for _, weight in ways])
        state = step.after
        trace.append(step.what)
        if (why := broken(state, case)) is not None:
            return Explored(len(trace), why, tuple(trace))
    return Explored(len(trace), Rest(case).wrong(state), tuple(trace))
