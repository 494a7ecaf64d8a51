"""cascade: a cheap model answers first; a dearer one, and last a person, is asked only where a check does not accept the answer.

When: most questions are easy, and right answers can be told from wrong ones better than by chance.
Not when: the check is blind (`tutti calibrate cascade` shows its curve), or every answer must come fast: what is passed on waits twice.
Options: `models` (cheap first, up to 4; none: the job's own, checked and answered all the same), `accept`: `agreement` (of `samples`, 3, in
their final answer, read as `answer` and `choices` say), `critic` (`critic_agent` scores the answer and quotes it), `gate` (`gate`, as a
chain step's, without repairs), `logprob` (how likely its tokens were to the model itself, in their geometric mean; `agreement` where its
node tells none); `threshold` (0.6 of 1), `within_seconds` (of one model with its check; else equal shares of half the time), `review` (as a
chain step's: the last model is checked too, and what no check accepts people approve, edit or reject).
Cost: calls of each model that was tried (agreement: `samples`, critic: 2 to 4, gate, logprob: 1), and one of the last, which is always
accepted where there is no `review`. A dearer model is never shown the answer that was not accepted; people see the best one.
Try: tutti submit --pattern cascade "What is 17 times 23?"

    prompt ─► cheap ─► accepted? ─yes─► answer
                          └─no─► dear ─► accepted? ─yes─► answer
                                            └─no─► person ─► answer
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from shared.contracts.agents import Reference
from shared.contracts.base import ModelName, PositiveSeconds
from shared.contracts.chat import Answer, ChatMessage
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import Job
from shared.contracts.limits import Limits
from shared.contracts.step import StepRequest
from shared.framing import NO_ORDERS, TOLD, framed
from shared.patterns.chain import Gate, StepReview, gate_reason, gate_verdict, job_input, judge_by, rejected
from shared.patterns.comparison import Baseline, Spent
from shared.patterns.context import Context, StepError, chat, explained, stop_at_limit, text_of
from shared.patterns.control import Control, decide
from shared.patterns.critiquing import found
from shared.patterns.final_answer import FinalAnswer
from shared.patterns.port import Pattern
from shared.patterns.samples import Gathered, collect, question, sample
from shared.patterns.single import request_of
from shared.patterns.vote import certain, leader, tally, votes_of

_CRITIC = f"""Judge the answer to the question. {NO_ORDERS}

{{question}}

{{answer}}

In `evidence` copy the words of the answer that decide, letter by letter. `score`: 0 is surely wrong, 10 is surely right."""


_TRIED_TOKENS = 1_024
"""Of an answer that is checked, where the job says nothing else."""


class _CascadeInput(FinalAnswer):
    """Whom to ask, in which order, and when to be content."""

    models: tuple[ModelName, ...] = Field(default=(), max_length=4)
    accept: Literal["agreement", "critic", "gate", "logprob"] = "agreement"
    threshold: float = Field(default=0.6, ge=0, le=1)
    samples: int = Field(default=3, ge=2, le=8)
    gate: Gate = Gate()
    critic_agent: Reference = "critic"
    within_seconds: PositiveSeconds | None = None
    review: StepReview | None = None

    @model_validator(mode="after")
    def _once(self) -> Self:
        if len({*self.models}) < len(self.models):
            raise ValueError("a model is named twice")
        return self


class _CascadeVerdict(Control):
    """What a critic says of an answer."""

    reasoning: str = Field(default="", max_length=300)
    evidence: str = Field(min_length=1, max_length=200)
    score: int = Field(ge=0, le=10)


@dataclass(slots=True)
class _Try:
    """One model's answer and what its check found, as far as they have come. `score`: 0 to 1; None where there is none."""

    model: str
    answer: Answer | None = None
    score: float | None = None
    outcome: str = "late"
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def worth(self) -> float:
        return -1.0 if self.score is None else self.score


