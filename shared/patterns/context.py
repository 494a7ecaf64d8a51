"""What a pattern sees: plain coroutines over a context. Nothing here knows Kafka, time or chance.

A pattern awaits commands (`ask`, `gather`, `sleep`, `review`, a pool's `next`); the run drives it and resumes it with recorded outcomes in
recorded order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Coroutine, Generator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from random import Random
from typing import Any, Literal, NamedTuple

from pydantic_core import to_json

from shared.agents.beliefs import Judgement
from shared.agents.cards import applied
from shared.agents.features import query_of
from shared.agents.suiting import Means, chosen
from shared.contracts.agents import PinnedTool, Team
from shared.contracts.base import DAY_SECONDS, PriorityClass
from shared.contracts.chat import Answer, ChatMessage, Operation, Options
from shared.contracts.conversation import Memory
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import Job, Needs
from shared.contracts.limits import Limits
from shared.contracts.review import Decision, ReviewTerms
from shared.contracts.step import StepRequest
from shared.contracts.usage import Usage
from shared.model_names import canonical
from shared.patterns.comparison import COMPARED_CHARACTERS, SINGLE_ANSWER, Baseline, Spent


class StepError(Exception):
    """A step failed for good. A pattern may catch it and go on another way."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.failure,)


def stop_at_limit(*ends: Any) -> None:
    """At a limit nothing more may be asked, and the best answer so far is the result: the failure is raised on."""
    for end in ends:
        if isinstance(end, Failure) and end.kind is FailureKind.LIMIT:
            raise StepError(end)


def text_of(answer: Answer, whose: str) -> str:
    """The answer's text. Raises StepError (`too_large`) for one by reference, which a pattern cannot read."""
    if answer.blob is not None:
        message = f"{whose}: its answer of {answer.blob.size} bytes is too large to go on with"
        raise StepError(Failure(kind=FailureKind.TOO_LARGE, message=message))
    return answer.text


@dataclass(frozen=True, slots=True)
class Ask:
    """Command: do this step. Awaiting it gives the Answer or raises StepError."""

    request: StepRequest

    def __await__(self) -> Generator[Ask, Answer, Answer]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class Sleep:
    """Command: go on `seconds` after the sleep was recorded; durable, the due time is absolute from then on."""

    seconds: float

    def __await__(self) -> Generator[Sleep, None, None]:
        yield self


@dataclass(frozen=True, slots=True)
class Review:
    """Command: people decide. Durable: nothing is held meanwhile."""

    terms: ReviewTerms

    def __await__(self) -> Generator[Review, Decision, Decision]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class Gather:
    """Command: run the branches side by side."""

    branches: tuple[Branch, ...]
    quorum: int | None

    def __await__(self) -> Generator[Gather, list[Any], list[Any]]:
        return (yield self)


Branch = Ask | Sleep | Review | Gather | Coroutine[Any, Any, Any]


@dataclass(frozen=True, slots=True)
class Ended:
    """A member of a pool has ended, with a value or with the failure of its step."""

    key: Any
    value: Any = None
    failure: Failure | None = None


@dataclass(slots=True, eq=False)
class Pool:
    """Branches that run side by side, at most `width` at once (sleeps and reviews beside them), and end one by one.

    More may be added at any time; they begin, in the order of adding, while the pool is awaited. What still runs when the coroutine that
    awaits the pool ends is abandoned.
    """

    width: int
    waiting: deque[tuple[Any, Branch]] = field(default_factory=deque)
    """Not begun; the run takes from it."""

    def add(self, key: Any, branch: Branch) -> None:
        """`key` tells it apart when it ends."""
        self.waiting.append((key, branch))

    def next(self) -> Next:
        """Awaiting it gives the next `Ended` in the order of history; None when there is nothing left. An error of a branch that is not a
        step's is raised.
        """
        return Next(self)

    def close(self) -> Close:
        """Awaiting it abandons what still runs or waits. The pool is empty then, and may be used again."""
        return Close(self)


@dataclass(frozen=True, slots=True)
class Next:
    """Command: the next end in this pool."""

    pool: Pool

    def __await__(self) -> Generator[Next, Ended | None, Ended | None]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class Close:
    """Command: abandon what is in this pool."""

    pool: Pool

    def __await__(self) -> Generator[Close, None, None]:
        yield self


_NO_TOOLS: dict[str, Any] = {"tools": (), "tool_choice": "auto", "parallel_tool_calls": True}


def chat(job: Job, messages: tuple[ChatMessage, ...], **own: Any) -> StepRequest:
    """A chat on the job's behalf: its model, options and needs, but these messages instead of its own input, tools and format. `needs`
    goes over the job's field by field: what a step does not say stands.
    """
    given = {"capability": job.capability or "chat", "operation": Operation.CHAT, "prompt": None, "texts": (), "format": None, **_NO_TOOLS}
    if "needs" in own:
        own["needs"] = _over(job.needs, own["needs"])
    return StepRequest.of(job, **{**given, "messages": messages, "stream": False, **own})


