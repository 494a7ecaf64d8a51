"""Book: all jobs of one home in memory, and the moves that every decision is made of. No I/O, no clock; chance is injected.

Every decision is an event that is folded at once (`LiveJob.apply`) and appended by the home. If the append turns out not to be the
next in the log, the whole book is thrown away and rebuilt from history, so folding ahead of the acknowledgement is safe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from random import Random

from services.planner import counters
from services.planner.batches.batch_owner import BatchOwner
from services.planner.budgets.rules import Prices
from services.planner.conversations.owner import Conversations
from services.planner.job.live import LiveJob
from services.planner.job.open_step import OpenStep
from services.planner.job.out import OutJob
from services.planner.kept import Kept
from services.planner.round import EndLine, EndTurn, Round, Stop
from services.planner.state import caching, dates, hedging
from services.planner.state.cancels import Cancels
from services.planner.state.funds import Funds
from services.planner.state.hedging import Hedging
from services.planner.state.incarnations import Incarnations
from services.planner.state.kept_ids import KeptIds
from services.planner.state.live_count import LiveCount
from services.planner.state.policy import Policy
from services.planner.state.recent_ids import RecentIds
from services.planner.state.runs import LastRuns
from services.planner.state.snapshots import kept_jobs
from services.planner.state.taken import TakenRecords
from services.planner.state.timers import Timers
from services.planner.state.unclaimed import Mailboxes, Unclaimed
from shared.contracts.base import ClaimId, StepId
from shared.contracts.budget import TenantLimits
from shared.contracts.cache import CacheControl
from shared.contracts.chat import Answer
from shared.contracts.control import StopStep
from shared.contracts.event import CallerJoined, Event, JobAccepted, JobSettled, WorkWasted
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import HeldJob, ReplyTo
from shared.contracts.outcome import StepFailed, StepReleased, StepSucceeded
from shared.contracts.result import Result, Status
from shared.contracts.review import ReviewWithdrawn
from shared.contracts.usage import Usage
from shared.patterns.port import Pattern, Unread
from shared.processing.tries import Tries
from shared.scheduling.urgency import ExpectedSeconds
from shared.telemetry import logs, metrics
from shared.telemetry.tracing import trace_id

log = logs.get(__name__)

OUTCOME_BYTES = 120 * 1024
"""Largest outcome that is folded, and largest answer of a job, as JSON: it is written again in events, in the result, and quoted in
snapshots, which may double it; all of them must fit a record."""
_MOST_GROWTH = 6
"""Bytes of JSON that a character may become."""


class Book:
    """State of one home. `admission`, `attempts` and `recovery` decide; this class keeps the state consistent."""

    def __init__(
        self, home: int, policy: Policy, random: Random, tenants: Mapping[str, TenantLimits] | None = None, tries: Tries | None = None
    ) -> None:
        """`tenants`: limits that administrators declare, at any time. `tries`: the home's, which outlive the book."""
        self.tries = tries or Tries()
        self.home, self.policy, self.random, self.epoch = home, policy, random, -1
        self.kept_jobs = kept_jobs(self.tries.may)
        self.jobs = self.kept_jobs.things
        self.out: dict[str, OutJob] = {}
        """The result is out; kept until the committed position has passed the job's record, or a bitmap of taken records has it."""
        self.taken = TakenRecords(self.out)
        self.live_count = LiveCount(policy)
        self.expected = ExpectedSeconds()
        """From acceptance to the end; in memory only."""
        self.timers = Timers()
        self.recent_ids = RecentIds(policy.settled_memory_count, policy.settled_memory_seconds)
        self.kept_ids = KeptIds(self.recent_ids)
        self.cancels = Cancels(policy.cancel_guesses, policy.cancelled_delays, self.ends_at)
        self.runs, self.prices = LastRuns(), Prices()
        self.claims: dict[ClaimId, tuple[str, StepId]] = {}
        self.hedging = Hedging(policy.hedge_share, policy.hedge_samples, policy.hedge_least_seconds)
        self.incarnations = Incarnations()
        self.funds = Funds(home, policy.budgets, {} if tenants is None else tenants)
        self.conversations = Conversations(policy.conversations, self.timers.set)
        """Those that are at home here; their jobs may be elsewhere."""
        self.batches = BatchOwner(policy.batches, self.timers.set, self._most_jobs)
        """The same; their lines' jobs may be elsewhere."""
        self.kept = Kept(
            self.kept_jobs, *self.cancels.kept, self.runs, self.kept_ids.kept, self.taken, *self.funds.kept, self.conversations.kept,
            self.batches.kept,
        )  # fmt: skip
        self.unclaimed = Unclaimed(self.find)
        self.mailboxes: Mailboxes | None = None
        """Where steps may be written without a router; not while the book is rebuilt."""
        self.claim_news: dict[str, None] = {}
        """Jobs with claims that are folded and that no event holds yet."""

    def enter(self, event: JobAccepted, round_: Round) -> LiveJob:
        """Put an accepted job into memory; its pattern is not yet started."""
        pattern = self.policy.patterns.of(event.request.pattern, event.pattern_version) or _missing(event)
        job = self.jobs[event.job] = LiveJob.of(event, pattern)
        self.live_count.add(job)
        dates.begin(job, round_, 0.0)
        return job

    def begins_at(self, job_id: str, at: float, offset: int) -> None:
        """Its JobAccepted, made at this wall-clock time, is acknowledged, or was found there."""
        self.kept_jobs.lies(job_id, at, offset)
        self.cancels.met(job_id)

    def knows(self, job_id: str, now: float) -> bool:
        """Whether this job is here, or was lately."""
        return job_id in self.jobs or job_id in self.out or self.recent_ids.find(job_id, now) is not None

    @property
    def live(self) -> int:
        """Live jobs of every class."""
        return self.live_count.jobs

    def find(self, job_id: str, step_id: StepId) -> tuple[LiveJob, OpenStep] | None:
        """The open step of a live job, or None."""
        job = self.jobs.get(job_id)
        step = job.steps.get(step_id) if job is not None else None
        return None if job is None or step is None else (job, step)

    def _most_jobs(self, tenant: str) -> int | None:
        own = self.funds.tenants.get(tenant)
        return None if own is None else own.concurrent_jobs

    def control_of(self, job: LiveJob) -> CacheControl | None:
        """What holds of the job's steps at the cache."""
        request = job.accepted.request
        return self.policy.caching.control_of(request, self.funds.tenants.get(request.tenant))

    def write(self, round_: Round, job: LiveJob, event: Event, *lies: Callable[[int], None], part: bytes | None = None) -> None:
        """Append."""
        round_.whose[job.id] = job.accepted.request.tenant
        if values := round_.add(job.id, event, *lies, part=part):
            self.live_count.keep(job, *values)

    def emit(self, round_: Round, job: LiveJob, event: Event) -> None:
        """Append and fold."""
        self.write(round_, job, event)
        job.apply(event)

    def join(self, round_: Round, job: LiveJob, reply: ReplyTo | None) -> None:
        """Another record asked for this live job. Only who is owed a final is a fact of the job: all others cost no memory."""
        owed = reply is not None and not reply.reads_events and reply not in job.followers and len(job.followers) < self.policy.followers
        joined = CallerJoined(epoch=self.epoch, job=job.id, at=round_.wall, reply=reply if owed else None)
        if owed:
            self.emit(round_, job, joined)
        else:
            self.live_count.keep(job, *round_.add(job.id, joined)[:-1])

    def arm(self, job: LiveJob) -> None:
        """Set the job's timer to its earliest due time."""
        due = min(job.deadline_due, job.wall_due)
        if "wall_seconds" not in job.neared:
            due = min(due, job.soft_wall_due)
        for step in job.steps.values():
            due = min(due, step.due_at)
        if job.awaits_turn:
            due = min(due, job.turn_due)
        self.timers.set(job.id, due if job.ending is None else job.ends_due)

    def lease(self, step: OpenStep, now: float, seconds: float) -> None:
        """The claim of this step stands for so long, and is looked at when its node may have been silent for too long."""
        step.leased_until = now + seconds
        step.due_at = min(now + min(seconds, self.policy.node_lost_seconds), step.hedge_at)

    def drop_claim(self, step: OpenStep) -> None:
        """The claim of this step stands no longer."""
        if step.claim is not None:
            self.claims.pop(step.claim.id, None)

    def stop(self, round_: Round, job: LiveJob, step: OpenStep) -> None:
        """Tell the node that has the current attempt, if one is known, to stop.

        A claim that is not yet in history goes there first: a stop may die with this planner, and its successor must know where to send it.
        """
        hedging.stop_former(self, round_, job, step)
        where = (step.claim.node, step.claim.mailbox) if step.claim else step.routed
        if step.claim is not None:
            self._record_claim(round_, job, step.claim.id)
        if where is not None:
            round_.after.append(Stop(where[1], StopStep(node=where[0], job=job.id, step=step.id, attempt=step.attempt)))

    def stop_abandoned(self, round_: Round, job: LiveJob) -> None:
        """Stop what nobody waits for any more; of what is not known to run nothing will be told."""
        for step in list(job.abandoned.values()):
            if step.review is not None:
                self.emit(round_, job, ReviewWithdrawn(epoch=self.epoch, job=job.id, at=round_.wall, step=step.id))
                continue
            self.drop_claim(step)
            if step.lookup is not None:
                caching.abandon(round_, step)
            if not step.stopped:
                self.stop(round_, job, step)
                step.stopped = True
            if step.claim is None:
                self.funds.close(round_, job, step, None)
                del job.abandoned[step.id]

    def waste(self, round_: Round, job: LiveJob, outcome: StepSucceeded | StepFailed | StepReleased) -> None:
        """Count what an attempt has used whose answer is not wanted; with an abandoned one its reservation ends."""
        usage = Usage() if isinstance(outcome, StepReleased) else outcome.usage
        step = job.abandoned.get(outcome.step)
        if step is not None and step.stands(outcome.attempt, outcome.claim):
            self.funds.close(round_, job, step, usage)
        elif usage.calls:
            self.funds.waste(round_, job, usage, outcome.claim)
        else:
            return
        wasted = WorkWasted(
            epoch=self.epoch, job=job.id, at=round_.wall, step=outcome.step, attempt=outcome.attempt, claim=outcome.claim, usage=usage
        )  # fmt: skip
        self.emit(round_, job, wasted)

    def _record_claim(self, round_: Round, job: LiveJob, claim: ClaimId) -> None:
        for event in job.claim_news:
            if event.claim == claim:
                self.write(round_, job, event)
                job.claim_news.remove(event)
                return

    def settle(self, round_: Round, job: LiveJob, status: Status, failure: Failure | None, answer: Answer | None) -> None:
        """The job's one end. An answer that no record holds (only a pattern can make one: a step's is bounded before) is a failure."""
        accepted = job.accepted
        if answer is not None and len(answer.text) > OUTCOME_BYTES // _MOST_GROWTH and len(answer.to_bytes()) > OUTCOME_BYTES:
            message = f"the answer that the pattern made exceeds {OUTCOME_BYTES} bytes"
            status, failure, answer = Status.FAILED, Failure(kind=FailureKind.TOO_LARGE, message=message), None
        for step in (*job.steps.values(), *job.abandoned.values()):
            self.drop_claim(step)
            self.funds.close(round_, job, step, None)
            caching.abandon(round_, step)
            if not step.stopped:
                self.stop(round_, job, step)
        self.funds.ended(job)
        result = Result.of_valid(
            job=job.id,
            tenant=accepted.request.tenant,
            status=status,
            answer=answer,
            failure=failure,
            usage=job.usage,
            pattern=accepted.request.pattern,
            priority_class=accepted.priority_class,
            steps=job.steps_asked,
            attempts=job.attempts,
            accepted_at=accepted.at,
            finished_at=round_.wall,
            callback=accepted.request.callback,
        )
        event = JobSettled.of_valid(
            epoch=self.epoch,
            job=job.id,
            at=round_.wall,
            result=result,
            reply=accepted.reply,
            trace=accepted.trace,
            client_id=accepted.client_id,
            digest=accepted.digest,
            key=accepted.key,
        )
        round_.settle(event, partial(self.ends_at, job.id, round_.now), tuple(job.followers))
        self.end(job, event)
        self.owe_end(round_, job)
        level = log.debug if failure is None else log.info
        level("job_settled", job=job.id, trace=trace_id(accepted.trace), status=status, kind=failure and failure.kind)
        seconds = max(0.0, round_.wall - accepted.at)
        counters.settled(status, accepted.priority_class).inc()
        for flagged in (answer.flagged if answer is not None else ()) + (failure.flagged if failure is not None else ()):
            metrics.POLICY_ACTIONS.labels(flagged.direction, flagged.action).inc(flagged.count)
        counters.seconds(accepted.priority_class).observe(seconds)
        if status in (Status.SUCCEEDED, Status.EXPIRED):
            self.expected.learn(accepted.priority_class, max(0.0, seconds - job.idle_seconds))

    def end(self, job: LiveJob, event: JobSettled) -> None:
        """Fold a settle event, live or in replay."""
        job.apply(event)
        self.live_count.remove(job)
        self.timers.clear(job.id)

    def owe_end(self, round_: Round, job: LiveJob) -> None:
        """Of a job that has ended, live or in replay: whom else its end is told."""
        request = job.accepted.request
        if request.conversation is not None:
            self.end_turn(round_, job)
        if isinstance(request, HeldJob) and request.line is not None:
            assert job.settled is not None, "it has ended"
            job.line_owed = True
            round_.after.append(EndLine(job.settled, request))

    def end_turn(self, round_: Round, job: LiveJob) -> None:
        """Of a conversation's job that has ended, live or in replay: its owner is told."""
        assert job.settled is not None, "it has ended"
        context = job.run.context
        job.turn_owed = True
        said = context.seen or job.accepted.request
        round_.after.append(EndTurn(job.settled, said, job.turn, context.found, context.dropped))

    def turn_told(self, job_id: str) -> None:
        """That is acknowledged."""
        job = self.jobs.get(job_id)
        if job is not None:
            job.turn_owed = False
            self._leave(job)

    def line_told(self, job_id: str) -> None:
        """That its batch is told of its end is acknowledged."""
        job = self.jobs.get(job_id)
        if job is not None:
            job.line_owed = False
            self._leave(job)

    def ends_at(self, job_id: str, now: float, offset: int) -> None:
        """Its settle event is acknowledged at `offset`, or was found there; it ended at `now`: monotonic, in replay of the log's time."""
        job = self.jobs.get(job_id)
        if job is not None:
            job.settled_offset = offset
            if job.run.context.said:
                self.policy.beliefs.count(self.home, self.epoch, offset, job.run.context.said)
        if job is None or job.accepted.client_id:
            self.recent_ids.add(job_id, offset, now)
            self.kept_ids.ended(offset)

    def published(self, settled: JobSettled) -> None:
        """The result is acknowledged."""
        job = self.jobs.get(settled.job)
        if job is not None and job.settled is settled:
            job.published = True
            self._leave(job)
        self.cancels.published(settled.job)

    def owe_stops(self, jobs: Iterable[str]) -> None:
        """Each time that a job is named here a stop of one of its attempts is on its way."""
        for job in map(self.jobs.get, jobs):
            if job is not None:
                job.stops_owed += 1

    def stopped(self, job_id: str, release: Callable[[], None]) -> None:
        """One of them is acknowledged."""
        job = self.jobs.get(job_id)
        if job is not None:
            job.stops_owed -= 1
            self._leave(job)
        release()

    def _leave(self, job: LiveJob) -> None:
        """Little is kept of a job that is out: its result, its stops, the ends of its turn and of its line are acknowledged."""
        if job.published and not job.stops_owed and not job.turn_owed and not job.line_owed:
            offset = self.kept_jobs.offset(job.id)
            assert offset is not None, "it is published after its events are acknowledged"
            self.kept_jobs.drop(job.id)
            self.out[job.id] = OutJob.of(job, offset)


def internal() -> Failure:
    """Of a job on which work fails for a reason that is in nobody's rules."""
    return Failure(kind=FailureKind.INTERNAL, message="the planner failed on this job; its log says why")


def _missing(event: JobAccepted) -> Pattern:
    async def unavailable(ctx: object, job: object, ask: object) -> Answer:
        raise LookupError(event.request.pattern)

    return Pattern(event.request.pattern, event.pattern_version, unavailable, Unread, hands_on=True)
