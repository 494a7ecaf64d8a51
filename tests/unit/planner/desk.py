"""A book without a log: every round is acknowledged at once and its events get offsets, as a home on a quiet partition does it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.planner.deciding import attempts, funding
from services.planner.deciding.admission import JobInput, accept
from services.planner.draft import Dispatch, Draft, Publish, Stop
from services.planner.history.appender import Appender
from services.planner.history.recovery import Replay
from services.planner.job.live import LiveJob
from services.planner.job.open_step import OpenStep
from services.planner.round import Round
from services.planner.state import snapshots
from services.planner.state.book import Book
from services.planner.state.policy import Policy
from shared.clock import ManualClock
from shared.contracts.base import PriorityClass
from shared.contracts.budget import TenantLimits
from shared.contracts.chat import Answer
from shared.contracts.event import EVENT, JobSettled, PlannerStarted, facts_of
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.ids import digest_of
from shared.contracts.job import Job, ReplyTo
from shared.contracts.outcome import ClaimsRenewed, StepClaimed, StepFailed, StepReleased, StepRouted, StepSucceeded
from shared.contracts.step import Step
from shared.contracts.usage import Usage
from shared.kafka.port import Message, TopicPartition
from shared.patterns import BUILT_IN, Patterns
from shared.patterns.port import Pattern

TOPIC = "jobs.standard"
ONE_CALL = Usage(calls=1, prompt_tokens=10, completion_tokens=5)


def two_steps(**changes: Any) -> dict[str, Any]:
    """A chain job whose second step uses the first's answer."""
    steps = [{"name": "first", "template": "one {input}"}, {"name": "second", "template": "two {first}"}]
    return {"prompt": "q", "pattern": "chain", "chain": steps, **changes}


EXTRA: tuple[Pattern, ...] = ()
"""Patterns that every desk knows besides; tests set it."""


