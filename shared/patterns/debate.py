"""debate: several answer, read each other, and answer again; the majority of the last round is the answer.

When: a question has one short right answer, models get it right more often than wrong, and a reason can convince.
Not when: the answer is a long text (ensemble), or votes alone do as well for less (vote): mere copying moves nothing.
Options: `answer` (text; number, choice with `choices`, json), `size` (3 debaters), `rounds` (2, the first answers among them),
`topology` (`auto`: each reads all others, above three of them only two neighbours; `ring`, `full`), `agents` (who debates, in turns; else
the job's model, sampled), `closing_agent` (writes the answer from the debate; else it is the short answer itself).
Cost: size * rounds calls, depth rounds; size calls where all agree at once; + 1 with `closing_agent`.
Try: tutti submit --pattern debate "Which is heavier, a litre of oil or of water?"

    prompt ─┬─► answer ─┐       ┌─► answer ─┐
            ├─► answer ─┼─ read ┼─► answer ─┼─► majority ─► answer
            └─► answer ─┘       └─► answer ─┘
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from pydantic import Field

from shared.contracts.agents import Reference
from shared.contracts.chat import Answer, Options
from shared.contracts.job import Job
from shared.contracts.limits import Limits
from shared.contracts.step import StepRequest
from shared.framing import NO_ORDERS, framed
from shared.patterns.comparison import Spent
from shared.patterns.context import Context, StepError, chat, explained, stop_at_limit
from shared.patterns.control import Control, decide, narrowed
from shared.patterns.final_answer import FinalAnswer
from shared.patterns.port import Pattern
from shared.patterns.samples import TEMPERATURE, question
from shared.patterns.single import request_of

_ROOM = 320
_TIME = 0.7
"""Of the job's whole time, what the rounds may take together."""
_FIRST = "Reason briefly in `reasoning`, then give in `answer` {what}, and nothing else."
_WHAT = {"number": "the number", "choice": "one of the choices", "text": "the answer, as short as it can be", "json": "one JSON object"}
_AGAIN = """You answered:
{own}
Others answered:
{peers}
{data}
Check each reason, and your own. Keep your answer where it is right, change it where another one is. {first}"""
_CLOSE = """Several people debated this:
{shown}
{data}
Most of them answer: {answer}
Write the answer to the question."""


class DebateInput(FinalAnswer):
    """How many debate, how often, and who reads whom."""

    size: int = Field(default=3, ge=2, le=8)
    rounds: int = Field(default=2, ge=1, le=5)
    topology: Literal["auto", "ring", "full"] = "auto"
    agents: tuple[Reference, ...] = Field(default=(), max_length=8)
    closing_agent: Reference | None = None


class _Opinion(Control):
    """What a debater decides."""

    reasoning: str = Field(default="", max_length=400)
    answer: str = Field(min_length=1, max_length=200)


class _Stance(NamedTuple):
    """What a seat answers in a round. `key`: its normal form, by which answers are counted."""

    key: str
    answer: str
    reasoning: str

    @property
    def shown(self) -> str:
        return f"{self.reasoning}\nAnswer: {self.answer}"


Round = list[_Stance | None]
"""By seat; None where no answer could be read: it is no vote, and nobody is shown it."""


def peers_of(seat: int, ask: DebateInput) -> list[int]:
    """Whose answers a seat reads, never its own."""
    if ask.topology == "ring" or (ask.topology == "auto" and ask.size > 3):
        return sorted({(seat - 1) % ask.size, (seat + 1) % ask.size} - {seat})
    return [other for other in range(ask.size) if other != seat]


def counted(said: Round, before: Mapping[str, int] | None = None) -> dict[str, list[int]]:
    """Answer → its seats; most first, then those that more had `before`, then by the lowest seat: never by who came first."""
    votes: dict[str, list[int]] = {}
    for seat, one in enumerate(said):
        if one is not None:
            votes.setdefault(one.key, []).append(seat)
    known = before or {}
    return dict(sorted(votes.items(), key=lambda vote: (-len(vote[1]), -known.get(vote[0], 0), vote[1][0])))


def verdict(rounds: Sequence[Round]) -> tuple[_Stance, dict[str, list[int]]]:
    """The answer of the last round that more than half can be read of, else of the one that most can, as the first who gave it worded it;
    and that round's votes. The first round breaks ties. ValueError where nobody ever answered.
    """
    first = {key: len(seats) for key, seats in counted(rounds[0]).items()}
    read = [len(said) - said.count(None) for said in rounds]
    last = max(range(len(rounds)), key=lambda number: (2 * read[number] > len(rounds[0]) or read[number] / len(rounds[0]), number))
    votes = counted(rounds[last], first)
    for seat in next(iter(votes.values()), []):
        if (said := rounds[last][seat]) is not None:
            return said, votes
    raise ValueError("nobody answered")


def _keys(said: Round) -> list[str | None]:
    return [None if one is None else one.key for one in said]


