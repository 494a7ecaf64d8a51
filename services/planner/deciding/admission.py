"""Admission: what happens when a job record is read. The same record again changes nothing; the same id with another body is refused."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from services.planner import counters
from services.planner.deciding import driving, turns
from services.planner.draft import CallerAnswer
from services.planner.job.limits import capped, filled
from services.planner.job.live import LiveJob
from services.planner.round import Round
from services.planner.state.book import Book
from services.planner.state.cancels import cancelled
from shared.agents.cards import cards_of, tier_of
from shared.agents.resolving import demands_of, resolve, with_choice, with_models
from shared.agents.suiting import KnownModels
from shared.contracts.agents import NOBODY, Team
from shared.contracts.base import PriorityClass
from shared.contracts.bounds import check_job
from shared.contracts.critique import TenantPolicy
from shared.contracts.delayed import DelayedJob
from shared.contracts.event import CancelRecorded, JobAccepted, JobSettled
from shared.contracts.failure import Failure, FailureKind, clocks_differ
from shared.contracts.job import Job, ReplyTo
from shared.contracts.result import Result, Status
from shared.errors import InvalidInput
from shared.model_names import AUTO
from shared.patterns.conversation import AGENT
from shared.patterns.port import UnknownPattern, agents_named, demands_named, prompts_named, tools_named
from shared.telemetry import logs
from shared.telemetry.tracing import trace_id

log = logs.get(__name__)


@dataclass(frozen=True, slots=True)
class JobInput:
    """A record that is a job. `source`: topic/partition/offset; `digest`: of the canonical body; `client_id`: the id may come again."""

    id: str
    client_id: bool
    job: Job
    priority_class: PriorityClass
    source: str
    source_offset: int
    reply: ReplyTo | None
    trace: str | None
    digest: str
    written_ms: int = 0
    """When the record arrived in the log; 0: it was none."""
    large: bool = False
    """It is above the inline bound: history takes it only by reference."""
    key: str | None = None
    written: bytes | None = None
    """The job as JSON, if it came as tutti writes it."""


def accept(round_: Round, given: JobInput, before: JobSettled | None = None, *, refused: Failure | None = None) -> InvalidInput | None:
    """Take the job in, and begin it; or why it is no job. `before`: how a job with this id ended within the window. `refused`: why it ends
    at once.
    """
    book = round_.book
    known = book.jobs.get(given.id)
    if known is not None:
        return _again(round_, given, known)
    if given.id in book.out and book.out[given.id].source == given.source:
        return None
    ended = book.cancels.ended(given.id)
    if ended is not None:
        _drop(round_, given, ended)
        return None
    if before is not None:
        return _answer_again(round_, given, before)
    team, end = _judged(round_, given) if refused is None else (NOBODY, (Status.FAILED, refused))
    job = _admit(round_, given, team)
    if end is not None:
        round_.settle(job, *end, None)
        return None
    if job.awaits_turn:
        turns.ask(round_, job)
        return None
    job.run.start()
    driving.drive(round_, job)
    return None


def refused_result(job: str, tenant: str, failure: Failure, priority_class: PriorityClass, wall: float) -> Result:
    """What a caller is told whose submission never became a job."""
    return Result(
        job=job,
        tenant=tenant,
        status=Status.FAILED,
        failure=failure,
        priority_class=priority_class,
        accepted_at=wall,
        finished_at=wall,
    )


def _admit(round_: Round, given: JobInput, team: Team) -> LiveJob:
    book = round_.book
    pattern = book.policy.patterns.current.get(given.job.pattern)
    deadline_at, seconds = given.job.deadline_at, None
    if deadline_at is None:
        seconds = given.job.deadline_seconds or book.policy.deadline_seconds[given.priority_class]
        deadline_at = round_.wall + seconds
    own = book.funds.tenants.get(given.job.tenant)
    limits = filled(filled(given.job.limits, pattern.limits), book.policy.limits) if pattern else book.policy.limits
    event = JobAccepted.of_valid(
        **round_.about(given.id),
        request=given.job,
        client_id=given.client_id,
        priority_class=given.priority_class,
        home=book.home,
        source=given.source,
        source_offset=given.source_offset,
        pattern_version=pattern.version if pattern else 1,
        limits=capped(limits, own.job) if own else limits,
        deadline_at=deadline_at,
        deadline_seconds=seconds,
        reply=given.reply,
        trace=given.trace,
        digest=given.digest,
        key=given.key,
        team=team,
        policies=_policies(book, given),
    )
    job = round_.enter(event)
    round_.write(job, event, partial(book.begins_at, job.id, event.at), part=given.written)
    log.debug("job_accepted", job=job.id, trace=trace_id(given.trace), source=given.source)
    counters.accepted(given.priority_class, pattern.name if pattern else "unknown").inc()
    return job


def _judged(round_: Round, given: JobInput) -> tuple[Team, tuple[Status, Failure] | None]:
    """What the job uses of the registry as of now; or why, taken in, it ends at once."""
    book = round_.book
    if book.cancels.guessed(given.id):
        return NOBODY, (Status.CANCELLED, Failure(kind=FailureKind.CANCELLED, message="cancelled before it was accepted"))
    policy = book.policy
    try:
        _, ask = policy.patterns.read(given.job)
        check_job(given.job, policy.capabilities, round_.wall)
        team, talks = NOBODY, given.job.conversation is not None
        judges = [policy.judge.agent for policy in _policies(book, given) if policy.judge is not None]
        if talks or judges or ask.__dict__:  # nearly no job: pattern single's input has none
            agents = (*agents_named(ask), *((AGENT,) if talks else ()), *judges)
            team = resolve(policy.declared, agents, prompts_named(ask), policy.capabilities, tools_named(ask))
        demands = demands_of(given.job, demands_named(ask, given.job.model), team)
        team = with_models(policy.declared, team, demands, given.job.needed_capability)
        own = book.funds.tenants.get(given.job.tenant)
        may = cards_of(policy.declared) and (own is None or own.choice is not False)
        if may and any(name == AUTO or tier_of(name) for demand in demands for name in demand):
            known = KnownModels(partial(policy.learned, given.job.tenant), book.mailboxes.models() if book.mailboxes else {})
            team = with_choice(policy.declared, team, demands, given.job.needed_capability, known)
    except InvalidInput as error:
        kind = FailureKind.UNKNOWN_PATTERN if isinstance(error, UnknownPattern) else FailureKind.INVALID_JOB
        return NOBODY, (Status.FAILED, Failure(kind=kind, message=error.message))
    late = _late(round_, given)
    return (team, None) if late is None else (NOBODY, late)


def _policies(book: Book, given: JobInput) -> tuple[TenantPolicy, ...]:
    """Its tenant's, as of now."""
    own = book.funds.tenants.get(given.job.tenant)
    return own.policies if own else ()


