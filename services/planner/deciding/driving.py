"""Driving: a job goes on as far as history allows: what its pattern wants is asked, what failed is tried again, its end begins. Pure."""

from __future__ import annotations

from services.planner import counters
from services.planner.deciding import ending, hedging, streams, waits
from services.planner.deciding.streams import step_of
from services.planner.draft import Begin, Dispatch, Given
from services.planner.job.limits import calls_of, endless, estimate_tokens, neared, refusal
from services.planner.job.live import LiveJob
from services.planner.job.open_step import OpenStep, Phase
from services.planner.round import Round
from services.planner.state import caching
from services.planner.state.book import Book, internal
from services.planner.state.funds import Funding, need_of
from shared.contracts.base import CLASSES
from shared.contracts.budget import Amounts
from shared.contracts.cache import CacheLookup
from shared.contracts.control import BeginStep
from shared.contracts.event import AttemptFailed, LimitNeared, StepAsked, StepClaimedBy, StepRetried
from shared.contracts.failure import Failure
from shared.contracts.result import Status
from shared.contracts.review import ReviewGiven
from shared.contracts.step import Step
from shared.contracts.usage import Usage
from shared.patterns.run import Wanted
from shared.scheduling.urgency import raised
from shared.telemetry import logs, metrics
from shared.telemetry.tracing import trace_id

log = logs.get(__name__)


def drive(round_: Round, job: LiveJob) -> None:
    """Append what the pattern wants and history lacks; settle when the pattern has ended, or work on the job fails."""
    try:
        waits.rest(round_, job)  # what is asked now must know how much time is left
        _drive(round_, job)
        round_.book.live_count.keep(job, *round_.close(job.id))
        waits.rest(round_, job)
        if job.settled is None and job.ending is None:
            round_.book.arm(job)
    except Exception as error:  # of this job, whoever's fault it is: the others of the home go on
        log.failure("job_failed", error, job=job.id)
        give_up(round_, job)


def give_up(round_: Round, job: LiveJob) -> None:
    """End a job on which work fails. One that cannot even be ended stays as it is, and the log says so."""
    if job.settled is not None:
        return
    try:
        round_.settle(job, Status.FAILED, job.broken or internal(), None)
    except Exception as error:
        log.failure("job_cannot_be_ended", error, job=job.id)


def _drive(round_: Round, job: LiveJob) -> None:
    while job.settled is None and (wanted := job.run.wanted()):
        if (failure := endless(job)) is not None:
            ending.begin(round_, job, failure)
            return
        for want in wanted:
            if job.run.still_wants(want.step):
                _ask(round_, job, want)
    round_.stop_abandoned(job)
    if job.settled is not None:
        return
    if job.run.failure is not None:
        ending.begin(round_, job, job.run.failure)
    elif job.run.finished:
        round_.settle(job, Status.SUCCEEDED, None, job.run.answer)
    else:
        _warn(round_, job)


def on_review(round_: Round, given: ReviewGiven) -> None:
    """Somebody decides."""
    job = waits.on_given(round_, given)
    if job is not None:
        drive(round_, job)


def _warn(round_: Round, job: LiveJob) -> None:
    """Alert of limits that are near, once each."""
    for near in neared(job, round_.now):
        log.info("limit_neared", job=job.id, trace=trace_id(job.accepted.trace), limit=near.limit)
        metrics.LIMITS_NEARED.labels("job", near.limit).inc()
        round_.emit(job, LimitNeared(**round_.about(job.id), **near._asdict()))


def _ask(round_: Round, job: LiveJob, want: Wanted) -> None:
    book = round_.book
    if want.request is None:
        waits.begin(round_, job, want)
        return
    length = want.request.length()
    tokens = estimate_tokens(want.request, length, book.policy.prompts)
    cost = book.prices.estimate_micros(want.request.model, tokens)
    refused = refusal(job, want, tokens, cost)
    calls = calls_of(want.request)
    cost = cost or (book.funds.least_micros(job) if calls else 0)
    funding = Funding() if refused else book.funds.reserve(round_, job, Amounts.of_valid(calls=calls, tokens=tokens, micros=cost))
    refused = refused or funding.failure
    attempt = given = lookup = None
    if refused is None and funding.lacks is None:
        first = OpenStep(want.step, want.path, want.request, tokens)
        lookup = _lookup(book, job, first, want)
        if lookup is None:
            attempt = _attempt(round_, job, first)
            given = _given(book, job, attempt)
    event = StepAsked.of_valid(
        **round_.about(job.id),
        step=want.step,
        path=want.path,
        agent=want.request.agent,
        model=want.request.model,
        reserved_tokens=0 if refused else tokens,
        reserved_micros=None if refused else cost or None,
        charged_day=funding.day,
        unfunded=funding.lacks is not None or None,
        node=given.node if given else None,
        choice=want.choice,
    )
    round_.emit(job, event)
    step = job.steps[want.step]
    step.length = length
    if refused is not None:
        fail_attempt(round_, job, step, refused, wait=None)
        return
    counters.asked(want.request.capability).inc()
    if funding.lacks is not None:
        book.funds.wait(round_, job, step)
        return
    if lookup is not None:
        caching.begin(round_, step, lookup, book.policy.caching)
        return
    assert attempt is not None, "it is funded"
    round_.dispatches.append(_sent(round_, job, step, Dispatch(attempt, job.accepted.trace, want.content, given)))


