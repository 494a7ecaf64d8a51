"""What a pattern sees: plain coroutines over a context. Nothing here knows Kafka, time or chance.

A pattern awaits commands (`ask`, `gather`, `sleep`); the run (`run.py`) drives it and resumes it with recorded outcomes in recorded order.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from dataclasses import dataclass
from typing import Any

from shared.contracts.chat import Answer, ChatMessage, Operation
from shared.contracts.failure import Failure
from shared.contracts.job import Job
from shared.contracts.step import StepRequest


class StepError(Exception):
    """A step failed for good. A pattern may catch it and go on another way."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


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
class Gather:
    """Command: run the branches side by side."""

    branches: tuple[Branch, ...]
    quorum: int | None

    def __await__(self) -> Generator[Gather, list[Any], list[Any]]:
        return (yield self)


Branch = Ask | Sleep | Gather | Coroutine[Any, Any, Any]


def chat(job: Job, messages: tuple[ChatMessage, ...], **own: Any) -> StepRequest:
    """A chat on the job's behalf: its model, options and needs, but these messages instead of its own input, tools and format."""
    given = {"capability": job.capability or "chat", "operation": Operation.CHAT, "prompt": None, "texts": (), "tools": (), "format": None}
    return StepRequest.of(job, **{**given, "messages": messages, "stream": False, **own})


class Context:
    """The commands a pattern may await, and what it may note."""

    __slots__ = ("best_answer",)

    def __init__(self) -> None:
        self.best_answer: Answer | None = None

    def ask(self, request: StepRequest) -> Ask:
        """One step. The answer of its accepted attempt; StepError when it has failed for good."""
        return Ask(request)

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

    def best(self, answer: Answer) -> None:
        """Note the best answer so far: it is the result, with finish reason `budget`, if a limit ends the job."""
        self.best_answer = answer