def _late(round_: Round, given: JobInput) -> tuple[Status, Failure] | None:
    """Its deadline leaves it no time."""
    deadline_at, not_before = given.job.deadline_at, given.job.not_before
    if deadline_at is not None and deadline_at <= round_.wall:
        message = "the deadline had passed on arrival" + clocks_differ(deadline_at, given.written_ms)
        return Status.EXPIRED, Failure(kind=FailureKind.DEADLINE, message=message)
    if deadline_at is not None and not_before is not None and deadline_at <= not_before:
        return Status.EXPIRED, Failure(kind=FailureKind.DEADLINE, message="the deadline passes before the job may begin")
    return None


def _again(round_: Round, given: JobInput, known: LiveJob) -> InvalidInput | None:
    if known.accepted.source == given.source:
        return None
    if known.settled is not None:
        return _answer_again(round_, given, known.settled)
    if known.accepted.digest != given.digest:
        return _conflict(round_, given)
    round_.join(known, given.reply)
    return None


def _answer_again(round_: Round, given: JobInput, settled: JobSettled) -> InvalidInput | None:
    if settled.digest != given.digest:
        return _conflict(round_, given)
    if given.reply is not None:
        round_.after.append(CallerAnswer(given.reply, settled.result, given.trace))
    return None


def _drop(round_: Round, given: JobInput, ended: CancelRecorded) -> None:
    """A delayed job comes back that was cancelled meanwhile: it has its result; whoever waits is told."""
    if given.reply is not None:
        waits = DelayedJob(
            due_at=given.job.not_before or 0.0,
            since=ended.at,
            tenant=given.job.tenant,
            priority_class=given.priority_class,
            pattern=given.job.pattern,
        )
        round_.after.append(CallerAnswer(given.reply, cancelled(given.id, waits, ended), given.trace))


def _conflict(round_: Round, given: JobInput) -> InvalidInput | None:
    """Another job under an id that is taken: it never runs, and whoever sent it must hear of it. Where an ingress waits it tells him."""
    if given.reply is not None:
        failure = Failure(kind=FailureKind.CONFLICT, message="this id is already used with another body")
        result = refused_result(given.id, given.job.tenant, failure, given.priority_class, round_.wall)
        round_.after.append(CallerAnswer(given.reply, result, given.trace))
    return (
        None
        if given.reply is not None and given.reply.multiplex
        else InvalidInput("This id is already used with another body.", code="conflict")
    )