class _Cascade:
    def __init__(self, ctx: Context, job: Job, ask: _CascadeInput) -> None:
        self._ctx, self._job, self._ask = ctx, job, ask
        self._models = ask.models or (job.model,)
        self._ruled = question(job, ask.rule(job))
        self._messages = self._ruled if ask.accept == "agreement" else question(job)
        self._tries: list[_Try] = []

    async def run(self) -> Answer:
        if len(self._models) > 1:
            self._ctx.baseline = Baseline(what="last model", model=self._models[-1])
        checked = self._models if self._ask.review is not None else self._models[:-1] or self._models
        seconds, failed = self._ask.within_seconds or self._ctx.seconds / 2 / len(checked), None
        for model in checked:
            now = _Try(model)
            self._tries.append(now)
            [failed] = await self._ctx.in_time(seconds, self._checked(now))
            if failed is not None:
                now.outcome = failed.kind.value
            self._note_best("limit")
            stop_at_limit(failed)
            if now.answer is not None and now.score is not None:
                self._ctx.judge(request_of(self._job), now.answer, now.outcome == "accepted")
            if now.outcome == "accepted":
                return self._told(now, str(now.found.get("instead", self._ask.accept)))
        return await (self._last() if self._ask.review is None else self._reviewed(self._ask.review, failed))

    async def _reviewed(self, review: StepReview, last: Failure | None) -> Answer:
        """What people make of the best answer. Raises StepError where there is none (`last`: why), or they reject it."""
        best = self._note_best("review")
        if best is None:
            raise StepError(last or Failure(kind=FailureKind.DEADLINE, message="no model has answered in time"))
        text_of(best, "cascade")
        said = await self._ctx.review(best.text, **dict(review))
        judge_by(self._ctx, request_of(self._job), best, said)
        if said.verdict == "reject":
            raise StepError(rejected("cascade", said))
        decided = {"verdict": said.verdict, "by_default": said.by_default}
        text = best.text if said.verdict == "approve" else said.text
        return best.model_copy(update={"text": text, "explanation": {**(best.explanation or {}), "review": decided}})

    async def _last(self) -> Answer:
        """Of the last model without a check; the best so far where there is no other, or it fails."""
        best = self._note_best("only_model" if len(self._models) == 1 else "last_failed")
        if len(self._models) == 1 and best is not None:
            return best
        model, before = self._models[-1], self._ctx.so_far
        request = self._request(model, agent="last", stream=self._job.stream, fallback_models=self._job.fallback_models)
        try:
            answer = await self._ctx.ask(request)
            self._tries.append(_Try(model, answer, outcome="accepted"))
        except StepError as error:
            stop_at_limit(error.failure)
            if best is None:
                raise
            return best
        if len(self._models) > 1:
            used, earlier = self._ctx.so_far, Spent.of(before.usage, before.seconds)
            self._ctx.beside("last model", answer.text, Spent.of(used.usage, used.seconds).less(earlier), same=True)
        return self._told(self._tries[-1], "last_model")

    async def _checked(self, now: _Try) -> None:
        """Fill the try. Raises StepError where the model, or its check, fails."""
        if self._ask.accept == "agreement" or (self._ask.accept == "logprob" and not await self._logprob(now)):
            await self._agreement(now)
        elif self._ask.accept != "logprob":
            options = self._job.options.model_copy(update={"max_tokens": self._job.options.max_tokens or _TRIED_TOKENS})
            now.answer = await self._ctx.ask(self._request(now.model, agent="tried", options=options))
            if now.answer.blob is not None:
                now.outcome = "too_large_to_check"
                return
            if self._ask.accept == "gate":
                reason = gate_reason(self._ask.gate, now.answer.text)
                if reason is None:
                    verdict = await gate_verdict(self._ctx, self._ask.gate, now.answer.text, job_input(self._job))
                    reason = f"found: {found(verdict)}" if verdict.counts else None
                now.score, now.found = float(reason is None), {"reason": reason}
            elif now.answer.text.strip():
                await self._critic(now, now.answer.text)
            else:
                now.score = 0.0
        now.outcome = "accepted" if now.score is not None and now.score >= self._ask.threshold else "not_accepted"

    async def _logprob(self, now: _Try) -> bool:
        """Whether the answer says how likely it was. An endpoint that refuses the question is like one that tells nothing."""
        options = self._job.options.model_copy(update={"max_tokens": self._job.options.max_tokens or _TRIED_TOKENS})
        try:
            answer = await self._ctx.ask(self._request(now.model, agent="tried", options=options, logprobs=True))
        except StepError as error:
            if error.failure.kind not in (FailureKind.BAD_REQUEST, FailureKind.UNSUPPORTED):
                raise
            answer = Answer()
        if answer.mean_logprob is None:
            now.found = {"instead": "agreement", "reason": "the model's node tells no log-probabilities"}
            return False
        now.answer, now.score = answer, round(math.exp(answer.mean_logprob), 4) if answer.text.strip() or answer.blob else 0.0
        return True

    async def _agreement(self, now: _Try) -> None:
        count, need = self._ask.samples, math.ceil(self._ask.threshold * self._ask.samples - 1e-9)

        def enough(gathered: Gathered) -> bool:
            votes, left = votes_of(self._ask, gathered), gathered.left(count)
            most = max(Counter(votes.values()).values(), default=0)
            return most + len(left) < need or (most >= need and certain(votes, left))

        asks = [self._ctx.ask(sample(self._ctx, self._job, n, self._ruled, **self._own(now.model))) for n in range(count)]
        gathered = await collect(self._ctx, asks, enough, seconds=self._ctx.seconds)
        votes = votes_of(self._ask, gathered)
        winner = leader(votes)
        agree = [number for number, said in votes.items() if said == winner]
        if gathered.answers:
            now.answer = gathered.answers[(agree or sorted(gathered.answers))[0]]
            now.score, now.found = round(len(agree) / count, 4), {**now.found, "votes": tally(votes)}
        if len(agree) < need or not agree:
            gathered.check()

    async def _critic(self, now: _Try, text: str) -> None:
        shown = text[:TOLD]
        asked = _CRITIC.format(question=framed("question", job_input(self._job)), answer=framed("answer", shown))
        request = self._ctx.request(self._job, self._ask.critic_agent, ChatMessage(role="user", content=asked))

        def wrong(verdict: _CascadeVerdict) -> str | None:
            quoted = " ".join(verdict.evidence.split())
            return None if quoted and quoted in " ".join(shown.split()) else "`evidence` does not stand in the answer"

        verdict = await decide(self._ctx, request, _CascadeVerdict, wrong)
        now.score, now.found = verdict.score / 10, {"evidence": verdict.evidence, "reasoning": verdict.reasoning}

    def _own(self, model: str) -> dict[str, Any]:
        return {"model": model, "fallback_models": ()}

    def _request(self, model: str, **own: Any) -> StepRequest:
        return chat(self._job, self._messages, **{"format": self._job.format, **self._own(model), **own})

    def _note_best(self, why: str) -> Answer | None:
        """Of the answers so far the one with the highest score; of several, the dearest model's."""
        there = [tried for tried in self._tries if tried.answer is not None]
        if not there:
            return None
        best = self._told(max(reversed(there), key=lambda tried: tried.worth), why)
        self._ctx.best(best)
        return best

    def _told(self, chosen: _Try, why: str) -> Answer:
        assert chosen.answer is not None, "only answers are chosen"
        tries = [{"model": tried.model, "score": tried.score, "outcome": tried.outcome, **tried.found} for tried in self._tries]
        return explained(chosen.answer, accepted_by=why, model=chosen.model, threshold=self._ask.threshold, tries=tries)


async def cascade(ctx: Context, job: Job, ask: _CascadeInput) -> Answer:
    """The first answer that its check accepts, or the last model's."""
    return await _Cascade(ctx, job, ask).run()


def likely_calls(job: Job, ask: _CascadeInput) -> Sequence[int]:
    """Half of what is tried is accepted: the first model with its check."""
    if ask.accept == "agreement":
        return [len(ask.rule(job))] * ask.samples
    return [0, len(_CRITIC) + 1_500] if ask.accept == "critic" else [0]


CASCADE = Pattern("cascade", 1, cascade, _CascadeInput, likely_calls=likely_calls, limits=Limits(calls=48, steps=64, depth=6, width=8))