def _lookup(book: Book, job: LiveJob, step: OpenStep, want: Wanted) -> CacheLookup | None:
    """What is asked of the cache instead of sending the step. Nearly no job asks."""
    control = book.control_of(job)
    if control is None or book.mailboxes is None:
        return None
    assert want.request is not None, "a sleep is not asked for"
    return caching.lookup_of(job, step, book.home, book.mailboxes.digest(want.request.model), control, content=want.content)


def _given(book: Book, job: LiveJob, attempt: Step) -> Given | None:
    """A raised step goes before others of a higher class: the routers see to that."""
    raised_ = attempt.priority_class is not job.accepted.priority_class
    return None if book.mailboxes is None or raised_ or attempt.is_critique else book.mailboxes.give(attempt)


def send(round_: Round, job: LiveJob, step: OpenStep) -> None:
    """The first attempt, which history knows of already, goes out."""
    attempt = _attempt(round_, job, step)
    sent = Dispatch(attempt, job.accepted.trace, given=_given(round_.book, job, attempt), known=True)
    round_.dispatches.append(_sent(round_, job, step, sent))


def dispatch(round_: Round, job: LiveJob, step: OpenStep) -> Dispatch:
    """The attempt as it goes to the routers. How long it may wait for a node, they know."""
    return _sent(round_, job, step, Dispatch(_attempt(round_, job, step), job.accepted.trace))


def _sent(round_: Round, job: LiveJob, step: OpenStep, sent: Dispatch) -> Dispatch:
    book = round_.book
    if sent.step.is_critique:
        step.patience_until = min(step.patience_until, round_.now + book.policy.critique_seconds)
        step.due_at = min(step.patience_until, round_.now + book.policy.critique_resend_seconds)
        return sent
    step.due_at = round_.now + book.policy.resend_seconds
    book.unclaimed.sent(job.id, step, sent.given)
    return sent


def given(book: Book, now: float, sent: Step, routed: tuple[str, int]) -> None:
    """This planner has put the attempt into a node's mailbox, and history knows of it: the claim timeout begins."""
    found = _waiting(book, sent)
    if found is not None:
        found[1].routed, found[1].due_at = routed, now + book.policy.claim_timeout_seconds
        book.arm(found[0])


def not_given(book: Book, now: float, sent: Step) -> None:
    """It does not lie there, as far as is known: it goes to the routers, and waits for them."""
    found = _waiting(book, sent)
    if found is not None:
        found[1].routed, found[1].due_at = None, now + book.policy.resend_seconds
        book.unclaimed.sent(found[0].id, found[1], None)
        book.arm(found[0])


def _waiting(book: Book, sent: Step) -> tuple[LiveJob, OpenStep] | None:
    """Unless it is claimed or over."""
    found = book.find(sent.job, sent.id)
    return found if found is not None and found[1].attempt == sent.attempt and found[1].phase is Phase.ASKED else None


def _attempt(round_: Round, job: LiveJob, step: OpenStep) -> Step:
    """The attempt as it travels."""
    assert step.request is not None, "a sleep is not sent"
    left = max(0.0, job.deadline_due - round_.now)
    served_as, most = raised(job.accepted.priority_class, left, round_.book.expected.of), step.request.needs.at_most
    if most is not None:
        served_as = max(served_as, most, key=CLASSES.index)
    tenant, policy = job.accepted.request.tenant, round_.book.policy
    likely = policy.lengths.likely(tenant, step.request.agent, step.request.model)
    return step_of(job, step, round_.book.home, policy.lease_seconds, served_as=served_as, seconds_left=left, likely_output=likely)


