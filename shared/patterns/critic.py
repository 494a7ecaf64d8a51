"""critic: a draft that is checked and revised, and of all drafts the best.

When: there is something to check by: a schema, a length, words that must or must not stand there, sources; or a rubric and a second model.
Not when: nothing new comes in: a model that judges its own reasoning makes right answers wrong as often as wrong ones right (vote instead).
Options: `rounds` of revision (2), `checks` (made first, and without a model: `json_schema`, `min_chars`, `max_chars`, `required`,
`forbidden`, `sources` with `must_cite`, `may_refuse`, `may_repeat`), `critique` (what critics check then), `judge` (`agent`, `model`:
another than the author's, `rubric`, `accept`: the score from 1 to 5 that is good enough, 4; null: the checks alone), `agent` (who writes),
`compare` (a revision must also be preferred to the best draft, in both orders).
Cost: 2 calls when the draft is good, + 2 a round (+ 2 with `compare`); a draft that fails a check is not judged. Depth as calls.
Try: tutti submit --pattern critic --input <(echo 'checks: {max_chars: 200, required: [Mars]}') "What is red about Mars?"

    prompt ─► draft ─► checks ─► judge ─► answer: the best draft
                ▲                  │
                └──── revision ◄───┘ critique
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from shared.contracts.agents import Reference
from shared.contracts.chat import Answer, ChatMessage, FinishReason
from shared.contracts.job import Job
from shared.contracts.limits import Limits
from shared.contracts.step import StepRequest
from shared.framing import NO_ORDERS, framed
from shared.patterns.chain import job_input
from shared.patterns.comparison import Spent
from shared.patterns.context import Context, StepError, chat, explained, stop_at_limit
from shared.patterns.critiquing import critiqued
from shared.patterns.judging import REVISE, Grade, Judge, judged, preferred, readable
from shared.patterns.port import Pattern, PatternInput
from shared.patterns.samples import question
from shared.patterns.single import request_of
from shared.patterns.tool_use import ask_with_tools
from shared.validators.checks import CheckedSet, Checks, faults, json_faults, plain

_TIME = 0.6
"""Of the job's whole time, what checking and revising may take after the draft: what is best then is the answer."""
_MOST_FOUND = 8
_CUT = "the answer is cut off before its end; be shorter"


class _CriticInput(PatternInput):
    """What is checked, by whom, and how often an answer is revised."""

    rounds: int = Field(default=2, ge=0, le=5)
    checks: Checks = Checks()
    critique: CheckedSet | None = None
    judge: Judge | None = Judge()
    agent: Reference | None = None
    compare: bool = False


class _Draft:
    """A draft and what is known of it. `rank`: fewer faults first, then the score; what has no verdict has none."""

    def __init__(self, answer: Answer, faults: Sequence[str], grade: Grade | None) -> None:
        self.answer, self.faults, self.grade = answer, tuple(faults), grade
        self.rank = (-len(self.faults), grade.score if grade is not None else 0)

    @property
    def critique(self) -> str:
        """What its author is told; empty where there is nothing to go by."""
        return "\n".join(f"- {fault}" for fault in self.faults) or (self.grade.critique.strip() if self.grade is not None else "")

    def told(self, **more: Any) -> dict[str, Any]:
        score = None if self.grade is None else self.grade.score
        return {"faults": list(self.faults), "score": score, "critique": self.critique, **more}


