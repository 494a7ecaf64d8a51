"""Scripted models under virtual time: a pattern's run without a cluster, where each request's answer and duration follow from its content.

`play` drives a pattern as the planner does: what is asked enters history, ends come in the order of their times, and what is given up is
stopped. `crashes_alike` is the law that a planner may die at every event of a recorded run.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from shared.agents.beliefs import Judgement
from shared.contracts.agents import Member, Team
from shared.contracts.base import StepId
from shared.contracts.chat import Answer
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import Job
from shared.contracts.limits import Limits
from shared.contracts.step import StepRequest
from shared.contracts.usage import Usage
from shared.patterns.comparison import SINGLE_ANSWER, Baseline
from shared.patterns.context import Context, SoFar
from shared.patterns.port import Pattern
from shared.patterns.run import Run

NEVER = float("inf")
ONE_CALL = Usage(calls=1, prompt_tokens=10, completion_tokens=5)
"""What each answer of `play` has used."""
DOWN = Failure(kind=FailureKind.MODEL_ERROR, message="the scripted model is down")


@dataclass(frozen=True, slots=True)
class Reply:
    """What a scripted model does with a request: an answer or a failure after so many seconds; `NEVER`: it hangs."""

    answer: str | Answer | Failure
    seconds: float = 1.0


Script = Callable[[StepRequest], Reply]


def draw(request: StepRequest, *labels: str) -> float:
    """In [0, 1), by the request's content alone: the same in any order of arrival."""
    digest = blake2b(request.rendered() + "\x1f".join(labels).encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


@dataclass(slots=True)
class Played:
    """How a run went. `history`: ("asked", step) and ("ended", step, answer or failure or None for a sleep), in order."""

    answer: Answer | None = None
    failure: Failure | None = None
    best: Answer | None = None
    baseline: Baseline | None = SINGLE_ANSWER
    said: tuple[Judgement, ...] = ()
    seconds: float = 0.0
    asked: list[StepRequest] = field(default_factory=list)
    history: list[tuple[Any, ...]] = field(default_factory=list)
    so_far: dict[StepId, SoFar] = field(default_factory=dict)
    """What the pattern knew with each answer."""
    widest: int = 0
    """Most model calls open at once."""

    @property
    def text(self) -> str:
        """Of the answer. Fails the test where there is none."""
        assert self.answer is not None, self.failure
        return self.answer.text


def team(*agents: str) -> Team:
    """Agents that are told their name."""
    return Team(members=tuple(Member(reference=name, version="0" * 12, system=f"You are {name}.") for name in agents))


def run_of(
    pattern: Pattern, job: Job, team: Team | None = None, limits: Limits | None = None, *, seconds: float = 3_600.0, name: str = "t/j_1"
) -> Run:
    """A run that has begun, as admission makes it. `name`: the job's id, from which its seeds come."""
    run = Run(name, pattern, job, Context(name, team, limits, seconds))
    run.start()
    return run


def play(pattern: Pattern, job: Job, script: Script, *, most_asks: int = 10_000, **given: Any) -> Played:
    """The whole run. `given`: of `run_of`. AssertionError when it waits for what never comes, or asks without end."""
    run, played, now, used = run_of(pattern, job, **given), Played(), 0.0, Usage()
    ran: dict[StepId, float] = {}
    queue: list[tuple[float, int, StepId, Any]] = []
    calls: set[StepId] = set()
    while not run.finished:
        for wanted in run.wanted():
            if not run.still_wants(wanted.step):
                continue
            run.record(wanted.step)
            played.history.append(("asked", wanted.step))
            end: Any = None
            seconds = wanted.seconds
            if wanted.request is not None:
                played.asked.append(wanted.request)
                calls.add(wanted.step)
                reply = script(wanted.request)
                seconds = ran[wanted.step] = reply.seconds
                end = Answer(text=reply.answer) if isinstance(reply.answer, str) else reply.answer
            if seconds < NEVER:
                heapq.heappush(queue, (now + seconds, len(played.history), wanted.step, end))
        calls.difference_update(run.take_abandoned())
        played.widest = max(played.widest, len(calls))
        assert len(played.asked) <= most_asks, "it asks without end"
        assert queue, "it waits for what never comes"
        now, _, step, end = heapq.heappop(queue)
        if step in run._waiting:
            calls.discard(step)
            played.history.append(("ended", step, end))
            if isinstance(end, Answer):
                used = used.plus(ONE_CALL)
                played.so_far[step] = run.context.so_far = SoFar(used, now, ran[step])
            _resume(run, step, end)
    played.baseline, played.said = run.context.baseline, run.context.said
    played.answer, played.failure, played.best, played.seconds = run.answer, run.failure, run.context.best_answer, now
    return played


def crashes_alike(pattern: Pattern, job: Job, played: Played, **given: Any) -> None:
    """A planner that takes over after any event asks for nothing that history holds, and ends with the same result."""
    for died in range(len(played.history) + 1):
        run = run_of(pattern, job, **given)
        for number, entry in enumerate(played.history):
            if number >= died:
                assert not (already := {wanted.step for wanted in run.wanted()} & _asked(played, died)), already
            if entry[0] == "asked":
                run.record(entry[1])
            else:
                run.context.so_far = played.so_far.get(entry[1], run.context.so_far)
                _resume(run, entry[1], entry[2])
        assert (run.answer, run.failure) == (played.answer, played.failure)
        assert (run.context.baseline, run.context.said) == (played.baseline, played.said)
        run.close()


def _asked(played: Played, before: int) -> set[StepId]:
    return {entry[1] for entry in played.history[:before] if entry[0] == "asked"}


def _resume(run: Run, step: StepId, end: Any) -> None:
    run.resume(step, end if isinstance(end, Answer) else None, end if isinstance(end, Failure) else None)


def by_agent(scripts: Mapping[str, Script], default: Script | None = None) -> Script:
    """Each agent's own script. KeyError for one that has none."""

    def reply(request: StepRequest) -> Reply:
        script = scripts.get(request.agent, default)
        if script is None:
            raise KeyError(request.agent)
        return script(request)

    return reply
