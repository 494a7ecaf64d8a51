"""The live fold: valid events of all homes as the jobs that there are: counts by stage and class, and the newest ones as rows. Pure.

A job is known from its acceptance, its snapshot or its end on; what history says of a job that began before reading did changes nothing
until then. Reading begins at or before the planners' watermark, so no live job is missed. Whatever the batches are, and however homes are
mixed, the same events make the same fold. No text of prompts or answers is kept.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import merge
from itertools import takewhile
from typing import Any

from pydantic import TypeAdapter, ValidationError

from shared.contracts import event as events
from shared.contracts import ids
from shared.contracts.result import Result
from shared.patterns.compare import COMPARE
from shared.patterns.gain import gains
from shared.placement.why import in_short
from shared.tree import StepStatus, Tree, fold_step, tree_of

WAITING, PLACED, ANSWERING, ENDED = "waiting", "placed", "answering", "ended"
"""Stages of a job: it waits; its planner has given a step to a node that has not said yet that it runs; a node answers; it has ended."""
_REASONS = {
    "asked": "place", "unplaced": "node", "retrying": "retry", "unfunded": "budget", "reviewed": "people", "sleeping": "time",
}  # fmt: skip
"""State of a step → what a job waits for, the most urgent first."""
_OPEN = frozenset({*_REASONS, "running"})
MOST_LIVE = 50_000
"""Far more than six homes admit; beyond, the least recently heard of is left out, and `lost` says so."""
MOST_STEPS = 60_000
"""Of all jobs together; then the steps of those that ended first are let go, and their trees say that they are not whole."""
_MOST_WHY = 200
_MOST_SNAPSHOTS = 1_000
_MOST_COMPARISONS = 5_000
RING_SECONDS = 300

Counted = Counter[tuple[str, ...]]
_NOTHING: Counted = Counter()
_STEPS = TypeAdapter(list[StepStatus])


@dataclass(slots=True)
class _ShownJob:
    """One job as it is now."""

    id: str
    tenant: str
    priority_class: str
    pattern: str
    accepted_at: float
    """By its planner's clock."""
    model: str = ""
    node: str = ""
    stage: str = WAITING
    reason: str = "place"
    status: str = ""
    failure: str = ""
    seconds: float | None = None
    """From acceptance to the end."""
    waited: float | None = None
    """Of its first step that began."""
    asked: int = 0
    attempts: int = 0
    tokens: int = 0
    wasted: int = 0
    cost: float = 0.0
    served: str = ""
    """How, where a cache answered: exact or semantic."""
    version: int = 0
    whole: bool = True
    result: bytes = b""
    """Once it has ended, without its answer."""
    steps: list[StepStatus] = field(default_factory=list)
    """While it is live; then they are packed."""
    packed: bytes = b""
    kept: int = 0
    """Steps that are packed."""
    given: dict[str, str] = field(default_factory=dict)
    """Step → node that its planner chose and that has not said yet that it runs."""
    why: dict[str, str] = field(default_factory=dict)
    """Step → why that node was chosen."""
    counted: Counted = field(default_factory=lambda: _NOTHING)
    """Replaced as a whole."""

    def row(self) -> list[Any]:
        """The values of `COLUMNS`."""
        return [
            self.id, self.tenant, self.priority_class, self.pattern, self.model, self.node, self.stage, self.reason, self.status,
            self.failure, round(self.accepted_at, 3), self.seconds, self.waited, self.asked, self.attempts, self.tokens, self.wasted,
            self.cost, self.served,
        ]  # fmt: skip


COLUMNS = (
    "id", "tenant", "class", "pattern", "model", "node", "stage", "reason", "status", "failure", "accepted", "seconds", "waited", "steps",
    "attempts", "tokens", "wasted", "cost", "served",
)  # fmt: skip


