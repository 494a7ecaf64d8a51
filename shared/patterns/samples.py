"""Several samples of one question: how each is asked for, and how they are gathered until enough is known.

The order of arrival decides only when it is enough, never what it means: samples are told apart by their number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.contracts.chat import Answer, ChatMessage, Operation
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import Job
from shared.contracts.step import StepRequest
from shared.patterns.context import Branch, Context, StepError, chat

TEMPERATURE = 0.7
"""Of samples, where the job says nothing else: at 0 all would be one."""
SAMPLE_TOKENS = 512
"""Of one sample, where the job says nothing else: a weak model writes until it is stopped."""
_MOST_SECONDS = 60.0
_LATE = "late"


def question(job: Job, rule: str = "") -> tuple[ChatMessage, ...]:
    """The job's conversation as a chat, with a rule behind the last words of its user."""
    turns = job.turns
    if job.kind is Operation.GENERATE:
        turns = (*turns, ChatMessage(role="user", content=job.prompt or ""))
    return behind(turns, rule)


def behind(turns: tuple[ChatMessage, ...], words: str) -> tuple[ChatMessage, ...]:
    """These words behind the last ones of the user: some templates know no two turns of his in a row, nor any of tools."""
    if not words:
        return turns
    for at in range(len(turns) - 1, -1, -1):
        if turns[at].role == "user":
            said = turns[at].model_copy(update={"content": f"{turns[at].content}\n\n{words}"})
            return (*turns[:at], said, *turns[at + 1 :])
    return (*turns, ChatMessage(role="user", content=words))


def sample(ctx: Context, job: Job, number: int, messages: tuple[ChatMessage, ...], **own: Any) -> StepRequest:
    """Sample `number` of the question, with a seed of its own: of the job's, or of the one that the job names."""
    said = job.options
    seed = ctx.seed("sample", number) if said.seed is None else (said.seed + number) % 2**31
    update = {"seed": seed, "temperature": TEMPERATURE if said.temperature is None else said.temperature}
    options = said.model_copy(update={**update, "max_tokens": said.max_tokens or SAMPLE_TOKENS})
    return chat(job, messages, **{"agent": "sample", "options": options, "format": job.format, **own})


@dataclass(slots=True)
class Gathered:
    """What has come, by number. `late`: the time was over before it was enough."""

    answers: dict[int, Answer] = field(default_factory=dict)
    failures: dict[int, Failure] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    """From the job's acceptance to each answer."""
    late: bool = False

    def left(self, count: int) -> list[int]:
        """The numbers below `count` of which nothing has come."""
        return [number for number in range(count) if number not in self.answers and number not in self.failures]

    @property
    def stopped(self) -> list[int]:
        """The numbers of those that a limit of the job has stopped."""
        return [number for number in sorted(self.failures) if self.failures[number].kind is FailureKind.LIMIT]

    def check(self) -> None:
        """Raises StepError where a limit of the job stopped one, or all have failed: of the first."""
        if self.stopped or not self.answers:
            raise StepError(self.failures[(self.stopped or sorted(self.failures))[0]])


async def collect(
    ctx: Context, branches: Sequence[Branch], enough: Callable[[Gathered], bool], *, seconds: float, width: int = 1_000
) -> Gathered:
    """The branches, at most `width` side by side and no more than the job may have open, until it is `enough`, or all have ended, or
    `seconds` have passed and one answer is there. What still runs then is stopped.
    """
    gathered, pool = Gathered(), ctx.pool(min(width, ctx.limits.width or width))
    pool.add(_LATE, ctx.sleep(seconds))
    for number, branch in enumerate(branches):
        pool.add(number, branch)
    while gathered.left(len(branches)) and not (gathered.late and gathered.answers) and not enough(gathered):
        ended = await pool.next()
        assert ended is not None, "a branch is left"
        if ended.key == _LATE:
            gathered.late = True
        elif ended.failure is not None:
            gathered.failures[ended.key] = ended.failure
        else:
            gathered.answers[ended.key], gathered.seconds[ended.key] = ended.value, ctx.so_far.seconds
    await pool.close()
    return gathered


def patience(ctx: Context, given: float | None) -> float:
    """Seconds to wait for samples where the input says nothing: half of what the job has, at most a minute."""
    return min(_MOST_SECONDS, ctx.seconds / 2) if given is None else given