def fail_attempt(
    round_: Round,
    job: LiveJob,
    step: OpenStep,
    failure: Failure,
    *,
    wait: float | None,
    counted: bool = True,
    usage: Usage | None = None,
) -> None:
    """Record that the current attempt ended; the next one begins after `wait` seconds, never when None."""
    book = round_.book
    why = unexplained(job, step, step.why)
    book.drop_claim(step)
    book.funds.close(round_, job, step, usage, lost=True)
    log.info("attempt_failed", job=job.id, trace=trace_id(job.accepted.trace), step=step.id, kind=failure.kind.value, retry_in=wait)
    event = AttemptFailed(
        **round_.about(job.id),
        step=step.id,
        attempt=step.attempt,
        failure=failure,
        retry_after_seconds=wait,
        counted=counted,
        usage=usage or Usage(),
        why=why,
    )
    round_.emit(job, event)
    if wait is None:
        caching.abandon(round_, step)
        round_.stop_former(job, step)
        return
    step.due_at = round_.now + wait
    if not streams.ask_position(round_, job, step, book.home, book.policy) and wait <= 0:
        retry(round_, job, step)


def learn(book: Book, job: LiveJob, step: OpenStep, used: Usage) -> None:
    """From an answer that history takes: what such calls cost, and how long their prompts and answers are."""
    if (request := step.request) is None or not used.calls:
        return
    if step.length is not None and step.length.bare and used.prompt_tokens and not (used.estimated or step.prefix):
        book.policy.prompts.learn(request.model, step.length, used.prompt_tokens)
    if used.cost:
        book.prices.learn(request.model, used)
    if used.completion_tokens:
        book.policy.lengths.learn(job.accepted.request.tenant, request.agent, request.model, used.completion_tokens)


def unexplained(job: LiveJob, step: OpenStep, why: str | None) -> str | None:
    """Why its node was chosen, unless its claim stands in history and says so."""
    step.why, claim = None, step.claim
    return why if claim is None or any(event.claim == claim.id for event in job.claim_news) else None


def hedge(round_: Round, job: LiveJob, step: OpenStep) -> None:
    """Begin another attempt beside the one that runs, if it is time, and there is room."""
    book = round_.book
    failure, former = hedging.due(round_, job, step), step.claim
    step.due_at = min(step.due_at, step.hedge_at)
    if failure is None or former is None or book.mailboxes is None:
        return
    elsewhere = _attempt(round_, job, step).changed(avoid=(*step.avoid, former.node))
    if book.mailboxes.room_elsewhere(elsewhere) and book.hedging.take():
        fail_attempt(round_, job, step, failure, wait=0.0, counted=False)
        hedging.begun(book, job, step, former)


def repeatable(step: OpenStep) -> bool:
    """Whether it may be begun again where it may have begun."""
    return step.request is None or step.request.idempotent


def record_claim(round_: Round, job: LiveJob, step: OpenStep, event: StepClaimedBy) -> None:
    """The claim that stands goes into history; what waits for that begins."""
    round_.write(job, event)
    let_begin(round_, job, step)


def let_begin(round_: Round, job: LiveJob, step: OpenStep) -> None:
    """Its claim is in history, or goes there in this round. One that may be done twice has begun already."""
    if step.claim is not None and not repeatable(step):
        claim = step.claim
        begin = BeginStep(node=claim.node, job=job.id, step=step.id, attempt=step.attempt, claim=claim.id)
        round_.after.append(Begin(claim.mailbox, begin))


def retry(round_: Round, job: LiveJob, step: OpenStep) -> None:
    """Begin the next attempt. It goes out only after its event is acknowledged."""
    prefix, tokens = (step.prefix, step.prefix_tokens) if step.shown is None else (step.shown, step.shown_tokens)
    refused = streams.refusal(step, prefix)
    if refused is not None:
        fail_attempt(round_, job, step, refused, wait=None, counted=False)
        return
    funding = round_.book.funds.reserve(round_, job, need_of(step))
    waits = funding.lacks is not None
    event = StepRetried(
        **round_.about(job.id),
        step=step.id,
        attempt=step.attempt + 1,
        avoid=step.avoid,
        prefix=prefix or None,
        prefix_tokens=tokens if prefix else None,
        charged_day=funding.day,
        unfunded=waits or None,
    )
    round_.emit(job, event)
    if funding.failure is not None:
        fail_attempt(round_, job, step, funding.failure, wait=None)
    elif waits:
        round_.book.funds.wait(round_, job, step)
    else:
        round_.after.append(dispatch(round_, job, step))
