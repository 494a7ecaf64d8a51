"""Tree: a job's steps as its history tells them, and how they hang together. Pure: time comes from the events.

`fold_step` is the fold, `tree_of` puts what it made into order. A step's path says where it stands: calls of one coroutine are counted
(`0.0`, `0.1`), what a gather spreads has a slot (`0.1/2.0`). No text of prompts or answers is kept, only how large an answer is.

Seconds are differences between events of one epoch, so of one planner's clock; where another planner came in between they are not known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field

from shared.contracts import event as events
from shared.contracts.chat import Answer
from shared.contracts.result import Result
from shared.contracts.review import ReviewDecided, ReviewEscalated, ReviewOpened, ReviewWithdrawn
from shared.contracts.tasks import TaskProgress
from shared.contracts.usage import Usage

_MAX_STEPS = 1_000
_MAX_TOLD = 100
"""Nodes and failures that are kept of one step, the newest."""
_PATH = re.compile(r"0\.\d{1,9}(?:/\d{1,9}\.\d{1,9}){0,200}")
_ENDED = ("answered", "failed", "over", "decided", "withdrawn")
_UNUSED = Usage()


class StepStatus(BaseModel):
    """One step as a caller sees it. Instants and seconds are the planner's, but for `ran_seconds`."""

    id: str
    path: str | None = None
    agent: str | None = None
    model: str | None = None
    state: str = "asked"
    """asked, unfunded (waits for its tenant's budget), unplaced (waits for a node that can run it), running, answered, retrying, failed;
    of a pause: sleeping, over; of a review: reviewed, decided, withdrawn; in a tree also abandoned (nobody waits for it any longer).
    What is told of a step by an event that this version does not know is its state by the event's name."""
    attempt: int = 0
    retry_at: float | None = None
    """While it is retrying: when the next attempt begins. By the planner's clock, as all instants here."""
    due_at: float | None = None
    """Of a pause: its end; of a review: when its default holds."""
    why: str | None = None
    """Why its newest attempt's node was chosen, as JSON (`shared/placement/why.py`)."""
    choice: str | None = None
    """Where its model was chosen: how, as JSON (`shared/agents/suiting.py`)."""
    missing: list[str] = Field(default_factory=list)
    """While it is unplaced: what no live node has."""
    progress: TaskProgress | None = None
    """Of a task on a model, as its node tells it: filled in when it is shown."""
    nodes: list[str] = Field(default_factory=list)
    """Nodes that claimed an attempt, in order."""
    failures: list[str] = Field(default_factory=list)
    """Kinds, one a failed attempt."""
    usage: Usage | None = None
    """Of all its attempts; what failed ones used is waste."""
    asked_at: float | None = None
    waited_seconds: float | None = None
    """From the ask to the first claim; where that is not told, what the run of the answer leaves."""
    ran_seconds: float | None = None
    """Of the attempt that answered, as its worker measured it."""
    seconds: float | None = None
    """From the ask to the end."""
    answer_bytes: int | None = None
    """Of the answer's text, or of all of it where it lies in a blob."""
    epoch: int | None = None
    """Of the ask. Not shown."""


class TreeNode(BaseModel):
    """A step or a pause (a sleep, a review), with its `step`; or a gather, or a branch of one, which hold others (`parent`)."""

    path: str
    parent: str | None = None
    kind: Literal["step", "pause", "gather", "branch"]
    critical: bool = False
    """On the way that decided how long the job took, so far."""
    step: StepStatus | None = None


class Tree(BaseModel):
    """One job. `nodes` stand in the order of the pattern's calls, each behind its parent."""

    id: str
    state: str
    pattern: str | None = None
    status: str | None = None
    """The result's, once there is one."""
    whole: bool = True
    """False: steps are missing here, since the history of a job is kept for a while only, and of 1,000 steps."""
    steps: int = 0
    attempts: int = 0
    usage: Usage = _UNUSED
    seconds: float | None = None
    """From acceptance to the end."""
    critical_seconds: float = 0.0
    nodes: list[TreeNode] = Field(default_factory=list)


