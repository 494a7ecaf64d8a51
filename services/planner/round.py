"""Round: one pass of a home over its book: the moves that every decision is made of, and the draft of what they come to. No I/O.

Every decision is an event that is folded at once (`LiveJob.apply`) and appended by the home. If the append turns out not to be the
next in the log, the whole book is thrown away and rebuilt from history, so folding ahead of the acknowledgement is safe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from pydantic import ConfigDict

from services.planner import counters
from services.planner.draft import Draft, EndLine, EndTurn, Stop
from services.planner.job.live import LiveJob
from services.planner.job.open_step import OpenStep
from services.planner.state import caching, dates
from services.planner.state.book import OUTCOME_BYTES, Book
from shared.contracts.base import ClaimId
from shared.contracts.chat import Answer
from shared.contracts.control import StopStep
from shared.contracts.event import CallerJoined, Event, JobAccepted, JobSettled, WorkWasted
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import HeldJob, ReplyTo
from shared.contracts.outcome import StepFailed, StepReleased, StepSucceeded
from shared.contracts.result import Result, Status
from shared.contracts.review import ReviewWithdrawn
from shared.contracts.usage import Usage
from shared.patterns.port import Pattern, PatternInput
from shared.telemetry import logs, metrics
from shared.telemetry.tracing import trace_id

log = logs.get(__name__)

_MOST_GROWTH = 6
"""Bytes of JSON that a character may become."""
OVERTAKEN = "another attempt of the step was first"


@dataclass(slots=True)
class Round(Draft):
    """`book` is what is known. These moves keep it in step with what will be in history."""

    book: Book = field(kw_only=True)

    @classmethod
    def of(cls, book: Book, wall: float, now: float) -> Round:
        """A new one of this book. `wall`: seconds since the epoch; `now`: monotonic."""
        return cls(book.epoch, wall, now, book=book)

    def enter(self, event: JobAccepted) -> LiveJob:
        """Put an accepted job into memory; its pattern is not yet started."""
        pattern = self.book.policy.patterns.of(event.request.pattern, event.pattern_version) or _missing(event)
        job = self.book.jobs[event.job] = LiveJob.of(event, pattern)
        self.book.live_count.add(job)
        dates.begin(job, self, 0.0)
        return job

    def write(self, job: LiveJob, event: Event, *lies: Callable[[int], None], part: bytes | None = None) -> None:
        """Append."""
        self.whose[job.id] = job.accepted.request.tenant
        if values := self.add(job.id, event, *lies, part=part):
            self.book.live_count.keep(job, *values)

    def emit(self, job: LiveJob, event: Event) -> None:
        """Append and fold."""
        self.write(job, event)
        job.apply(event)

    def join(self, job: LiveJob, reply: ReplyTo | None) -> None:
        """Another record asked for this live job. Only who is owed a final is a fact of the job: all others cost no memory."""
        owed = (
            reply is not None and not reply.reads_events and reply not in job.followers and len(job.followers) < self.book.policy.followers
        )
        joined = CallerJoined(**self.about(job.id), reply=reply if owed else None)
        if owed:
            self.emit(job, joined)
        else:
            self.book.live_count.keep(job, *self.add(job.id, joined)[:-1])

    def stop(self, job: LiveJob, step: OpenStep) -> None:
        """Tell the node that has the current attempt, if one is known, to stop.

        A claim that is not yet in history goes there first: a stop may die with this planner, and its successor must know where to send it.
        """
        self.stop_former(job, step)
        where = (step.claim.node, step.claim.mailbox) if step.claim else step.routed
        if step.claim is not None:
            self._record_claim(job, step.claim.id)
        if where is not None:
            self.after.append(Stop(where[1], StopStep(node=where[0], job=job.id, step=step.id, attempt=step.attempt)))

    def stop_former(self, job: LiveJob, step: OpenStep) -> None:
        """The attempt beside is not wanted any longer. Lost with this planner, the stop is an answer to the claim's next renewal."""
        former = step.former
        if former is not None and self.book.claims.pop(former.id, None) is not None:
            control = StopStep(node=former.node, job=job.id, step=step.id, attempt=step.former_attempt, claim=former.id, reason=OVERTAKEN)
            self.after.append(Stop(former.mailbox, control))

    def stop_abandoned(self, job: LiveJob) -> None:
        """Stop what nobody waits for any more; of what is not known to run nothing will be told."""
        for step in list(job.abandoned.values()):
            if step.review is not None:
                self.emit(job, ReviewWithdrawn(**self.about(job.id), step=step.id))
                continue
            self.book.drop_claim(step)
            if step.lookup is not None:
                caching.abandon(self, step)
            if not step.stopped:
                self.stop(job, step)
                step.stopped = True
            if step.claim is None:
                self.book.funds.close(self, job, step, None)
                del job.abandoned[step.id]

    def waste(self, job: LiveJob, outcome: StepSucceeded | StepFailed | StepReleased) -> None:
        """Count what an attempt has used whose answer is not wanted; with an abandoned one its reservation ends."""
        usage = Usage() if isinstance(outcome, StepReleased) else outcome.usage
        step = job.abandoned.get(outcome.step)
        if step is not None and step.stands(outcome.attempt, outcome.claim):
            self.book.funds.close(self, job, step, usage)
        elif usage.calls:
            self.book.funds.waste(self, job, usage, outcome.claim)
        else:
            return
        wasted = WorkWasted(**self.about(job.id), step=outcome.step, attempt=outcome.attempt, claim=outcome.claim, usage=usage)
        self.emit(job, wasted)

    def _record_claim(self, job: LiveJob, claim: ClaimId) -> None:
        for event in job.claim_news:
            if event.claim == claim:
                self.write(job, event)
                job.claim_news.remove(event)
                return

    def settle(self, job: LiveJob, status: Status, failure: Failure | None, answer: Answer | None) -> None:
        """The job's one end. An answer that no record holds (only a pattern can make one: a step's is bounded before) is a failure."""
        accepted = job.accepted
        if answer is not None and len(answer.text) > OUTCOME_BYTES // _MOST_GROWTH and len(answer.to_bytes()) > OUTCOME_BYTES:
            message = f"the answer that the pattern made exceeds {OUTCOME_BYTES} bytes"
            status, failure, answer = Status.FAILED, Failure(kind=FailureKind.TOO_LARGE, message=message), None
        for step in (*job.steps.values(), *job.abandoned.values()):
            self.book.drop_claim(step)
            self.book.funds.close(self, job, step, None)
            caching.abandon(self, step)
            if not step.stopped:
                self.stop(job, step)
        self.book.funds.ended(job)
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
            finished_at=self.wall,
            callback=accepted.request.callback,
        )
        event = JobSettled.of_valid(
            **self.about(job.id),
            result=result,
            reply=accepted.reply,
            trace=accepted.trace,
            client_id=accepted.client_id,
            digest=accepted.digest,
            key=accepted.key,
        )
        self.settled(event, partial(self.book.ends_at, job.id, self.now), tuple(job.followers))
        self.book.end(job, event)
        self.owe_end(job)
        level = log.debug if failure is None else log.info
        level("job_settled", job=job.id, trace=trace_id(accepted.trace), status=status, kind=failure and failure.kind)
        seconds = max(0.0, self.wall - accepted.at)
        counters.settled(status, accepted.priority_class).inc()
        for flagged in (answer.flagged if answer is not None else ()) + (failure.flagged if failure is not None else ()):
            metrics.POLICY_ACTIONS.labels(flagged.direction, flagged.action).inc(flagged.count)
        counters.seconds(accepted.priority_class).observe(seconds)
        if status in (Status.SUCCEEDED, Status.EXPIRED):
            self.book.expected.learn(accepted.priority_class, max(0.0, seconds - job.idle_seconds))

    def owe_end(self, job: LiveJob) -> None:
        """Of a job that has ended, live or in replay: whom else its end is told."""
        request = job.accepted.request
        if request.conversation is not None:
            self.end_turn(job)
        if isinstance(request, HeldJob) and request.line is not None:
            assert job.settled is not None, "it has ended"
            job.line_owed = True
            self.after.append(EndLine(job.settled, request))

    def end_turn(self, job: LiveJob) -> None:
        """Of a conversation's job that has ended, live or in replay: its owner is told."""
        assert job.settled is not None, "it has ended"
        context = job.run.context
        job.turn_owed = True
        said = context.seen or job.accepted.request
        self.after.append(EndTurn(job.settled, said, job.turn, context.found, context.dropped))


class _Unread(PatternInput):
    """Takes anything: of a pattern that this process does not know."""

    model_config = ConfigDict(extra="ignore")


def _missing(event: JobAccepted) -> Pattern:
    async def unavailable(ctx: object, job: object, ask: object) -> Answer:
        raise LookupError(event.request.pattern)

    return Pattern(event.request.pattern, event.pattern_version, unavailable, _Unread, hands_on=True)