class Desk:
    """One home's book, its history, and time that moves when told."""

    def __init__(self, policy: Policy | None = None, seed: int = 0, tenants: dict[str, TenantLimits] | None = None) -> None:
        self.policy = replace(policy or Policy(), patterns=Patterns([*BUILT_IN.current.values(), *EXTRA]))
        self.seed, self.tenants = seed, tenants or {}
        self.now, self.wall = 1_000.0, 1_700_000_000.0
        self.skew = 0.0
        """Of the planner's wall clock; the brokers' is right."""
        self._arrived: list[int] = []
        self.history: list[tuple[int, bytes]] = []
        self.inputs = 0
        self.book = Book(0, self.policy, Random(seed), self.tenants)
        self.book.epoch = 0
        self._append(PlannerStarted(nonce="n", planner="p").to_bytes())

    # Inputs

    def submit(self, *, id_: str | None = None, reply: ReplyTo | None = None, source: int | None = None, **job: Any) -> Round:
        """One job record; without fields the smallest job."""
        offset = self.inputs if source is None else source
        self.inputs = max(self.inputs, offset + 1)
        given = job_input(job or {"prompt": "q"}, offset, id_, reply)
        return self.round(lambda round_: accept(round_, given, self.ended(given.id)))

    def ended(self, job: str) -> JobSettled | None:
        """How a job with this id ended within the window, read again from history as the home's gate does it."""
        offset = self.book.recent_ids.find(job, self.now)
        return None if offset is None else JobSettled.model_validate_json(self.history[offset][1])

    def say(self, *outcomes: Any) -> Round:
        """Outcome records, folded in one round."""

        def fold(round_: Round) -> None:
            for outcome in outcomes:
                attempts.on_outcome(round_, outcome)

        return self.round(fold)

    def wait(self, seconds: float) -> Round:
        """Let time pass, then fire what is due."""
        self.now += seconds
        self.wall += seconds

        def fire(round_: Round) -> None:
            for job in self.book.timers.pop_due(round_.now):
                attempts.on_due(round_, job)

        return self.round(fire)

    def snapshot(self, job: LiveJob) -> Round:
        name = f"0-{len(self.history)}"
        return self.round(lambda round_: snapshots.write(self.book.kept_jobs, round_, job, name))

    def renew(self, distance: int = 10, later: float = 0.0) -> Round:
        """What is kept is told again where it lies too far back, or has grown old."""
        self.wall += later
        return self.round(lambda round_: [kind.renew(round_, len(self.history), distance) for kind in self.book.kept.kinds])

    def forget_jobs(self) -> None:
        """They are out, and nobody's any more."""
        for job in list(self.book.jobs):
            self.book.kept_jobs.drop(job)

    def round(self, decide: Callable[[Round], object], *, claims: bool = True) -> Round:
        """One round, acknowledged."""
        round_ = Round.of(self.book, self.wall + self.skew, self.now)
        decide(round_)
        funding.fund(round_)
        if claims:
            attempts.flush_claims(round_)
        self.acknowledge(round_)
        return round_

    def acknowledge(self, round_: Round) -> None:
        """What a home does once its append lies where it was expected."""
        for value in appended(round_, len(self.history)):
            self._append(value)

    def _append(self, value: bytes) -> None:
        self.history.append((len(self.history), value))
        self._arrived.append(int(self.wall * 1000))

    def begins(self, job: str | None = None) -> int:
        """Where this job, or the newest, begins for a successor."""
        offset = self.book.kept_jobs.offset(job or self.job.id)
        assert offset is not None, "its events are not acknowledged"
        return offset

    # What is seen

    @property
    def job(self) -> LiveJob:
        """The newest job."""
        return next(reversed(self.book.jobs.values()))

    @property
    def step(self) -> OpenStep:
        """The only open step of the newest job."""
        [step] = self.job.steps.values()
        return step

    def types(self, skip: int = 0) -> list[str]:
        """The types of the history's facts."""
        return [fact.type for _, value in self.history[skip:] for fact in facts_of(EVENT.validate_json(value))]

    def replayed(self, history: list[tuple[int, bytes]] | None = None) -> tuple[Replay, Book, Round]:
        """A successor's replay of the history, not yet finished; its book, and the round that it will fill."""
        successor = Book(0, self.policy, Random(self.seed), self.tenants)
        successor.epoch = len(self.history)
        round_ = Round.of(successor, self.wall + self.skew, self.now)
        replay = Replay(round_)
        for offset, value in self.history if history is None else history:
            replay.fold(offset, value, self._arrived[min(offset, len(self._arrived) - 1)])
        replay.fold(successor.epoch, PlannerStarted(nonce="m", planner="q").to_bytes(), int(self.wall * 1000))
        return replay, successor, round_

    def take_over(self) -> Round:
        """The planner dies; a successor replays what was acknowledged and drives on. Its first round."""
        replay, self.book, round_ = self.replayed()
        self._append(PlannerStarted(nonce="m", planner="q").to_bytes())
        replay.finish()
        self.acknowledge(round_)
        return round_


def appended(draft: Draft, end: int) -> list[bytes]:
    """The round's events, written by the planner's own appender to a quiet partition that ends there."""
    written: list[bytes] = []

    async def append(_: TopicPartition, messages: list[Message]) -> int:
        written.extend(message.value or b"" for message in messages)
        return end + len(written) - len(messages)

    wiring = cast("Any", SimpleNamespace(writer=SimpleNamespace(append=append), clock=ManualClock()))
    appender = Appender(wiring, TopicPartition("job-events", 0), cast("Any", SimpleNamespace(epoch=end - 1)))
    with pytest.raises(StopIteration):  # it waits for nothing
        appender.append(draft).send(None)
    return written


