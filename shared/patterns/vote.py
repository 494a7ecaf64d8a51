"""vote: several samples of one question, and the answer that most of them give.

When: the answer is short and can be compared (a number, a choice, a name, JSON), and one try is right more often than any one wrong answer.
Not when: the answer is a free text (ensemble); the model is mostly wrong: then more votes make it worse.
Options: `samples` (5), `answer` (text; number, choice with `choices`, json), `only_answer` (false: the text of the first sample that gives
the winning answer; true: that answer alone), `at_once` (all), `within_seconds` (half of the job's time, at most 60: who is there votes).
Cost: at most `samples` calls, depth 1; asking stops when no sample that is still out can change the winner.

    prompt ─┬─► sample ─┐
            ├─► sample ─┼─► majority ─► answer
            └─► sample ─┘
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pydantic import Field

from shared.contracts.base import PositiveSeconds
from shared.contracts.chat import Answer
from shared.contracts.job import Job
from shared.contracts.limits import Limits
from shared.patterns.comparison import Spent
from shared.patterns.context import Context, explained
from shared.patterns.final_answer import FinalAnswer
from shared.patterns.port import Pattern
from shared.patterns.samples import Gathered, collect, patience, question, sample


class _VoteInput(FinalAnswer):
    """How many samples, and what is counted."""

    samples: int = Field(default=5, ge=1, le=32)
    only_answer: bool = False
    at_once: int = Field(default=32, ge=1, le=32)
    within_seconds: PositiveSeconds | None = None


Votes = Mapping[int, str]
"""Sample number → the normal form of its answer; who cannot be read has none."""


def leader(votes: Votes) -> str | None:
    """The answer with most votes; of several, the one of the lowest sample number."""
    counts = Counter(votes.values())
    return min(counts, key=lambda answer: (-counts[answer], _first(votes, answer)), default=None)


def certain(votes: Votes, left: Collection[int]) -> bool:
    """Whether the leader stays the leader, whatever the samples that are left say."""
    ahead, counts = leader(votes), Counter(votes.values())
    if ahead is None or not left:
        return not left
    for other in {*counts, None} - {ahead}:  # None: an answer that nobody has given yet
        most = (counts[other] if other else 0) + len(left)
        first = min(*left, _first(votes, other)) if other else min(left)
        if most > counts[ahead] or (most == counts[ahead] and first < _first(votes, ahead)):
            return False
    return True


def _first(votes: Votes, answer: str) -> int:
    return min(number for number, said in votes.items() if said == answer)


def votes_of(ask: FinalAnswer, gathered: Gathered) -> dict[int, str]:
    """Of the answers that can be read. One by reference cannot."""
    read = {number: ask.read(answer.text) for number, answer in sorted(gathered.answers.items()) if answer.blob is None}
    return {number: said for number, said in read.items() if said is not None}


def tally(votes: Votes) -> list[dict[str, Any]]:
    """For the explanation: the answers, most votes first."""
    counts = Counter(votes.values())
    order = sorted(counts, key=lambda answer: (-counts[answer], _first(votes, answer)))
    return [{"answer": said, "count": counts[said], "samples": [n for n in votes if votes[n] == said]} for said in order]


def elected(ask: _VoteInput, gathered: Gathered) -> Answer:
    """The result of what has come: a sample of the leading answer, or, when none can be read, the first that says anything."""
    votes, answers = votes_of(ask, gathered), gathered.answers
    winner = leader(votes)
    says = [number for number in sorted(answers) if answers[number].text.strip() or answers[number].blob is not None]
    chosen = min(says or answers) if winner is None else _first(votes, winner)
    answer = answers[chosen]
    if ask.only_answer and winner is not None:
        answer = answer.model_copy(update={"text": winner, "thinking": None})
    return explained(
        answer,
        winner=winner,
        sample=chosen,
        samples=ask.samples,
        votes=tally(votes),
        unread=[number for number in sorted(answers) if number not in votes],
        failed={str(number): gathered.failures[number].kind.value for number in sorted(gathered.failures)},
        not_awaited=gathered.left(ask.samples),
    )


def _note_baseline(ctx: Context, ask: _VoteInput, gathered: Gathered) -> None:
    """The first sample: what one call would have answered. No other one in its place: who came before the end has helped to decide it."""
    first = gathered.answers.get(0)
    if first is not None:
        votes = votes_of(ask, gathered)
        took = Spent.of(ctx.so_far.usage, gathered.seconds[0], shares=len(gathered.answers))
        ctx.beside("first sample", first.text, took, same=0 in votes and votes[0] == leader(votes))


async def vote(ctx: Context, job: Job, ask: _VoteInput) -> Answer:
    """The answer of most samples."""
    messages = question(job, ask.rule(job))
    form = "json" if ask.answer == "json" and job.format is None else job.format
    stream = job.stream and ask.samples == 1 and not ask.only_answer
    asks = [ctx.ask(sample(ctx, job, number, messages, format=form, stream=stream)) for number in range(ask.samples)]

    def enough(gathered: Gathered) -> bool:
        if gathered.answers:
            ctx.best(elected(ask, gathered))
            _note_baseline(ctx, ask, gathered)
        return certain(votes_of(ask, gathered), [*gathered.left(ask.samples), *gathered.stopped])

    gathered = await collect(ctx, asks, enough, seconds=patience(ctx, ask.within_seconds), width=ask.at_once)
    if not gathered.answers or not enough(gathered):
        gathered.check()
    return elected(ask, gathered)


def likely_calls(job: Job, ask: _VoteInput) -> Sequence[int]:
    """A call a sample, each with the rule."""
    return [len(ask.rule(job))] * ask.samples


VOTE = Pattern("vote", 1, vote, _VoteInput, likely_calls=likely_calls, limits=Limits(calls=64, width=32))
