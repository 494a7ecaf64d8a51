"""compare: an answer that a pattern gave, judged beside its baseline: the answer of a simpler way.

When: planners begin it by themselves, behind a share of the jobs (`TUTTI_PLANNER__COMPARED_SHARE`); `tutti patterns report` counts it.
Not when: somebody waits: nobody reads its answer but that report.
Options: all set by the planner: `job`, `accepted_at`, `pattern`, `answer`, `took` of the measured job; `baseline` where its pattern kept
one, else a single answer is asked for; `judge` (agent judge: give it a model of its own, an author is no judge of itself).
Cost: 2 calls (one an order), 1 more for a baseline that was not kept, none where both say the same; depth 1 or 2.
Try: tutti patterns report

    answer ────────────────┬─► judge, in both orders ─► better, equal or worse
    baseline (or single) ──┘

Who prefers a place prefers no text: the orders must agree. A judge without a verdict is no tie: the comparison fails, and is not counted.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from shared.contracts.base import EpochSeconds, JobId, Label
from shared.contracts.chat import Answer, Options
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import Job
from shared.contracts.limits import Limits
from shared.patterns.chain import job_input
from shared.patterns.comparison import COMPARED_CHARACTERS, SINGLE_ANSWER, Baseline, Comparison, Spent
from shared.patterns.context import Context, StepError
from shared.patterns.judging import Judge, opinions, preference, readable
from shared.patterns.port import Pattern, PatternInput
from shared.patterns.single import request_of
from shared.validators.checks import plain

_VERDICTS = ("equal", "better", "worse")


class CompareInput(PatternInput):
    """What was measured, and beside what."""

    job: JobId
    accepted_at: EpochSeconds
    pattern: Label
    answer: str = Field(max_length=COMPARED_CHARACTERS)
    took: Spent
    baseline: Baseline = SINGLE_ANSWER
    judge: Judge = Judge(agent="judge")


async def compare(ctx: Context, job: Job, ask: CompareInput) -> Answer:
    """A Comparison, as JSON."""
    baseline = ask.baseline if ask.baseline.text is not None else await _single(ctx, job, ask.baseline)
    verdict = await _verdict(ctx, job, ask, baseline)
    made = Comparison(
        job=ask.job,
        accepted_at=ask.accepted_at,
        pattern=ask.pattern,
        baseline=baseline.what,
        **verdict,
        cost_ratio=ask.took.times(baseline.took),
        seconds_ratio=min(ask.took.seconds / baseline.took.seconds, 1e15) if ask.took.seconds and baseline.took.seconds else None,
    )
    return Answer(text=made.to_bytes().decode())


async def _single(ctx: Context, job: Job, wanted: Baseline) -> Baseline:
    """The job's own input as one call. Of its time only the model's: a comparison waits behind everybody else."""
    named = {} if wanted.model is None else {"model": wanted.model, "fallback_models": ()}
    answer = await ctx.ask(request_of(job).model_copy(update={"agent": "baseline", **named}))
    if not readable(answer) or len(answer.text) > COMPARED_CHARACTERS:
        raise StepError(Failure(kind=FailureKind.TOO_LARGE, message="the single answer is none that a judge can read whole"))
    return wanted.changed(text=answer.text, took=Spent.of(ctx.so_far.usage, ctx.so_far.ran_seconds))


async def _verdict(ctx: Context, job: Job, ask: CompareInput, baseline: Baseline) -> dict[str, str]:
    """The verdict, and how the judge came to it."""
    text = baseline.text or ""
    answer, other = plain(ask.answer), plain(text)
    if baseline.same or answer == other:
        return {"verdict": "equal"}
    if not answer or not other:
        return {"verdict": "better" if answer else "worse"}
    bare = job.model_copy(update={"options": Options()})  # a job's stop words and sampling are for its answer
    said = await opinions(ctx, bare, ask.judge, job_input(job), (ask.answer, text))
    better = preference(said)
    if better is None:
        raise StepError(Failure(kind=FailureKind.INVALID_OUTPUT, message="the judge gave no verdict"))
    return {"verdict": _VERDICTS[better], "judge": "prefers a place" if said[0] == said[1] != "equal" else "consistent"}


def likely_calls(job: Job, ask: CompareInput) -> Sequence[int]:
    """The judge twice, and perhaps a single answer."""
    return [*[0] * (ask.baseline.text is None), *[2_000 + 2 * len(ask.answer)] * 2]


COMPARE = Pattern("compare", 1, compare, CompareInput, likely_calls=likely_calls, limits=Limits(calls=16, steps=16))
