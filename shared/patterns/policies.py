"""Policies: what a tenant has said of its inputs and answers, around whatever pattern runs. They are pinned in the job.

    input ─► critics ─► blocked, or redacted, or as it is ─► pattern ─► answer ─► critics ─► blocked, redacted, asked for again, as it is

All policies of a direction are judged at once, on the same texts; what blocks goes before what redacts. A stream is checked by its worker
while it leaves, where all that a policy looks for is bounded; else nothing leaves before the answer is judged. What a limit cuts off has
no judged answer, so no best one so far either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple

from shared.contracts.chat import Answer, ChatMessage, Operation
from shared.contracts.critique import Guard, TenantPolicy
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import HeldJob, InputRef, Job
from shared.contracts.step import StepRequest
from shared.contracts.verdict import CritiqueVerdict, Direction, Finding, Flagged
from shared.errors import InvalidInput
from shared.framing import NO_ORDERS
from shared.patterns.context import Context, StepError, chat
from shared.patterns.conversation import as_seen
from shared.patterns.critiquing import critiqued, said
from shared.patterns.judging import REVISE, Judge, judged, readable
from shared.patterns.samples import question
from shared.patterns.single import request_of
from shared.validators.checks import COMPARED
from shared.validators.texts import texts_of, with_redacted


class _Seen(NamedTuple):
    """What is judged. `by_reference`: its text is not here."""

    direction: Direction
    texts: Sequence[str]
    documents: Sequence[str] = ()
    input_ref: InputRef | None = None
    answer: Answer | None = None

    @property
    def by_reference(self) -> bool:
        return self.answer.blob is not None if self.answer is not None else self.input_ref is not None


class _Judged(NamedTuple):
    """One policy's outcome. `verdict` None: nobody could say, for this reason."""

    policy: TenantPolicy
    verdict: CritiqueVerdict | None
    failure: Failure | None = None

    @property
    def found(self) -> bool:
        return self.verdict is not None and bool(self.verdict.counts)


async def under_policies(ctx: Context, job: Job, policies: Sequence[TenantPolicy], run: Callable[[Job], Awaitable[Answer]]) -> Answer:
    """The pattern's answer, as its tenant's policies let it pass. `run`: the pattern, with the job as it is to see it."""
    noted: Counter[tuple[Direction, str, str]] = Counter()
    inputs, answers = ([p for p in policies if p.direction == direction] for direction in ("input", "answer"))
    ctx.sealed = any(policy.action != "flag" for policy in answers)
    if inputs:
        job = await _passed_input(ctx, job, inputs, noted)
    if answers:
        job = _guarded(job, answers)
    try:
        answer = await run(job)
    except InvalidInput as error:  # what was redacted was part of what the pattern needs
        raise StepError(Failure(kind=FailureKind.BLOCKED, message=f"the redacted input cannot be read: {error.message}")) from None
    if answers and job.kind is not Operation.EMBED:
        answer = await _passed_answer(ctx, job, answers, answer, noted)
    told = [Flagged(direction=d, check=check, action=action, count=count) for (d, check, action), count in noted.items()]
    return answer.model_copy(update={"flagged": (*told, *answer.flagged)[:256]}) if told else answer


def _guarded(job: Job, policies: Sequence[TenantPolicy]) -> Job:
    """Its stream as it may leave."""
    if not all(policy.streams for policy in policies):
        return as_seen(job, stream=False)
    guard = tuple(Guard(checks=p.checks, action=p.action) for p in policies if p.action in ("block", "redact"))
    return as_seen(job, guard=guard) if job.stream and guard else job


async def _passed_input(ctx: Context, job: Job, policies: Sequence[TenantPolicy], noted: Counter[tuple[Direction, str, str]]) -> Job:
    ref = job.input_ref if isinstance(job, HeldJob) else None
    seen = _Seen("input", texts_of(job) if ref is None else (), input_ref=ref)
    found = await _judge_all(ctx, job, policies, seen, noted)
    _block(seen.direction, [each for each in found if each.policy.action == "block"])
    redacts = [each for each in found if each.policy.action == "redact"]
    if not redacts:
        return job
    _check_redactable(seen, redacts)
    ctx.seen = as_seen(job, **with_redacted(job, (each.verdict for each in redacts if each.verdict is not None)))
    return ctx.seen


async def _passed_answer(
    ctx: Context, job: Job, policies: Sequence[TenantPolicy], answer: Answer, noted: Counter[tuple[Direction, str, str]]
) -> Answer:
    for again in range(1 + max(policy.times for policy in policies)):
        seen = _Seen("answer", texts_of(answer), _documents(job), job.input_ref if isinstance(job, HeldJob) else None, answer)
        before = noted.copy()
        found = await _judge_all(ctx, job, policies, seen, noted)
        retried = [each for each in found if each.policy.action == "retry"]
        _block(seen.direction, [e for e in found if e.policy.action == "block" or (e.policy.action == "retry" and again >= e.policy.times)])
        if not retried:
            break
        if not readable(answer):
            _block(seen.direction, retried)
        _only_retried(noted, before, retried)
        answer = await ctx.ask(_revision(job, answer, retried))
    redacts = [each for each in found if each.policy.action == "redact"]
    if not redacts:
        return answer
    _check_redactable(seen, redacts)
    return answer.model_copy(update=with_redacted(answer, (each.verdict for each in redacts if each.verdict is not None)))