class _Rates:
    """How often something happened, by the second, of the last five minutes. Seconds are the reader's own."""

    def __init__(self) -> None:
        self._seconds: dict[int, Counter[str]] = {}

    def add(self, what: str, at: float) -> None:
        """In any order."""
        second = int(at)
        if second not in self._seconds and len(self._seconds) > 2 * RING_SECONDS:
            newest = max(self._seconds)
            self._seconds = {kept: counts for kept, counts in self._seconds.items() if kept > newest - RING_SECONDS}
            if second <= newest - RING_SECONDS:
                return
        self._seconds.setdefault(second, Counter())[what] += 1

    def per_second(self, what: str, now: float, seconds: int) -> float:
        """Mean over the last whole seconds."""
        return sum(self._seconds[second][what] for second in self._last(now, seconds)) / seconds

    def series(self, what: str, now: float, step: int) -> list[int]:
        """Counts of the last five minutes, each over `step` seconds, the oldest first."""
        found = [0] * (RING_SECONDS // step)
        for second in self._last(now, RING_SECONDS):
            found[-1 - (int(now) - 1 - second) // step] += self._seconds[second][what]
        return found

    def _last(self, now: float, seconds: int) -> list[int]:
        return [second for second in range(int(now) - seconds, int(now)) if second in self._seconds]


class ShownJobs:
    """`most` rows are kept, live ones first. `homes`: of the cluster, by which comparisons are known to be planners' own."""

    def __init__(self, most: int, homes: int) -> None:
        self._most, self._homes = most, homes
        self._live: OrderedDict[str, _ShownJob] = OrderedDict()
        self._ended: OrderedDict[str, _ShownJob] = OrderedDict()
        """Both by when they changed, the newest last."""
        self._with_steps: deque[_ShownJob] = deque()
        """Ended ones, in the order of their ends."""
        self._steps = 0
        self._parts: OrderedDict[tuple[str, str], dict[int, tuple[str, ...]]] = OrderedDict()
        self._comparisons: OrderedDict[str, Result] = OrderedDict()
        self.version = 0
        self.counts: Counted = Counter()
        """("job", class, stage, reason) and ("step", class, agent, waiting or running) → how many there are now. A step that its pattern
        has left alone counts until its job ends: history does not tell."""
        self.totals: Counter[str] = Counter()
        """Since reading began: ends by status, `answers`, `exact` and `semantic` hits."""
        self.rates = _Rates()
        self.starts = 0
        """Steps that began, ever."""
        self.lost = 0

    def __len__(self) -> int:
        return len(self._live) + len(self._ended)

    def event(self, event: Any, at: float | None) -> None:
        """A valid event, behind those of its home that were folded before. `at`: when, by this reader's clock; None: long ago."""
        job: str | None = event.__dict__.get("job")
        if job is None:
            return
        if isinstance(event, events.JobSnapshot):
            self._snapshot(job, event)
            return
        for fact in events.facts_of(event):
            self._fact(job, fact, at)

    def _snapshot(self, job: str, part: events.JobSnapshot) -> None:
        if job in self._live:
            return
        parts = self._parts.setdefault((job, part.snapshot), {})
        parts[part.part] = part.facts
        if len(parts) == part.parts:
            del self._parts[job, part.snapshot]
            for text in (text for number in sorted(parts) for text in parts[number]):
                try:
                    self.event(events.EVENT.validate_json(text), None)
                except ValidationError:  # of a newer planner
                    continue
        while len(self._parts) > _MOST_SNAPSHOTS:
            self._parts.popitem(last=False)

    def _fact(self, name: str, fact: Any, at: float | None) -> None:
        job = self._live.get(name)
        if isinstance(fact, events.JobAccepted):
            job = self._begin(name, fact)
            self._note("accepted", at)
        elif isinstance(fact, events.JobSettled):
            self._end(name, job, fact.result, at)
            return
        elif job is None:
            return  # of a job that began before reading did, and has ended
        else:
            self._step(job, fact, at)
        self._changed(job)

    def _begin(self, name: str, fact: events.JobAccepted) -> _ShownJob:
        self._forget(name)
        request = fact.request
        job = _ShownJob(name, request.tenant, fact.priority_class.value, request.pattern, fact.at, request.model)
        job.reason = "turn" if request.conversation is not None else "place"
        self._live[name] = job
        while len(self._live) > MOST_LIVE:
            self._forget(next(iter(self._live)))
            self.lost += 1
        self._trim()
        return job

    def _step(self, job: _ShownJob, fact: Any, at: float | None) -> None:
        before = len(job.steps)
        fold_step(job.steps, fact)
        self._steps += len(job.steps) - before
        if told := getattr(fact, "why", None):
            job.why[fact.step] = in_short(told)[:_MOST_WHY]
        match fact:
            case events.StepAsked():
                job.asked += 1
                job.model = fact.model
                if fact.node is not None:
                    job.given[fact.step], job.node = fact.node, fact.node
            case events.StepClaimedBy():
                job.given.pop(fact.step, None)
                job.attempts = max(job.attempts, fact.attempt)
                self._began(job, fact.node, at)
            case events.StepAnswered():
                job.given.pop(fact.step, None)
                self._answered(job, fact, at)
            case events.AttemptFailed():
                job.given.pop(fact.step, None)
                self._note("retried" if fact.retry_after_seconds is not None else "broken", at)
        if job.waited is None:
            job.waited = next((step.waited_seconds for step in job.steps if step.waited_seconds is not None), None)

    def _began(self, job: _ShownJob, node: str, at: float | None) -> None:
        job.node = node
        self.starts += 1
        self._note("started", at)

    def _answered(self, job: _ShownJob, fact: events.StepAnswered, at: float | None) -> None:
        step = next((step for step in job.steps if step.id == fact.step), None)
        if fact.node is not None and step is not None and step.waited_seconds is None:
            self._began(job, fact.node, at)  # claims of short steps are not always recorded
        job.node = fact.node or job.node
        job.tokens += fact.usage.prompt_tokens + fact.usage.completion_tokens
        job.cost += fact.usage.cost
        self.totals["answers"] += 1
        if fact.answer.served is not None:
            job.served = fact.answer.served.kind
            self.totals[job.served] += 1

    def _end(self, name: str, job: _ShownJob | None, result: Result, at: float | None) -> None:
        if job is None:
            self._forget(name)
            job = _ShownJob(name, result.tenant, result.priority_class.value, result.pattern, result.accepted_at, whole=False)
            job.model = (result.answer and result.answer.model) or ""
            job.node = (result.answer and result.answer.node) or ""
        else:
            del self._live[name]
            self.counts -= job.counted
            job.counted = _NOTHING
        usage = result.usage
        job.stage, job.reason, job.status = ENDED, "", result.status.value
        job.failure = result.failure.kind.value if result.failure is not None else ""
        job.seconds = round(max(0.0, result.finished_at - result.accepted_at), 3)
        job.asked, job.attempts, job.cost = result.steps, result.attempts, usage.cost
        job.tokens, job.wasted = usage.prompt_tokens + usage.completion_tokens, usage.wasted_tokens
        job.result, job.given = result.model_copy(update={"answer": None}).to_bytes(), {}
        job.packed, job.kept, job.steps = _STEPS.dump_json(job.steps, exclude_defaults=True), len(job.steps), []
        self._ended[name] = job
        self._with_steps.append(job)
        self._stamp(job)
        self.totals[job.status] += 1
        self._note("ended", at)
        if job.status not in ("succeeded", "cancelled"):
            self._note("failed", at)
        if result.pattern == COMPARE.name:
            self._comparisons[name] = result
            self._comparisons.move_to_end(name)
            if len(self._comparisons) > _MOST_COMPARISONS:
                self._comparisons.popitem(last=False)
        self._trim()

    def _note(self, what: str, at: float | None) -> None:
        if at is not None:
            self.rates.add(what, at)

    def _changed(self, job: _ShownJob) -> None:
        job.stage, job.reason = stage_of(job)
        counted: Counted = Counter({("job", job.priority_class, job.stage, job.reason): 1})
        for step in job.steps:
            if step.state in _OPEN and step.agent is not None:
                state = "running" if step.state == "running" else "waiting"
                counted["step", job.priority_class, step.agent, state] += 1
        if counted != job.counted:
            self.counts.subtract(job.counted)
            self.counts.update(counted)
            for key in job.counted:
                if not self.counts[key]:
                    del self.counts[key]
            job.counted = counted
        self._stamp(job)
        self._live.move_to_end(job.id)

    def _stamp(self, job: _ShownJob) -> None:
        self.version += 1
        job.version = self.version

    def _forget(self, name: str) -> None:
        job = self._live.pop(name, None) or self._ended.pop(name, None)
        if job is not None:
            self.counts -= job.counted
            self._drop_steps(job)

    def _drop_steps(self, job: _ShownJob) -> None:
        held = len(job.steps) + job.kept
        self._steps -= held
        job.steps, job.packed, job.kept, job.why, job.whole = [], b"", 0, {}, job.whole and not held

    def _trim(self) -> None:
        while len(self) > self._most and self._ended:
            self._drop_steps(self._ended.popitem(last=False)[1])
        while self._with_steps and (self._steps > MOST_STEPS or len(self._with_steps) > 2 * self._most):
            self._drop_steps(self._with_steps.popleft())

    # What is asked of it

    def live(self) -> Iterator[_ShownJob]:
        """All that have not ended."""
        return iter(self._live.values())

    def ended(self) -> Iterator[_ShownJob]:
        """Those that ended last first."""
        return reversed(self._ended.values())

    def since(self, version: int, most: int) -> list[_ShownJob]:
        """Up to so many that changed behind `version`, those that changed first first."""
        newest = merge(reversed(self._live.values()), reversed(self._ended.values()), key=lambda job: -job.version)
        return list(takewhile(lambda job: job.version > version, newest))[: -most - 1 : -1]

    def get(self, name: str) -> _ShownJob | None:
        """As it is known here."""
        return self._live.get(name) or self._ended.get(name)

    def gains(self) -> list[dict[str, Any]]:
        """What patterns gain, as `tutti patterns report` counts it, of the comparisons that were read."""
        found, _ = gains(self._comparisons.values(), self._homes)
        return [gain.as_json() for gain in found]


def stage_of(job: _ShownJob) -> tuple[str, str]:
    """Where a job that has not ended is, and what it waits for."""
    states = {step.state for step in job.steps}
    if "running" in states:
        return ANSWERING, ""
    if any(step.state == "asked" and step.id in job.given for step in job.steps):
        return PLACED, ""
    return WAITING, next((reason for state, reason in _REASONS.items() if state in states), job.reason or "place")


def tree(job: _ShownJob) -> Tree:
    """Its steps in order."""
    steps = _STEPS.validate_json(job.packed) if job.packed else job.steps
    result = Result.model_validate_json(job.result) if job.result else None
    state = "settled" if result is not None else job.stage
    return tree_of(ids.public(job.id), state, steps, pattern=job.pattern, whole=job.whole, result=result)
