"""fork: another job's pattern, of whose steps the first have ended as that job's history says; the others are asked for.

When: you want to see what would have come of a job if a step had answered something else, or the rest had been asked of another model:
`tutti jobs replay ID --fork K` makes it.
Not when: the job shall only be seen again as it was: `tutti jobs replay ID` needs no cluster for that.
Options: `of` (the job's id: its samples' seeds follow from it), `pattern`, `version`, `given` (that job's own input), `ends` (of its first
steps, in the order of history: `path`, and `answer`, `failure` or `decision`), `prompt` (instead of the last message of the first step that
is asked for).
Cost: that of the other job's remaining steps. What its pattern gives up in mid-run goes on to its own end.
Try: tutti jobs replay ID --fork 1 --model gemma3:270m

    ends ─► the pattern, up to there ─┬─► step ─┐
                  ▲                   └─► step ─┤
                  └──── their ends ◄────────────┘

Agents, prompts and tools are those of today. The ends are the caller's own words, as a prompt is: nothing vouches for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from shared.contracts.base import Contract, EpochSeconds, JobId, Label, Ordinal, Sentence, Text
from shared.contracts.chat import Answer, ChatMessage
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import Job
from shared.contracts.review import Decision, Verdict
from shared.contracts.step import StepRequest
from shared.patterns.context import Branch, Context, Review, StepError
from shared.patterns.port import Pattern, PatternInput
from shared.patterns.run import Run, Wanted

MOST_ENDS = 1_000


class Decided(Contract):
    """A Decision as JSON."""

    verdict: Verdict
    text: Text
    by: tuple[Label, ...] = Field(default=(), max_length=64)
    at: EpochSeconds


class StepEnd(Contract):
    """How a step ended; without anything a sleep is over."""

    model_config = ConfigDict(extra="forbid")

    path: Sentence
    answer: Answer | None = None
    failure: Failure | None = None
    decision: Decided | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(end is not None for end in (self.answer, self.failure, self.decision)) > 1:
            raise ValueError("a step ends in one way")
        if self.answer is not None and self.answer.blob is not None:
            raise ValueError("an answer is given whole: a reference is tutti's own")
        return self

    @property
    def value(self) -> Answer | Decision | None:
        """What its pattern is told, where it did not fail."""
        return self.answer if self.decision is None else Decision(**dict(self.decision))


class ForkInput(PatternInput):
    """Whose history, and how much of it."""

    of: JobId
    pattern: Label
    version: Ordinal
    given: PatternInput
    """As that pattern's own input: what it names of the registry is pinned as if it ran itself."""
    ends: tuple[StepEnd, ...] = Field(default=(), max_length=MOST_ENDS)
    prompt: Text | None = None

    @field_validator("given", mode="plain", json_schema_input_type=dict[str, Any])
    @classmethod
    def _as_its_pattern_reads_it(cls, given: Any, info: ValidationInfo) -> PatternInput:
        pattern = _pattern(info.data.get("pattern", ""), info.data.get("version", 0))
        if pattern is None or pattern.input is cls:
            raise ValueError("there is no such pattern of tutti's own, or it is fork itself")
        return pattern.input.model_validate(given)


def _pattern(name: str, version: int) -> Pattern | None:
    from shared.patterns import BUILT_IN  # which knows this one too

    return BUILT_IN.of(name, version)


async def fork(ctx: Context, job: Job, ask: ForkInput) -> Answer:
    """The other pattern's answer."""
    pattern = _pattern(ask.pattern, ask.version)
    assert pattern is not None, "the input was read"
    inner = job.model_copy(update={"pattern": ask.pattern, "input": job.input["given"], "chain": ()})
    run = Run(ask.of, pattern, inner, Context(ask.of, ctx.team, ctx.limits, ctx.seconds, ctx.priority_class))
    run.context.resolves = False  # its steps are asked for here: what is chosen twice would be part of their ids
    ctx.baseline = None  # a fork is not compared
    try:
        run.start()
        await _go_on(ctx, run, ask, _serve(run, ask.ends))
    finally:
        run.close()
    if run.answer is None:
        raise StepError(run.failure or Failure(kind=FailureKind.INTERNAL, message="the forked pattern did not end"))
    return run.answer


def _serve(run: Run, ends: Sequence[StepEnd]) -> list[Wanted]:
    """What is open behind these ends. Raises StepError where the pattern did not ask for such a step."""
    open_ = {wanted.path: wanted for wanted in _asked(run)}
    for end in ends:
        wanted = open_.pop(end.path, None)
        if wanted is None:
            message = f"the recorded step {end.path} is not asked for here: it is another pattern, input or declaration"
            raise StepError(Failure(kind=FailureKind.NON_DETERMINISTIC_PATTERN, message=message))
        run.resume(wanted.step, end.value, end.failure)
        given_up = set(run.take_abandoned())
        open_ = {path: wanted for path, wanted in open_.items() if wanted.step not in given_up}
        open_ |= {wanted.path: wanted for wanted in _asked(run)}
    return list(open_.values())


def _asked(run: Run) -> list[Wanted]:
    return [run.record(wanted.step) for wanted in run.wanted()]


async def _go_on(ctx: Context, run: Run, ask: ForkInput, open_: list[Wanted]) -> None:
    """To its end, asking."""
    pool, prompt = ctx.pool(MOST_ENDS), ask.prompt
    while not run.finished:
        for wanted in open_:
            request = wanted.request
            if prompt is not None and request is not None:
                request, prompt = _said_otherwise(request, prompt), None
            pool.add(wanted.step, _command(ctx, wanted, request))
        ended = await pool.next()
        assert ended is not None, "it waits for something"
        run.context.so_far = ctx.so_far
        run.resume(ended.key, ended.value, ended.failure)
        run.take_abandoned()
        if run.context.best_answer is not None:
            ctx.best(run.context.best_answer)
        open_ = _asked(run)


def _command(ctx: Context, wanted: Wanted, request: StepRequest | None) -> Branch:
    if request is not None:
        return ctx.ask(request)
    return ctx.sleep(wanted.seconds) if wanted.review is None else Review(wanted.review)


def _said_otherwise(request: StepRequest, prompt: str) -> StepRequest:
    if not request.messages:
        return request.model_copy(update={"prompt": prompt})
    last = ChatMessage(role="user", content=prompt)
    return request.model_copy(update={"messages": (*request.messages[:-1], last)})


def likely_calls(job: Job, ask: ForkInput) -> Sequence[int]:
    """The other pattern's, but for those that are given."""
    pattern = _pattern(ask.pattern, ask.version)
    assert pattern is not None, "the input was read"
    return pattern.likely_calls(job, ask.given)[len(ask.ends) :]


FORK = Pattern("fork", 1, fork, ForkInput, likely_calls=likely_calls)