class _Work:
    def __init__(self, ctx: Context, job: Job, ask: _CriticInput, draft: Answer) -> None:
        self._ctx, self._job, self._ask, self._first = ctx, job, ask, draft
        self._seen: set[str] = set()
        self.best = _Draft(draft, (), None)
        self.drafts: list[dict[str, Any]] = []
        self.stopped = "late"

    async def run(self) -> None:
        """Until a draft passes, a critique comes again or says nothing, a revision is no better, or the rounds are over."""
        self.best = await self._checked(self._first)
        self.drafts = [self.best.told(kept=True)]
        if self.best.faults or self.best.grade is not None or self._ask.judge is None:
            self._ctx.judge(request_of(self._job), self._first, self.passed)
        for _ in range(self._ask.rounds):
            if self._stops():
                return
            try:
                answer = await ask_with_tools(self._ctx, self._ask.agent, self._revision())
            except StepError as error:
                stop_at_limit(error.failure)
                self.stopped = "failed"
                return
            draft = await self._checked(answer) if readable(answer) else None
            if draft is None or not await self._is_better(draft):
                self.drafts += [draft.told(kept=False)] if draft is not None else []
                self.stopped = "no better"
                return
            self.best = draft
            self.drafts.append(draft.told(kept=True))
            self._ctx.best(self.answer())
            self._ctx.apart()
        if not self._stops():
            self.stopped = "rounds"

    @property
    def passed(self) -> bool:
        """Approved: without faults, and by the judge where there is one. No verdict is no approval."""
        judge, grade = self._ask.judge, self.best.grade
        approved = judge is None or (grade is not None and grade.score >= judge.accept)
        return bool(self.drafts) and not self.best.faults and approved

    def answer(self) -> Answer:
        return explained(self.best.answer, passed=self.passed, stopped=self.stopped, drafts=self.drafts)

    def _stops(self) -> bool:
        critique = plain(self.best.critique)
        if self.passed:
            self.stopped = "passed"
        elif not critique:
            self.stopped = "no verdict"
        elif critique in self._seen:
            self.stopped = "repeated"
        else:
            self._seen.add(critique)
            return False
        return True

    async def _checked(self, answer: Answer) -> _Draft:
        found = [*faults(answer.text, self._ask.checks)]
        if isinstance(self._job.format, dict) and self._ask.checks.json_schema is None:
            found += json_faults(answer.text, self._job.format)
        if answer.finish_reason is FinishReason.LENGTH:
            found.append(_CUT)
        if self._ask.critique is not None and not found:
            verdict = await critiqued(self._ctx, self._ask.critique, [answer.text], [job_input(self._job)])
            found += [each.says for each in verdict.findings if each.says][:_MOST_FOUND]
        if found or self._ask.judge is None:
            return _Draft(answer, found, None)
        return _Draft(answer, (), await judged(self._ctx, self._job, self._ask.judge, job_input(self._job), answer.text))

    async def _is_better(self, draft: _Draft) -> bool:
        if draft.rank <= self.best.rank or not self._ask.compare or self._ask.judge is None:
            return draft.rank > self.best.rank
        texts = self.best.answer.text, draft.answer.text
        return await preferred(self._ctx, self._job, self._ask.judge, job_input(self._job), texts) == 2

    def _revision(self) -> StepRequest:
        said = framed("faults", self.best.critique)
        turns = (
            ChatMessage(role="assistant", content=self.best.answer.text),
            ChatMessage(role="user", content=REVISE.format(data=NO_ORDERS, faults=said)),
        )
        return _written(self._ctx, self._job, self._ask, turns)


def _written(ctx: Context, job: Job, ask: _CriticInput, more: tuple[ChatMessage, ...] = ()) -> StepRequest:
    """A draft, or with `more` the next one. What may be replaced is not streamed."""
    if ask.agent is None and not more:
        return request_of(job).model_copy(update={"stream": job.stream and not ask.rounds})
    turns = question(job)
    if ask.agent is None:
        return chat(job, (*turns, *more), format=job.format)
    turns = turns[1:] if job.system and turns[0].role == "system" else turns  # an agent is told the job's `system` beside its own words
    stream = job.stream and not ask.rounds
    return ctx.request(job, ask.agent, *turns, *more, stream=stream, **({"format": job.format} if job.format else {}))


async def critic(ctx: Context, job: Job, ask: _CriticInput) -> Answer:
    """The best draft, not the last one."""
    draft = await ask_with_tools(ctx, ask.agent, _written(ctx, job, ask))
    ctx.best(draft)
    ctx.beside("first draft", draft.text, Spent.of(ctx.so_far.usage, ctx.so_far.seconds), same=True)
    if not readable(draft):
        return explained(draft, passed=False, stopped="unreadable", drafts=[])
    work = _Work(ctx, job, ask, draft)
    stop_at_limit(*await ctx.in_time(_TIME * ctx.seconds, work.run()))
    return work.answer()


def likely_calls(job: Job, ask: _CriticInput) -> Sequence[int]:
    """A draft and its judgement; a revision and its judgement a round."""
    return [0, *[2_000] * (ask.judge is not None), *[3_000, *[3_000] * (ask.judge is not None)] * ask.rounds]


CRITIC = Pattern("critic", 1, critic, _CriticInput, likely_calls=likely_calls, limits=Limits(calls=40, steps=60))