async def debate(ctx: Context, job: Job, ask: DebateInput) -> Answer:
    """The majority's answer; of the single call where nobody gives one that can be read."""
    rounds: list[Round] = []
    took = Spent()
    for number in range(ask.rounds):
        last: Round = rounds[-1] if rounds else [None] * ask.size
        seats = (_said(ctx, job, ask, (number, seat), last) for seat in range(ask.size))
        ends = await ctx.in_time(_TIME * ctx.seconds / ask.rounds, *seats)
        rounds.append([end if isinstance(end, _Stance) else None for end in ends])
        if not number:
            took = Spent.of(ctx.so_far.usage, ctx.so_far.seconds)
        if any(rounds[0]):
            _note_baseline(ctx, job, ask, rounds, took)
        if any(map(any, rounds)):
            ctx.best(_explained(rounds, Answer(text=verdict(rounds)[0].answer)))
        stop_at_limit(*ends)
        keys = _keys(rounds[-1])
        if len({*keys}) == 1 or (number and keys == _keys(last)):  # all agree (or all are silent); or nobody has changed anything
            break
    if not any(map(any, rounds)):
        return await ctx.ask(request_of(job))
    return await _closed(ctx, job, ask, rounds)


def _note_baseline(ctx: Context, job: Job, ask: DebateInput, rounds: Sequence[Round], took: Spent) -> None:
    """What the majority of the first round says."""
    (first, _), (last, _) = verdict(rounds[:1]), verdict(rounds)
    bare = ask.closing_agent is None and job.format is None
    ctx.beside("round-0 vote", first.answer, took, same=bare and first.key == last.key)


async def _said(ctx: Context, job: Job, ask: DebateInput, at: tuple[int, int], last: Round) -> _Stance:
    """What this seat answers in this round. Raises StepError where it can't be read."""
    number, seat = at
    own, words = last[seat], _FIRST.format(what=_WHAT[ask.answer])
    if number:
        peers = [peer for other in peers_of(seat, ask) if (peer := last[other]) is not None]
        shown = [framed(place, peer.shown) for place, peer in enumerate(ctx.shuffled(peers, "peers", number, seat), 1)]
        said = "(nothing that could be read)" if own is None else framed("yours", own.answer)
        words = _AGAIN.format(own=said, peers="\n".join(shown) or "(nobody else)", data=NO_ORDERS, first=words)
    options = {"seed": ctx.seed("seat", number, seat), "max_tokens": _ROOM}
    agent = ask.agents[seat % len(ask.agents)] if ask.agents else None
    warm = {"temperature": TEMPERATURE} if agent is None and job.options.temperature is None else {}
    kind = narrowed(_Opinion, "answer", ask.choices) if ask.choices else _Opinion
    request = _request(ctx, job, agent, words, options | warm)
    opinion = await decide(ctx, request, kind, lambda one: None if _key(ask, one) else "`answer` is none that can be read")
    return _Stance(_key(ask, opinion), opinion.answer, opinion.reasoning)


def _key(ask: DebateInput, opinion: _Opinion) -> str:
    return ask.read(f"Answer: {' '.join(opinion.answer.split())}") or ""


def _request(ctx: Context, job: Job, agent: str | None, words: str, options: dict[str, Any]) -> StepRequest:
    turns = question(job, words)
    if agent is None:
        return chat(job, turns, options=job.options.changed(**options))
    turns = turns[1:] if job.system and turns[0].role == "system" else turns  # an agent is told the job's `system` beside its own words
    return ctx.request(job, agent, *turns, options=Options(**options))


async def _closed(ctx: Context, job: Job, ask: DebateInput, rounds: Sequence[Round]) -> Answer:
    """The majority's answer, or what is written from it; that is also asked for where the job wants a form that a short answer lacks."""
    said, _ = verdict(rounds)
    if ask.closing_agent is not None or job.format is not None:
        spoken = [one for one in rounds[-1] if one is not None] or [said]
        shown = "\n".join(framed(place, one.shown) for place, one in enumerate(spoken, 1))
        request = _request(ctx, job, ask.closing_agent, _CLOSE.format(shown=shown, data=NO_ORDERS, answer=said.answer), {})
        form = {"format": job.format} if job.format is not None else {}
        try:
            return _explained(rounds, await ctx.ask(request.model_copy(update={"stream": job.stream, **form})))
        except StepError as error:
            stop_at_limit(error.failure)
    return _explained(rounds, Answer(text=said.answer))


def _explained(rounds: Sequence[Round], answer: Answer) -> Answer:
    """Beside the answer: every round's votes, what the first round alone would have answered, and who is of another opinion."""
    said, _ = verdict(rounds)
    spoken = [one for one in rounds if any(one)]
    others = [one for one in spoken[-1] if one is not None and one.key != said.key]
    return explained(
        answer,
        rounds=len(rounds),
        votes=[{key: len(seats) for key, seats in counted(one).items()} for one in rounds],
        unread=[one.count(None) for one in rounds],
        changed=[sum(a != b for a, b in zip(_keys(one), _keys(two), strict=True)) for one, two in pairwise(rounds)],
        first_vote=next(iter(counted(spoken[0]))),
        final_vote=said.key,
        minority=[{"answer": one.answer, "reasoning": one.reasoning} for one in others],
    )


def likely_calls(job: Job, ask: DebateInput) -> Sequence[int]:
    """A call a debater and round; later ones read the others."""
    read = 600 * len(peers_of(0, ask))
    return [*[100] * ask.size, *[400 + read] * (ask.size * (ask.rounds - 1)), *[600 * ask.size] * (ask.closing_agent is not None)]


DEBATE = Pattern("debate", 1, debate, DebateInput, likely_calls=likely_calls, limits=Limits(calls=64, steps=96))
