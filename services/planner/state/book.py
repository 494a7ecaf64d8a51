"""Book: all jobs of one home in memory, and the moves that every decision is made of. No I/O, no clock; chance is injected.

Every decision is an event that is folded at once (`LiveJob.apply`) and appended by the home. If the append turns out not to be the
next in the log, the whole book is thrown away and rebuilt from history, so folding ahead of the acknowledgement is safe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from random import Random

from services.planner import counters
from services.planner.budgets.prices import Prices
from services.planner.job.ended import EndedJob
from services.planner.job.limits import endless, estimate_tokens, neared, refusal
from services.planner.job.live import LiveJob, OpenStep
from services.planner.job.run import Run, Wanted
from services.planner.kept import Kept
from services.planner.round import Dispatch, Round, Stop
from services.planner.state import dates, ending, owing, streams
from services.planner.state.cancels import Cancels
from services.planner.state.funds import Funding, Funds, need_of
from services.planner.state.kept_ids import KeptIds
from services.planner.state.live_count import LiveCount
from services.planner.state.policy import Policy
from services.planner.state.runs import LastRuns
from services.planner.state.settled import SettledIds
from services.planner.state.snapshots import kept_jobs
from services.planner.state.step_of import step_of
from services.planner.state.timers import Timers
from shared.contracts.base import ClaimId, StepId
from shared.contracts.budget import Amounts, TenantLimits
from shared.contracts.chat import Answer
from shared.contracts.control import StopStep
from shared.contracts.event import AttemptFailed, Event, JobAccepted, JobSettled, LimitNeared, StepAsked, StepRetried, TimerSet, WorkWasted
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.outcome import StepFailed, StepReleased, StepSucceeded
from shared.contracts.result import Result, Status
from shared.contracts.usage import Usage
from shared.patterns import BY_VERSION
from shared.patterns.port import Pattern
from shared.processing.tries import Tries
from shared.scheduling.urgency import ExpectedSeconds, raised
from shared.telemetry import logs, metrics
from shared.telemetry.tracing import trace_id

log = logs.get(__name__)


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
        self.ended: dict[str, EndedJob] = {}
        """The result is out; kept until the committed position has passed the job's record."""
        self.live_count = LiveCount(policy)
        self.expected = ExpectedSeconds()
        """From acceptance to the end; in memory only."""
        self.timers = Timers()
        self.settled_ids = SettledIds(policy.settled_memory_count, policy.settled_memory_seconds)
        self.kept_ids = KeptIds(self.settled_ids)
        self.cancels = Cancels(policy.cancel_guesses, policy.cancelled_delays, self.settled_at)
        self.runs, self.prices = LastRuns(), Prices()
        self.claims: dict[ClaimId, tuple[str, StepId]] = {}
        self.funds = Funds(home, policy.budgets, {} if tenants is None else tenants)
        self.kept = Kept(self.kept_jobs, *self.cancels.kept, self.runs.kept, self.kept_ids.kept, *self.funds.kept)
        self.claim_news: dict[str, None] = {}
        """Jobs with claims that are folded and that no event holds yet."""

    def enter(self, event: JobAccepted, round_: Round) -> LiveJob:
        """Put an accepted job into memory; its pattern is not yet started."""
        pattern = BY_VERSION.get((event.request.pattern, event.pattern_version)) or _missing(event)
        run = Run(event.job, pattern, event.request)
        job = self.jobs[event.job] = LiveJob(event.job, event, run)
        self.live_count.add(job)
        dates.begin(job, round_, 0.0)
        return job

    def begins_at(self, job_id: str, at: float, offset: int) -> None:
        """Its JobAccepted, made at this wall-clock time, is acknowledged, or was found there."""
        self.kept_jobs.lies(job_id, at, offset)
        self.cancels.met(job_id)

    def knows(self, job_id: str, now: float) -> bool:
        """Whether this job is here, or was lately."""
        return job_id in self.jobs or job_id in self.ended or self.settled_ids.find(job_id, now) is not None

    @property
    def live(self) -> int:
        """Live jobs of every class."""
        return self.live_count.jobs

    def find(self, job_id: str, step_id: StepId) -> tuple[LiveJob, OpenStep] | None:
        """The open step of a live job, or None."""
        job = self.jobs.get(job_id)
        step = job.steps.get(step_id) if job is not None else None
        return None if job is None or step is None else (job, step)

    def write(self, round_: Round, job: LiveJob, event: Event, *lies: Callable[[int], None], part: bytes | None = None) -> None:
        """Append."""
        self.live_count.keep(job, *round_.add(job.id, event, *lies, part=part))

    def emit(self, round_: Round, job: LiveJob, event: Event) -> None:
        """Append and fold."""
        self.write(round_, job, event)
        job.apply(event)

    def drive(self, round_: Round, job: LiveJob) -> None:
        """Append what the pattern wants and history lacks; settle when the pattern has ended, or work on the job fails."""
        try:
            self._drive(round_, job)
            self.live_count.keep(job, *round_.close(job.id))
        except Exception as error:  # of this job, whoever's fault it is: the others of the home go on
            log.failure("job_failed", error, job=job.id)
            self.give_up(round_, job)

    def give_up(self, round_: Round, job: LiveJob) -> None:
        """End a job on which work fails. One that cannot even be ended stays as it is, and the log says so."""
        if job.settled is not None:
            return
        try:
            self.settle(round_, job, Status.FAILED, job.broken or internal(), None)
        except Exception as error:
            log.failure("job_cannot_be_ended", error, job=job.id)

    def _drive(self, round_: Round, job: LiveJob) -> None:
        while job.settled is None and (wanted := job.run.wanted()):
            if (failure := endless(job)) is not None:
                ending.begin(self, round_, job, failure)
                return
            for want in wanted:
                if job.run.still_wants(want.step):
                    self._ask(round_, job, want)
        self.stop_abandoned(round_, job)
        if job.settled is not None:
            return
        if job.run.failure is not None:
            ending.begin(self, round_, job, job.run.failure)
        elif job.run.finished:
            self.settle(round_, job, Status.SUCCEEDED, None, job.run.answer)
        else:
            self._warn(round_, job)
            self.arm(job)

    def _warn(self, round_: Round, job: LiveJob) -> None:
        """Alert of limits that are near, once each."""
        for near in neared(job, round_.now):
            log.info("limit_neared", job=job.id, trace=trace_id(job.accepted.trace), limit=near.limit)
            metrics.LIMITS_NEARED.labels("job", near.limit).inc()
            self.emit(round_, job, LimitNeared(epoch=self.epoch, job=job.id, at=round_.wall, **near._asdict()))

    def _ask(self, round_: Round, job: LiveJob, want: Wanted) -> None:
        if want.request is None:
            due_at, after = round_.wall + want.seconds, max(0.0, round_.now - job.accepted_due) + want.seconds
            set_ = TimerSet(
                epoch=self.epoch, job=job.id, at=round_.wall, step=want.step, path=want.path, due_at=due_at, due_after=after
            )  # fmt: skip
            self.emit(round_, job, set_)
            job.steps[want.step].due_at = round_.now + want.seconds
            return
        tokens = estimate_tokens(want.request)
        cost = self.prices.estimate_micros(want.request.model, tokens)
        refused = refusal(job, want, tokens, cost)
        cost = cost or self.funds.least_micros(job)
        funding = Funding() if refused else self.funds.reserve(round_, job, Amounts(calls=1, tokens=tokens, micros=cost))
        refused = refused or funding.failure
        event = StepAsked(
            epoch=self.epoch,
            job=job.id,
            at=round_.wall,
            step=want.step,
            path=want.path,
            agent=want.request.agent,
            model=want.request.model,
            reserved_tokens=0 if refused else tokens,
            reserved_micros=None if refused else cost or None,
            charged_day=funding.day,
            unfunded=funding.lacks is not None or None,
        )
        self.emit(round_, job, event)
        step = job.steps[want.step]
        if refused is not None:
            self.fail_attempt(round_, job, step, refused, None)
            return
        counters.asked(want.request.capability).inc()
        if funding.lacks is not None:
            self.funds.wait(round_, job, step)
            return
        round_.dispatches.append(self.dispatch(round_, job, step))

    def dispatch(self, round_: Round, job: LiveJob, step: OpenStep) -> Dispatch:
        """The attempt as it travels. How long it may wait for a node, the routers know."""
        assert step.request is not None, "a sleep is not dispatched"
        step.due_at = round_.now + self.policy.resend_seconds
        left = max(0.0, job.deadline_due - round_.now)
        served_as = raised(job.accepted.priority_class, left, self.expected.of)
        attempt = step_of(job, step, self.home, self.policy.lease_seconds, served_as=served_as, seconds_left=left)
        return Dispatch(attempt, job.accepted.trace)

    def arm(self, job: LiveJob) -> None:
        """Set the job's timer to its earliest due time."""
        due = min(job.deadline_due, job.wall_due)
        if "wall_seconds" not in job.neared:
            due = min(due, job.soft_wall_due)
        for step in job.steps.values():
            due = min(due, step.due_at)
        self.timers.set(job.id, due if job.ending is None else job.ends_due)

    def fail_attempt(
        self,
        round_: Round,
        job: LiveJob,
        step: OpenStep,
        failure: Failure,
        wait: float | None,
        *,
        counted: bool = True,
        usage: Usage | None = None,
    ) -> None:
        """Record that the current attempt ended; the next one begins after `wait` seconds, never when None."""
        self.drop_claim(step)
        self.funds.settle(round_, job, step, usage, lost=True)
        log.info("attempt_failed", job=job.id, trace=trace_id(job.accepted.trace), step=step.id, kind=failure.kind.value, retry_in=wait)
        event = AttemptFailed(
            epoch=self.epoch,
            job=job.id,
            at=round_.wall,
            step=step.id,
            attempt=step.attempt,
            failure=failure,
            retry_after_seconds=wait,
            counted=counted,
            usage=usage or Usage(),
        )
        self.emit(round_, job, event)
        if wait is None:
            return
        step.due_at = round_.now + wait
        if not streams.ask_position(round_, job, step, self.home, self.policy) and wait <= 0:
            self.retry(round_, job, step)

    def retry(self, round_: Round, job: LiveJob, step: OpenStep) -> None:
        """Begin the next attempt. It goes out only after its event is acknowledged."""
        prefix, tokens = (step.prefix, step.prefix_tokens) if step.shown is None else (step.shown, step.shown_tokens)
        refused = streams.refusal(step, prefix)
        if refused is not None:
            self.fail_attempt(round_, job, step, refused, None, counted=False)
            return
        funding = self.funds.reserve(round_, job, need_of(step))
        waits = funding.lacks is not None
        event = StepRetried(
            epoch=self.epoch,
            job=job.id,
            at=round_.wall,
            step=step.id,
            attempt=step.attempt + 1,
            avoid=step.avoid,
            prefix=prefix or None,
            prefix_tokens=tokens if prefix else None,
            charged_day=funding.day,
            unfunded=waits or None,
        )
        self.emit(round_, job, event)
        if funding.failure is not None:
            self.fail_attempt(round_, job, step, funding.failure, None)
        elif waits:
            self.funds.wait(round_, job, step)
        else:
            round_.after.append(self.dispatch(round_, job, step))

    def drop_claim(self, step: OpenStep) -> None:
        """The claim of this step stands no longer."""
        if step.claim is not None:
            self.claims.pop(step.claim.id, None)

    def stop(self, round_: Round, job: LiveJob, step: OpenStep) -> None:
        """Tell the node that has the current attempt, if one is known, to stop.

        A claim that is not yet in history goes there first: a stop may die with this planner, and its successor must know where to send it.
        """
        where = (step.claim.node, step.claim.mailbox) if step.claim else step.routed
        if step.claim is not None:
            self._record_claim(round_, job, step.claim.id)
        if where is not None:
            round_.after.append(Stop(where[1], StopStep(node=where[0], job=job.id, step=step.id, attempt=step.attempt)))

    def stop_abandoned(self, round_: Round, job: LiveJob) -> None:
        """Stop what nobody waits for any more; of what is not known to run nothing will be told."""
        for step in list(job.abandoned.values()):
            self.drop_claim(step)
            if not step.stopped:
                self.stop(round_, job, step)
                step.stopped = True
            if step.claim is None:
                self.funds.settle(round_, job, step, None)
                del job.abandoned[step.id]

    def waste(self, round_: Round, job: LiveJob, outcome: StepSucceeded | StepFailed | StepReleased) -> None:
        """Count what an attempt has used whose answer is not wanted; with an abandoned one its reservation ends."""
        usage = Usage() if isinstance(outcome, StepReleased) else outcome.usage
        step = job.abandoned.get(outcome.step)
        if step is not None and step.stands(outcome.attempt, outcome.claim):
            self.funds.settle(round_, job, step, usage)
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
        """The job's one end."""
        accepted = job.accepted
        for step in (*job.steps.values(), *job.abandoned.values()):
            self.drop_claim(step)
            self.funds.settle(round_, job, step, None)
            if not step.stopped:
                self.stop(round_, job, step)
        self.funds.ended(job)
        result = Result(
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
        )
        event = JobSettled(
            epoch=self.epoch,
            job=job.id,
            at=round_.wall,
            result=result,
            reply=accepted.reply,
            trace=accepted.trace,
            client_id=accepted.client_id,
            digest=accepted.digest,
        )
        round_.settle(event, partial(self.settled_at, job.id, round_.now), tuple(job.followers))
        self.settled(job, event)
        level = log.debug if failure is None else log.info
        level("job_settled", job=job.id, trace=trace_id(accepted.trace), status=status, kind=failure and failure.kind)
        seconds = max(0.0, round_.wall - accepted.at)
        counters.settled(status, accepted.priority_class).inc()
        counters.seconds(accepted.priority_class).observe(seconds)
        if status in (Status.SUCCEEDED, Status.EXPIRED):
            self.expected.learn(accepted.priority_class, seconds)

    def settled(self, job: LiveJob, event: JobSettled) -> None:
        """Fold a settle event, live or in replay."""
        job.apply(event)
        self.live_count.remove(job)
        self.timers.clear(job.id)

    def settled_at(self, job_id: str, now: float, offset: int) -> None:
        """Its settle event is acknowledged at `offset`, or was found there; it ended at `now`: monotonic, in replay of the log's time."""
        job = self.jobs.get(job_id)
        if job is not None:
            job.settled_offset = offset
        if job is None or job.accepted.client_id:
            self.settled_ids.add(job_id, offset, now)
            self.kept_ids.ended(offset)

    def published(self, settled: JobSettled) -> None:
        """The result is acknowledged."""
        job = self.jobs.get(settled.job)
        if job is not None and job.settled is settled:
            job.published = True
            owing.leave(self, job)
        self.cancels.published(settled.job)


def internal() -> Failure:
    """Of a job on which work fails for a reason that is in nobody's rules."""
    return Failure(kind=FailureKind.INTERNAL, message="the planner failed on this job; its log says why")


def _missing(event: JobAccepted) -> Pattern:
    async def unavailable(ctx: object, job: object) -> Answer:
        raise LookupError(event.request.pattern)

    return Pattern(event.request.pattern, event.pattern_version, unavailable)
