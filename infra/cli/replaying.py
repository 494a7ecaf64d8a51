"""What a job's recorded history says, run again: the planner's own fold of it, without a cluster. Reads Kafka, writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.cli.cluster import Cluster
from services.planner.job.live import LiveJob
from shared.contracts import event as events
from shared.contracts import headers, ids
from shared.contracts.chat import Answer
from shared.contracts.event import EVENT, facts_of
from shared.contracts.failure import FailureKind
from shared.contracts.job import HeldJob, Input, Job
from shared.contracts.result import Status
from shared.contracts.review import ReviewDecided, ReviewOpened
from shared.epochs import EpochFilter
from shared.errors import NonDeterministicPattern, NotFound, TooLarge
from shared.kafka.port import TopicPartition
from shared.patterns import Patterns
from shared.patterns.fork import Decided, StepEnd
from shared.processing.tail import stretches

MOST_BYTES = 64 * 1024 * 1024
"""Of one job's events."""
_ANOTHER_TIME = ("id", "deadline_at", "not_before", "stream", "metadata", "callback")
"""Fields of a job that are not its when it is asked again."""


@dataclass(frozen=True, slots=True)
class EndedStep:
    """A step's end in history."""

    end: StepEnd
    agent: str
    node: str


@dataclass(slots=True)
class Replayed:
    """A history run again. `differences`: what it says otherwise than the pattern does; none: it was so."""

    accepted: events.JobAccepted
    settled: events.JobSettled | None = None
    ends: list[EndedStep] = field(default_factory=list)
    asked: int = 0
    differences: list[str] = field(default_factory=list)


async def history_of(cluster: Cluster, tenant: str, job: str) -> list[Any]:
    """Facts of the last life of this id, from its acceptance on. Raises NotFound, TooLarge."""
    topic, name = cluster.topics.job_events, ids.qualified(tenant, job)
    partition = TopicPartition(topic, ids.home_of(name, cluster.topics.settings.home_partitions))
    facts, size, epochs = list[Any](), 0, EpochFilter()
    snapshots: dict[str, list[str]] = {}
    async with cluster.reader([partition]) as consumer:
        end = (await cluster.connected(consumer.end_offsets([partition])))[partition]
        async for records in stretches(consumer, {partition: (0, end)}):
            for record in records:
                value = record.value or b""
                if headers.find(record.headers, headers.TYPE) == b"planner_started":
                    epochs.started(record.offset)
                    continue
                if not epochs.admits_value(value, record.offset) or name.encode() not in value:
                    continue
                event: Any = EVENT.validate_json(value)
                if getattr(event, "job", None) != name:
                    continue
                size = len(value) + (0 if isinstance(event, events.JobAccepted) else size)
                if size > MOST_BYTES:
                    raise TooLarge(f"the history of {job} has more than {MOST_BYTES} bytes")
                if isinstance(event, events.JobSnapshot):
                    parts = snapshots.setdefault(event.snapshot, [])
                    parts += event.facts
                    if event.part + 1 == event.parts and not facts:  # its beginning is gone
                        facts = [fact for text in parts for fact in facts_of(EVENT.validate_json(text))]
                    continue
                facts = list(facts_of(event)) if isinstance(event, events.JobAccepted) else [*facts, *facts_of(event)]
    if not facts or not isinstance(facts[0], events.JobAccepted) or facts[0].request.tenant != tenant:
        raise NotFound(f"Kafka has no whole history of a job {job} of tenant {tenant}")
    return facts


def replayed(facts: Sequence[Any], patterns: Patterns) -> Replayed:
    """Run the pattern over them. Raises NotFound where this installation lacks it."""
    accepted = facts[0]
    pattern = patterns.of(accepted.request.pattern, accepted.pattern_version)
    if pattern is None:
        raise NotFound(f"there is no pattern {accepted.request.pattern} of version {accepted.pattern_version} here")
    job, found = LiveJob.of(accepted, pattern), Replayed(accepted)
    if not job.awaits_turn:
        job.run.start()
    places: dict[str, tuple[str, str]] = {}
    for fact in facts[1:]:
        if isinstance(fact, events.JobSettled):
            found.settled = fact
            found.differences += _otherwise(job, fact)
            break
        if not job.folds(fact):
            continue
        if isinstance(fact, events.StepAsked | events.TimerSet | ReviewOpened):
            places[fact.step] = fact.path, getattr(fact, "agent", "")
            found.asked += 1
        step = job.steps.get(fact.step) if isinstance(fact, _ENDS) else None
        try:
            job.apply(fact)
        except NonDeterministicPattern:
            found.differences.append(f"history asks for {places.get(fact.step, ('a step',))[0]}, the pattern does not")
            break
        if step is not None and fact.step not in job.steps and fact.step in places:
            path, agent = places[fact.step]
            decision = step.review.decision if step.review is not None else None
            found.ends.append(EndedStep(_end(path, fact, decision), agent, getattr(fact, "node", None) or ""))
    job.run.close()
    return found


_ENDS = (events.StepAnswered, events.AttemptFailed, events.TimerFired, ReviewDecided)


def _end(path: str, fact: Any, decision: Any) -> StepEnd:
    told = None if decision is None else Decided(verdict=decision.verdict, text=decision.text, by=decision.by, at=decision.at)
    answer = fact.answer if isinstance(fact, events.StepAnswered) else None
    failure = fact.failure if isinstance(fact, events.AttemptFailed) else None
    return StepEnd.model_construct(path=path, answer=answer, failure=failure, decision=told)


def _otherwise(job: LiveJob, settled: events.JobSettled) -> list[str]:
    """What the end in history has else than the pattern's own. Ends by a limit, a deadline, a cancel are not the pattern's."""
    result, run = settled.result, job.run
    limited = run.failure is not None and run.failure.kind is FailureKind.LIMIT
    if run.finished and not limited:
        if run.answer is not None and result.status is Status.SUCCEEDED:
            return [] if run.answer == result.answer else ["the pattern's answer is another than the one in history"]
        if run.failure is not None and result.failure is not None and run.failure.kind is result.failure.kind:
            return []
        return [f"history ends with {result.status.value}, the pattern does not"]
    if result.status is Status.SUCCEEDED and result.answer is not None:
        best = run.context.best_answer
        same = best is not None and best.text == result.answer.text
        return [] if same else ["history has an answer that the pattern has not"]
    return []


async def whole_answer(cluster: Cluster, tenant: str, answer: Answer) -> Answer:
    """With what of it lies in a blob. Raises BlobGone."""
    if answer.blob is None:
        return answer
    kept = Answer.model_validate_json(await cluster.blobs().fetch_in_time(tenant, answer.blob))
    return answer.model_copy(update={name: getattr(kept, name) for name in kept.model_fields_set} | {"blob": None})


async def asked_again(cluster: Cluster, request: Job, **changes: Any) -> Job:
    """The same as a new job: its input whole, without what was of that time. Raises BlobGone, ValueError."""
    names = request.model_fields_set & Job.model_fields.keys() - set(_ANOTHER_TIME)
    kept = {name: getattr(request, name) for name in names} | {"tenant": request.tenant}
    if isinstance(request, HeldJob) and request.input_ref is not None:
        given = Input.model_validate_json(await cluster.blobs().fetch_in_time(request.tenant, request.input_ref.blob))
        kept |= {name: value for name, value in given if value}
    if request.cache is not None:  # a model is to be asked
        kept["cache"] = request.cache.changed(no_cache=True)
    return Job(**{**kept, **changes})