def fold_step(steps: list[StepStatus], fact: Any) -> None:
    """One fact (`facts_of`) about a step; others change nothing."""
    identifier = getattr(fact, "step", None)
    step = None if identifier is None else _step(steps, identifier)
    if step is None:
        return
    match fact:
        case events.StepAsked():
            step.path, step.agent, step.model, step.state = fact.path, fact.agent, fact.model, _sent(fact.unfunded)
            step.asked_at, step.epoch, step.choice = fact.at, fact.epoch, fact.choice
        case events.TimerSet():
            step.path, step.state, step.due_at, step.asked_at, step.epoch = fact.path, "sleeping", fact.due_at, fact.at, fact.epoch
        case events.TimerFired():
            step.state, step.seconds = "over", _since(step, fact)
        case ReviewOpened():
            step.path, step.state, step.due_at, step.asked_at, step.epoch = fact.path, "reviewed", fact.due_at, fact.at, fact.epoch
        case ReviewDecided(over=True):
            step.state, step.seconds = "decided", _since(step, fact)
        case ReviewWithdrawn():
            step.state = "withdrawn"
        case events.WorkWasted() | ReviewDecided() | ReviewEscalated():
            pass  # of waste the result's usage tells, of reviews the last decision
        case _:
            _fold_attempt(step, fact)


def _fold_attempt(step: StepStatus, fact: Any) -> None:
    step.why = getattr(fact, "why", None) or step.why
    step.attempt, step.retry_at, step.missing = max(step.attempt, getattr(fact, "attempt", 0)), None, []
    match fact:
        case events.StepWaits():
            step.state, step.missing = ("unplaced" if fact.missing else "asked"), list(fact.missing)
        case events.StepClaimedBy():
            step.state = "running"
            _tell(step.nodes, fact.node)
            if step.waited_seconds is None:
                step.waited_seconds = _since(step, fact)
        case events.StepAnswered():
            step.state, step.seconds = "answered", _since(step, fact)
            step.usage, step.answer_bytes = (step.usage or _UNUSED).plus(fact.usage), _size(fact.answer)
            if fact.node is not None and fact.node not in step.nodes:  # claims of short steps are not always recorded
                _tell(step.nodes, fact.node)
            if fact.timings.total_ms:
                step.ran_seconds = round(fact.timings.total_ms / 1000, 3)
                if step.waited_seconds is None and step.seconds is not None:
                    step.waited_seconds = round(max(0.0, step.seconds - step.ran_seconds), 3)
        case events.AttemptFailed():
            wait = fact.retry_after_seconds
            step.state, step.retry_at = ("failed", None) if wait is None else ("retrying", fact.at + wait)
            _tell(step.failures, fact.failure.kind.value)
            if fact.usage != _UNUSED:
                step.usage = (step.usage or _UNUSED).plus(fact.usage.as_waste())
            if wait is None:
                step.seconds = _since(step, fact)
        case events.StepRetried():
            step.state = _sent(fact.unfunded)
        case events.StepFunded():
            step.state = _sent(unfunded=None)
        case _:
            step.state, step.path = str(fact.type), step.path or getattr(fact, "path", None)


def _since(step: StepStatus, fact: Any) -> float | None:
    """Seconds from the ask on; None where another planner asked."""
    return None if step.asked_at is None or step.epoch != fact.epoch else round(max(0.0, fact.at - step.asked_at), 3)


def _size(answer: Answer) -> int:
    return len(answer.text.encode()) if answer.blob is None else answer.blob.size


def _sent(unfunded: bool | None) -> str:
    return "unfunded" if unfunded else "asked"


def _tell(told: list[str], news: str) -> None:
    told.append(news)
    del told[:-_MAX_TOLD]


def _step(steps: list[StepStatus], identifier: str) -> StepStatus | None:
    for step in steps:
        if step.id == identifier:
            return step
    if len(steps) >= _MAX_STEPS:
        return None
    step = StepStatus(id=identifier)
    steps.append(step)
    return step


Place = tuple[int, ...]
"""A path's numbers: 0, then a call, then slot and call for each gather that it lies in. So a gather's has an even length, a branch's an odd
one, and sorting them gives the order of the calls."""