EXPLANATION_BYTES = 32 * 1024
"""Of an answer's explanation, as JSON: it travels inside the settle event, beside an answer of `INLINE_BYTES`."""
_LONGEST, _SHORTEST = 2_000, 50
"""Characters of one text in it."""
_ITEMS = 200
"""Of one list in it."""


def explained(answer: Answer, **facts: Any) -> Answer:
    """The answer with its explanation: what the pattern counted, kept, rejected, as JSON. Long texts and lists in it are cut until it
    fits; one that cannot fit says only that. ValueError for what is not JSON.
    """
    longest = _LONGEST
    while longest >= _SHORTEST:
        shown = {name: _cut(fact, longest) for name, fact in facts.items()}
        if len(to_json(shown)) <= EXPLANATION_BYTES:
            return answer.changed(explanation=shown)
        longest //= 2
    return answer.changed(explanation={"left_out": f"more than {EXPLANATION_BYTES} bytes"})


def _cut(fact: Any, longest: int) -> Any:
    if isinstance(fact, str):
        return fact if len(fact) <= longest else fact[: longest - 1] + "…"
    if isinstance(fact, dict):
        return {name: _cut(inner, longest) for name, inner in fact.items()}
    return [_cut(inner, longest) for inner in fact[:_ITEMS]] if isinstance(fact, list | tuple) else fact


class SoFar(NamedTuple):
    """What history tells of the job up to the end that the pattern goes on from: what was used, seconds since its acceptance, for how long
    the model of the last answer ran, and how many of the seconds count for no deadline. For what is told about an answer; of what is asked
    it decides which model, and nothing else.
    """

    usage: Usage = Usage()
    seconds: float = 0.0
    ran_seconds: float = 0.0
    idle: float = 0.0


MOST_SAID = 16
"""Verdicts of one job that count: the first."""
_NO_TEAM, _NO_LIMITS, _NOTHING = Team(), Limits(), SoFar()


