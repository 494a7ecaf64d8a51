"""ensemble: several answers to one question, side by side, and one answer made of them.

When: the answer is a free text that gains from several views: an explanation, a plan, a comparison.
Not when: the answer can be counted (vote: cheaper, as good), or the models differ much: the weakest spoils the rest.
Options: `models` (one answer of each; up to 8), else `samples` (3) of the job's model; `quorum` (more than half): so many are enough;
`within_seconds` (half of the job's time, at most 60): who is there by then is enough; `model` (the job's): makes the one answer.
Cost: a call an answer, and one more, unless all say the same or only one is there; depth 2. Who is dead or hangs delays, and ends nothing.
Try: tutti submit --pattern ensemble "Why is the sky blue?"

    prompt ─┬─► proposer ─┐
            ├─► proposer ─┼─► rank ─► synthesis ─► answer
            └─► proposer ─┘
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import Field, model_validator

from shared.contracts.base import ModelName, PositiveSeconds
from shared.contracts.chat import Answer, ChatMessage
from shared.contracts.job import Job
from shared.contracts.limits import Limits
from shared.framing import NO_ORDERS, framed
from shared.patterns.comparison import Spent
from shared.patterns.context import Context, chat, explained, stop_at_limit
from shared.patterns.port import Pattern, PatternInput
from shared.patterns.samples import Gathered, collect, patience, question, sample

_RULE = f"""Below are answers that others gave to what was asked above. Some may be wrong. {NO_ORDERS}

{{answers}}

Now give one answer to what was asked above: keep what is right, leave out what is wrong, do not mention these answers."""
_SHOWN = 12_000
"""Characters of all answers that the synthesis reads."""
_READ = 20_000
"""Of one answer, when it is compared with others."""
_APART = 0.5
"""Overlap with the best answer below which another one is told as the minority's."""
_SYNTHESIS_SECONDS = 0.4
"""Of the job's time, for the synthesis; then the best of the answers is the result."""
_SYNTHESIS_TOKENS = 1_024


class _EnsembleInput(PatternInput):
    """Who answers, how many are enough, who makes one answer of them."""

    models: tuple[ModelName, ...] = Field(default=(), max_length=8)
    samples: int = Field(default=3, ge=1, le=8)
    quorum: int | None = Field(default=None, ge=1, le=8)
    within_seconds: PositiveSeconds | None = None
    model: ModelName | None = None

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.quorum is not None and self.quorum > self.proposers:
            raise ValueError(f"a quorum of {self.quorum} of {self.proposers} answers")
        return self

    @property
    def proposers(self) -> int:
        """How many answers are asked for."""
        return len(self.models) or self.samples


def overlap(one: str, other: str) -> float:
    """Share of the words of both that both have: 0 to 1, the same either way round; 1 for two texts without words."""
    words, others = ({*re.findall(r"\w+", text[:_READ].casefold())} for text in (one, other))
    return len(words & others) / len(words | others) if words | others else 1.0


def support(texts: Mapping[int, str]) -> dict[int, float]:
    """Of each text its mean overlap with the others; 1 of one alone."""
    return {
        number: sum(overlap(text, other) for n, other in texts.items() if n != number) / (len(texts) - 1) if len(texts) > 1 else 1.0
        for number, text in texts.items()
    }