def tree_of(job: str, state: str, steps: Sequence[StepStatus], *, pattern: str | None, whole: bool, result: Result | None) -> Tree:
    """The tree of a job that is so far. `whole`: its history was seen from the beginning. A path that is none stands at the end."""
    placed = {_place(step.path): step for step in steps if step.path is not None and _PATH.fullmatch(step.path)}
    others = [step for step in steps if step.path is None or not _PATH.fullmatch(step.path)]
    over = _over(placed)
    shown = {place: _as_it_is(step, gone=result is not None or _left(place, over)) for place, step in placed.items()}
    places = sorted({place[:length] for place in placed for length in range(2, len(place) + 1)})
    critical, seconds = _critical(places, shown)
    nodes = [_node(place, shown.get(place), critical=place in critical) for place in places]
    gone = result is not None
    nodes += [TreeNode(path=step.path or step.id, kind=_kind(step), step=_as_it_is(step, gone=gone)) for step in others]
    asked = [step for step in steps if step.due_at is None]
    used = _UNUSED
    for step in asked:
        used = used.plus(step.usage or _UNUSED)
    if result is not None:
        whole = whole and result.steps <= len(asked) and all(step.path is not None for step in steps)
    return Tree(
        id=job,
        state=state,
        pattern=pattern,
        status=None if result is None else result.status.value,
        whole=whole,
        steps=len(asked) if result is None else result.steps,
        attempts=sum(step.attempt for step in asked) if result is None else result.attempts,
        usage=used if result is None else result.usage,
        seconds=None if result is None else round(max(0.0, result.finished_at - result.accepted_at), 3),
        critical_seconds=round(seconds, 3),
        nodes=nodes,
    )


def _place(path: str) -> Place:
    return tuple(int(number) for number in re.split(r"[./]", path))


def path_of(place: Place) -> str:
    """The path of a place."""
    return str(place[0]) + "".join(f"{'./'[number % 2]}{value}" for number, value in enumerate(place[1:]))


def _node(place: Place, step: StepStatus | None, *, critical: bool) -> TreeNode:
    kind = _kind(step) if step is not None else "branch" if len(place) % 2 else "gather"
    return TreeNode(path=path_of(place), parent=path_of(place[:-1]) if len(place) > 2 else None, kind=kind, critical=critical, step=step)


def _kind(step: StepStatus) -> Literal["step", "pause"]:
    return "step" if step.due_at is None else "pause"


def _over(places: Iterable[Place]) -> dict[Place, int]:
    """Coroutine → its last call: it has gone on from every earlier one."""
    last: dict[Place, int] = {}
    for place in places:
        for length in range(1, len(place), 2):
            last[place[:length]] = max(place[length], last.get(place[:length], 0))
    return last


def _left(place: Place, over: dict[Place, int]) -> bool:
    return any(place[length] < over[place[:length]] for length in range(1, len(place), 2))


def _as_it_is(step: StepStatus, *, gone: bool) -> StepStatus:
    """History does not say of each step that it was abandoned: what has not ended when its pattern went on, or the job ended, was."""
    state = "abandoned" if gone and step.state not in _ENDED else step.state
    return step.model_copy(update={"state": state, "epoch": None})


def _critical(places: Sequence[Place], steps: dict[Place, StepStatus]) -> tuple[set[Place], float]:
    """The places that decided how long it took, and how long: of a gather the branch that still runs, else the one that took longest."""
    calls: dict[Place, list[Place]] = {}
    for place in places:
        calls.setdefault(place[:-1], []).append(place)
    weights: dict[Place, tuple[int, float]] = {}
    for place in reversed(places):
        below = calls.get(place, [])
        if place in steps:
            step = steps[place]
            rank = 0 if step.state == "abandoned" else 1 if step.state in _ENDED else 2
            weights[place] = rank, step.seconds or step.ran_seconds or 0.0
        elif len(place) % 2:
            weights[place] = weights[below[-1]][0], sum(weights[call][1] for call in below)
        else:
            weights[place] = max(weights[branch] for branch in below)
    found: set[Place] = set()
    open_ = calls.get((0,), [])
    seconds = sum(weights[call][1] for call in open_)
    while open_:
        place, *open_ = open_
        found.add(place)
        below = calls.get(place, [])
        open_ += below if len(place) % 2 or not below else [max(below, key=weights.__getitem__)]
    return found, seconds