class Context:
    """The commands a pattern may await, what it may note, and what it may know: all of it stands in the job's first event.

    `team`: the agents and prompts that are pinned; `limits`: the job's; `seconds`: from acceptance to its deadline. Only `so_far` is of
    later events.
    """

    __slots__ = (
        "baseline", "best_answer", "dropped", "found", "job", "limits", "pools", "priority_class", "resolves", "said", "sealed", "seconds",
        "seen", "so_far", "team",
    )  # fmt: skip

    def __init__(
        self,
        job: str = "",
        team: Team | None = None,
        limits: Limits | None = None,
        seconds: float = 3_600.0,
        priority_class: PriorityClass = PriorityClass.STANDARD,
    ) -> None:
        self.best_answer: Answer | None = None
        self.baseline: Baseline | None = SINGLE_ANSWER
        self.so_far = _NOTHING
        self.found: Memory | None = None
        self.dropped = False
        """Of a conversation: what was summed up of its older turns, and whether these are left out from now on."""
        self.seen: Job | None = None
        """The job with its input redacted, where its tenant's policies have done that."""
        self.sealed = False
        """No answer may leave before its tenant's policies have passed it."""
        self.pools: list[Pool] = []
        self.said: tuple[Judgement, ...] = ()
        """What judges have found of models' answers."""
        self.job = job
        self.team = team or _NO_TEAM
        self.resolves = bool(self.team.models or self.team.rated)
        """Whether some of its names of models stand for others."""
        self.limits = limits or _NO_LIMITS
        self.seconds = seconds
        self.priority_class = priority_class

    def seed(self, *labels: str | int) -> int:
        """A number below 2**31 that is this job's own, another one for other labels: seeds of samples, of shuffles."""
        text = "\x1f".join(map(str, (self.job, *labels)))
        return int.from_bytes(blake2b(text.encode(), digest_size=4).digest()) >> 1

    def resolved(self, request: StepRequest, path: str) -> tuple[StepRequest, StepRequest, str | None]:
        """The request with what its names stand for, of which its id is made; as it is sent, and how its model was chosen, if it was. The
        choice is no part of the id: another release may choose otherwise.
        """
        named = applied(request, self.team.models)
        if not self.team.rated:
            return named, named, None
        means = Means(self.priority_class, self.seconds - self.so_far.seconds + self.so_far.idle, self.limits.cost, self.so_far.usage.cost)
        return named, *chosen(request, self.team, means, lambda label: self.seed("choice", path, label) / 2**31)

    def shuffled(self, items: Sequence[Any], *labels: str | int) -> list[Any]:
        """A new order, the same at each run of this job."""
        return Random(self.seed("shuffle", *labels)).sample(items, len(items))

    def request(self, job: Job, agent: str, *messages: ChatMessage, **own: Any) -> StepRequest:
        """A chat of this agent of the team: its words first, then the job's `system`; its profile, where the job says nothing else."""
        member = self.team.member(agent)
        system = "\n\n".join(words for words in (member.system, job.system) if words)
        head = (ChatMessage(role="system", content=system),) if system else ()
        options: Options | None = own.pop("options", None)
        given = {**_said(member.options), **_said(job.options), **(_said(options) if options else {})}
        fields: dict[str, Any] = {"agent": member.name, "capability": member.capability, "options": Options(**given)}
        if member.model is not None:
            fields |= {"model": member.model, "fallback_models": member.fallback_models}
        if (needs := _over(member.needs, own.pop("needs", None))).model_fields_set:
            fields["needs"] = needs
        if member.output is not None:
            fields["format"] = member.output
        return chat(job, (*head, *messages), **{**fields, **own})

    def tools(self, names: Sequence[str]) -> list[PinnedTool]:
        """Those of these references that the job has pinned: all, but of jobs that were accepted before there were tools."""
        return [tool for tool in self.team.tools if tool.reference in names]

    def ask(self, request: StepRequest) -> Ask:
        """One step. The answer of its accepted attempt; StepError when it has failed for good."""
        return Ask(request)

    def pool(self, width: int) -> Pool:
        """For branches of which not all are known, or all wanted, at once."""
        self.pools.append(Pool(width))
        return self.pools[-1]

    def gather(self, *branches: Branch, quorum: int | None = None) -> Gather:
        """Awaiting it gives the results of the branches, in the order given.

        Without `quorum` all must succeed; the first error is raised and the other branches are abandoned. With it, as soon as that
        many succeeded the rest is abandoned and their places hold None; the first error is raised when the quorum can no longer be
        reached. ValueError for a quorum outside 1..number of branches.
        """
        return Gather(branches, quorum)

    def sleep(self, seconds: float) -> Sleep:
        """Wait durably."""
        return Sleep(seconds)

    async def in_time(self, seconds: float | None, *branches: Branch, width: int = 1_000) -> list[Any]:
        """The branches side by side, at most `width` at once: of each its value, its failure (a `Failure`), or None where it has not ended
        after so many seconds. What still runs then is abandoned.
        """
        pool, left = self.pool(width), len(branches)
        ends: list[Any] = [None] * left
        for index, branch in enumerate(branches):
            pool.add(index, branch)
        if seconds is not None:
            pool.add(None, self.sleep(seconds))
        while left and (ended := await pool.next()) is not None and ended.key is not None:
            ends[ended.key] = ended.failure or ended.value
            left -= 1
        await pool.close()
        return ends

    def review(
        self,
        artefact: str,
        *,
        question: str,
        assignees: tuple[str, ...] = (),
        deadline_seconds: float = DAY_SECONDS,
        default: Literal["approve", "reject"] = "reject",
        quorum: int = 1,
        escalate_to: tuple[str, ...] = (),
        escalate_after_seconds: float | None = None,
    ) -> Review:
        """People decide on the text `artefact`, at most 64 kB; awaiting it gives their Decision. StepError where it is too large.

        `assignees`: names of API keys; without any, every key of the tenant may decide. So many as `quorum` must say the same, but one
        `reject` is enough. When nothing is decided after `deadline_seconds`, `default` holds. ValueError for what nobody can meet.
        """
        return Review(
            ReviewTerms(
                artefact=artefact,
                question=question,
                assignees=assignees,
                deadline_seconds=deadline_seconds,
                default=default,
                quorum=quorum,
                escalate_to=escalate_to,
                escalate_after_seconds=escalate_after_seconds,
            )
        )

    def best(self, answer: Answer) -> None:
        """Note the best answer so far: it is the result, with finish reason `budget`, if a limit ends the job."""
        if not self.sealed:
            self.best_answer = answer

    def judge(self, asked: StepRequest, answer: Answer, good: bool) -> None:
        """Note what a check, a model or a person finds of one model's answer to this request (`agents/beliefs`). Where nobody could say
        there is nothing to note. What the cache has served was judged when it was written.
        """
        if answer.model is not None and answer.served is None and len(self.said) < MOST_SAID:
            self.said = (*self.said, Judgement(canonical(answer.model), query_of(asked).kind, good))

    def beside(self, what: str, text: str, took: Spent, *, same: bool) -> None:
        """Note what a simpler way would have answered (`Baseline`). On a share of jobs it is judged beside the answer, of which it is no
        part. One that is too long is not kept.
        """
        fits = len(text) <= COMPARED_CHARACTERS
        self.baseline = Baseline(what=what, text=text if fits else "", took=took, same=same) if fits or same else SINGLE_ANSWER

    def apart(self) -> None:
        """The answer is another than the baseline, which was the best so far."""
        if self.baseline is not None and self.baseline.same:
            self.baseline = self.baseline.changed(same=False) if self.baseline.text else SINGLE_ANSWER


def _over(needs: Needs, own: Needs | None) -> Needs:
    return needs if own is None else needs.model_copy(update=_said(own))


def _said(part: Options | Needs) -> dict[str, Any]:
    """The fields that are given."""
    return {name: value for name, value in part if name in part.model_fields_set and value is not None}