def _only_retried(
    noted: Counter[tuple[Direction, str, str]], before: Counter[tuple[Direction, str, str]], found: Sequence[_Judged]
) -> None:
    """Of an answer that is asked for again only that is told."""
    noted.clear()
    noted.update(before)
    for each in found:
        for check, count in each.verdict.counts.items() if each.verdict is not None else ():
            noted["answer", check, "retry"] += count


def _documents(job: Job) -> Sequence[str]:
    return [message.content for message in job.turns if message.content] or [job.prompt or ""]


async def _judge_all(
    ctx: Context, job: Job, policies: Sequence[TenantPolicy], seen: _Seen, noted: Counter[tuple[Direction, str, str]]
) -> list[_Judged]:
    """Those of which something was found. Raises StepError where nobody could check what must not pass unchecked."""
    each = [_judge(ctx, job, policy, seen) for policy in policies]
    judged_: list[_Judged] = [await each[0]] if len(each) == 1 else await ctx.gather(*each)
    for one in judged_:
        if one.verdict is not None:
            for check, count in one.verdict.counts.items():
                noted[seen.direction, check, one.policy.action] += count
        elif one.policy.refuses:
            assert one.failure is not None
            message = f"the {seen.direction} could not be checked, as its tenant's policy wants: {one.failure.message}"
            raise StepError(Failure(kind=FailureKind.UNCHECKED, message=message))
        else:
            noted[seen.direction, ",".join(one.policy.checks.asked) or "judge", "unchecked"] += 1
    return [one for one in judged_ if one.found]


async def _judge(ctx: Context, job: Job, policy: TenantPolicy, seen: _Seen) -> _Judged:
    """By the checks, then by a model where one is to judge."""
    checks, verdict = policy.checks, CritiqueVerdict()
    compares = any(name in COMPARED for name in checks.asked)
    documents = seen.documents if compares else ()
    ref = seen.input_ref if seen.direction == "input" or compares else None
    blob = seen.answer.blob if seen.answer is not None else None
    try:
        if checks.asked:
            verdict = await critiqued(ctx, checks, seen.texts, documents, answer=blob, input_ref=ref)
        if policy.judge is not None and not verdict.counts and (verdict.doubts or not policy.judge.only_in_doubt):
            verdict = await _by_model(ctx, job, policy, seen)
    except StepError as error:
        return _Judged(policy, None, error.failure)
    return _Judged(policy, verdict)


async def _by_model(ctx: Context, job: Job, policy: TenantPolicy, seen: _Seen) -> CritiqueVerdict:
    """No verdict of a model is no approval, and nothing found either: nobody could check."""
    assert policy.judge is not None
    given = policy.judge
    judge = Judge(agent=given.agent, model=given.model, rubric=given.rubric, accept=given.accept)
    task = "\n".join(seen.documents) if seen.direction == "answer" else "Something that was asked of an assistant."
    told = None if seen.by_reference else await judged(ctx, as_seen(job, stream=False), judge, task, seen.texts[0])
    if told is None:
        raise StepError(Failure(kind=FailureKind.INVALID_OUTPUT, message="no judge has come to a verdict"))
    if seen.answer is not None:
        ctx.judge(request_of(job), seen.answer, told.score >= given.accept)
    if told.score >= given.accept:
        return CritiqueVerdict()
    return CritiqueVerdict(findings=(Finding(check="judge", says=told.critique),), counts={"judge": 1})


def _block(direction: Direction, found: Sequence[_Judged]) -> None:
    """Raises StepError where there is any."""
    counts = Counter[str]()
    for each in found:
        counts.update(each.verdict.counts if each.verdict is not None else {})
    if counts:
        named = ", ".join(f"{check} ({count})" for check, count in sorted(counts.items()))
        message = f"the {direction} is blocked by its tenant's policy: {named}"
        flagged = tuple(Flagged(direction=direction, check=check, action="block", count=count) for check, count in counts.items())
        raise StepError(Failure(kind=FailureKind.BLOCKED, message=message, flagged=flagged))


def _check_redactable(seen: _Seen, found: Sequence[_Judged]) -> None:
    """Raises StepError: what cannot be redacted does not pass."""
    verdicts = [each.verdict for each in found if each.verdict is not None]
    placed = all(verdict.whole and all(finding.end > finding.start for finding in verdict.findings) for verdict in verdicts)
    if seen.by_reference or not placed:
        _block(seen.direction, found)


def _revision(job: Job, answer: Answer, found: Iterable[_Judged]) -> StepRequest:
    """One more answer, with what was found as data."""
    faults = said(one.verdict for one in found if one.verdict is not None)
    turns = (
        ChatMessage(role="assistant", content=answer.text),
        ChatMessage(role="user", content=REVISE.format(data=NO_ORDERS, faults=faults)),
    )
    return chat(job, (*question(job), *turns), format=job.format, operation=Operation.CHAT)