def job_input(job: dict[str, Any], offset: int = 0, id_: str | None = None, reply: ReplyTo | None = None) -> JobInput:
    """A job record as the planner's reader gives it; with `id_` the client gave the id."""
    parsed = Job.model_validate(job)
    return JobInput(
        id=id_ or f"j_{offset}",
        client_id=id_ is not None,
        job=parsed,
        priority_class=PriorityClass.STANDARD,
        source=f"{TOPIC}/0/{offset}",
        source_offset=offset,
        reply=reply,
        trace=None,
        digest=digest_of(parsed.to_bytes()),
    )


def opened(policy: Policy | None = None, *, stream: bool = False, **job: Any) -> Desk:
    """A desk with one job whose step is asked."""
    desk = Desk(policy)
    desk.submit(prompt="q", stream=stream, **job)
    return desk


def last(desk: Desk, kind: type) -> object:
    """The newest event of a kind."""
    events = (EVENT.validate_json(value) for _, value in reversed(desk.history))
    return next(fact for event in events for fact in reversed(facts_of(event)) if isinstance(fact, kind))


# Outcomes, by what they are about


def _of(step: OpenStep, job: LiveJob, attempt: int | None, node: str) -> dict[str, Any]:
    return {"job": job.id, "step": step.id, "attempt": attempt or step.attempt, "node": node}


def routed(job: LiveJob, step: OpenStep, *, attempt: int | None = None, node: str = "n1") -> StepRouted:
    return StepRouted(**_of(step, job, attempt, node), mailbox=1, offset=0)


def claimed(job: LiveJob, step: OpenStep, claim: str = "c1", *, attempt: int | None = None, node: str = "n1") -> StepClaimed:
    return StepClaimed(**_of(step, job, attempt, node), claim=claim, mailbox=1, lease_seconds=20.0)


def renewed(*claims: str) -> ClaimsRenewed:
    return ClaimsRenewed(node="n1", claims=claims)


def succeeded(
    job: LiveJob, step: OpenStep, text: str = "a", *, claim: str | None = "c1", attempt: int | None = None, node: str = "n1"
) -> StepSucceeded:
    return StepSucceeded(**_of(step, job, attempt, node), claim=claim, answer=Answer(text=text), usage=ONE_CALL)


def answered(job: LiveJob, step: OpenStep) -> tuple[StepClaimed, StepSucceeded]:
    """Taken and done: of a stream only a claim that stands can say so."""
    claim = f"c-{step.id}"
    return claimed(job, step, claim), succeeded(job, step, claim=claim)


def failed(
    job: LiveJob,
    step: OpenStep,
    kind: FailureKind = FailureKind.MODEL_ERROR,
    *,
    claim: str | None = "c1",
    attempt: int | None = None,
    node: str | None = "n1",
    usage: Usage = ONE_CALL,
) -> StepFailed:
    failure = Failure(kind=kind, message="it failed", node=node)
    return StepFailed(**_of(step, job, attempt, node or "n1"), claim=claim, failure=failure, usage=usage)


def released(job: LiveJob, step: OpenStep, *, claim: str | None = None, attempt: int | None = None, node: str = "n1") -> StepReleased:
    return StepReleased(**_of(step, job, attempt, node), claim=claim, reason="draining")


# What a round decided


def dispatched(draft: Draft) -> list[Step]:
    """Steps that go out beside the append."""
    return [dispatch.step for dispatch in draft.dispatches]


def sent_after(draft: Draft) -> list[Step]:
    """Steps that go out after the append's acknowledgement."""
    return [effect.step for effect in draft.after if isinstance(effect, Dispatch)]


def stops(draft: Draft) -> list[tuple[str | None, int, str | None]]:
    """(node, attempt, claim) of every stop."""
    return [(e.control.node, e.control.attempt, e.control.claim) for e in draft.after if isinstance(e, Stop)]


def published(draft: Draft) -> list[Any]:
    """The results of jobs that ended."""
    return [effect.settled.result for effect in draft.after if isinstance(effect, Publish)]


def kinds(draft: Draft) -> list[str]:
    """The types of the facts, over all jobs, in order."""
    return [fact.type for events in draft.events.values() for _, value in events for fact in facts_of(EVENT.validate_json(value))]