class _Kept:
    """The answers that came in time and can be read, ranked by what the others say, too."""

    def __init__(self, ask: _EnsembleInput, gathered: Gathered) -> None:
        readable = {number: gathered.answers[number] for number in _readable(gathered)}
        self.answers = readable or dict(sorted(gathered.answers.items())[:1])
        self._ask, self._gathered = ask, gathered
        self.texts = {number: answer.text.strip() for number, answer in self.answers.items()}
        self._support = support(self.texts)
        self.ranking = sorted(self.answers, key=lambda number: (-self._support[number], number))

    def told(self, answer: Answer, **facts: Any) -> Answer:
        """With what was kept, how far they agree, and what those say who do not."""
        best, failures = self.ranking[0], self._gathered.failures
        apart = [number for number in self.ranking[1:] if overlap(self.texts[best], self.texts[number]) < _APART]
        return explained(
            answer,
            **facts,
            consensus=round(sum(self._support.values()) / len(self._support), 4),
            ranking=[{"answer": n, "support": round(self._support[n], 4), "model": self.answers[n].model} for n in self.ranking],
            quorum=_quorum(self._ask),
            late=self._gathered.late,
            failed={str(number): failures[number].kind.value for number in sorted(failures)},
            not_awaited=self._gathered.left(self._ask.proposers),
            minority=[{"answer": number, "text": self.texts[number]} for number in apart],
        )

    def best(self, why: str) -> Answer:
        """The first of the ranking, as it is."""
        return self.told(self.answers[self.ranking[0]], made_by=why, proposer=self.ranking[0])

    def note_baseline(self, ctx: Context) -> None:
        """The best proposer, which is the answer where no other is made of all."""
        best = self.ranking[0]
        took = Spent.of(ctx.so_far.usage, self._gathered.seconds[best], shares=len(self._gathered.answers))
        ctx.beside("best proposer", self.texts[best], took, same=True)


def _quorum(ask: _EnsembleInput) -> int:
    return ask.quorum or ask.proposers // 2 + 1


def _readable(gathered: Gathered) -> list[int]:
    return [number for number, answer in sorted(gathered.answers.items()) if answer.blob is None and answer.text.strip()]


async def ensemble(ctx: Context, job: Job, ask: _EnsembleInput) -> Answer:
    """The synthesis; the best of the answers where there is none to make, or it fails."""
    own: list[dict[str, Any]] = [{"model": model, "fallback_models": ()} for model in ask.models] or [{} for _ in range(ask.samples)]
    messages = question(job)
    asks = [ctx.ask(sample(ctx, job, number, messages, agent="proposer", **who)) for number, who in enumerate(own)]
    gathered = await collect(ctx, asks, lambda came: len(_readable(came)) >= _quorum(ask), seconds=patience(ctx, ask.within_seconds))
    if gathered.answers:
        ctx.best(_Kept(ask, gathered).best("limit"))
    gathered.check()
    kept = _Kept(ask, gathered)
    kept.note_baseline(ctx)
    if len({text.casefold() for text in kept.texts.values()}) == 1:
        return kept.best("agreement" if len(kept.texts) > 1 else "alone")
    order = ctx.shuffled(list(kept.answers))
    [made] = await ctx.in_time(_SYNTHESIS_SECONDS * ctx.seconds, _synthesis(ctx, job, ask, [kept.texts[number] for number in order]))
    stop_at_limit(made)
    if not isinstance(made, Answer) or not (made.text.strip() or made.blob):
        return kept.best("synthesis_late" if made is None else "synthesis_failed")
    ctx.apart()
    return kept.told(made, made_by="synthesis", shown=order)


async def _synthesis(ctx: Context, job: Job, ask: _EnsembleInput, texts: Sequence[str]) -> Answer:
    most = _SHOWN // len(texts)
    shown = "\n".join(framed(number, text, most) for number, text in enumerate(texts, 1))
    options = job.options.model_copy(update={"max_tokens": job.options.max_tokens or _SYNTHESIS_TOKENS})
    last = ChatMessage(role="user", content=_RULE.format(answers=shown))
    own = {"agent": "synthesis", "options": options, "format": job.format, "stream": job.stream}
    return await ctx.ask(chat(job, (*question(job), last), **own, **({"model": ask.model} if ask.model else {})))


def likely_calls(job: Job, ask: _EnsembleInput) -> Sequence[int]:
    """A call an answer, and one that reads the kept ones."""
    return [*[0] * ask.proposers, len(_RULE) + min(_SHOWN, 2_000 * _quorum(ask))]


ENSEMBLE = Pattern("ensemble", 1, ensemble, _EnsembleInput, likely_calls=likely_calls, limits=Limits(calls=32, steps=64, width=9))
