"""Histories of a home as a sink may find them, drawn from a seed, and a recount of them in the plainest way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from infra.verify.recount import Counts, HomeCount, nothing_left_out
from shared.contracts import event as events
from shared.contracts.base import PriorityClass, StepId
from shared.contracts.chat import Answer
from shared.contracts.conversation import ConversationChanged
from shared.contracts.event import EVENT
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.headers import envelope
from shared.contracts.job import Job
from shared.contracts.limits import Limits
from shared.contracts.result import Result, Status
from shared.contracts.usage import Usage
from shared.kafka.port import Message
from shared.topics import Topics

TENANTS = ("default", "acme", "globex")
MODELS = ("a:1b", "b:7b", "models/x.y$z.gguf")
AGENTS = ("chat", "critic", "a.b")
PROMPT = "nobody may read this"


@dataclass(slots=True)
class _Live:
    job: str
    tenant: str
    pattern: str
    usage: Usage = field(default_factory=Usage)
    key: str | None = None
    talk: str | None = None
    open: dict[str, int] = field(default_factory=dict)


class HistoryOfHome:
    """Messages of one partition of `job-events`, in order; the first has the offset `start`."""

    def __init__(self, random: Random, topics: Topics, home: int, start: int = 0) -> None:
        self._random, self._topic, self._home, self._next = random, topics.job_events, home, start
        self._epochs: list[int] = []
        self._live: list[_Live] = []
        self._ended: list[_Live] = []
        self._lives = self._turns = 0
        self.messages: list[Message] = []

    def grow(self, count: int) -> Sequence[Message]:
        """So many more."""
        first = len(self.messages)
        while len(self.messages) < first + count:
            self._more()
        return self.messages[first:]

    def _more(self) -> None:
        r = self._random
        roll = r.random()
        if not self._epochs or roll < 0.02:
            self._epochs.append(self._next)
            self._put(events.PlannerStarted(nonce=str(self._next), planner=f"planner-{len(self._epochs)}", version=2), b"")
        elif roll < 0.06 and len(self._epochs) > 1:
            self._stale()
        elif roll < 0.08:
            self._put_raw(b"no event at all", b"odd")
        elif roll < 0.12:
            self._refused()
        elif roll < 0.15:
            self._talk()
        elif roll < 0.35 or not self._live:
            self._accept()
        else:
            self._go_on(r.choice(self._live))

    def _stale(self) -> None:
        """Of a planner that had been succeeded: the end of a job that has not ended, or ended otherwise."""
        live = self._random.choice(self._live or [_Live("stale", "acme", "vote")])
        self._put(self._end(live, self._random.choice(self._epochs[:-1])), live.job.encode())

    def _refused(self) -> None:
        """An end without an acceptance, of an id that may have been used before."""
        live = self._new()
        self._put(self._end(live, self._epochs[-1], Status.FAILED), live.job.encode())

    def _new(self) -> _Live:
        r = self._random
        tenant = r.choice(TENANTS)
        if self._ended and r.random() < 0.3:
            ended = r.choice(self._ended)
            if all(live.job != ended.job for live in self._live):
                return _Live(ended.job, ended.tenant, r.choice(("single", "vote")))
        self._lives += 1
        name = f"h{self._home}-{self._lives}"
        if r.random() < 0.2:
            return _Live(f"j_{name}", tenant, r.choice(("single", "vote")))
        return _Live(name if tenant == "default" else f"{tenant}/{name}", tenant, r.choice(("single", "vote")))

    def _accept(self) -> None:
        live = self._new()
        live.key, live.talk = self._random.choice((None, "key-1", "key-2")), self._random.choice((None, None, "talk"))
        self._live.append(live)
        asks = tuple(self._ask(live) for _ in range(self._random.randint(0, 2)))
        self._put(
            events.JobAccepted(
                epoch=self._epochs[-1], job=live.job, at=1_700_000_000.0 + self._next, key=live.key,
                request=Job(prompt=PROMPT, tenant=live.tenant, conversation=live.talk),
                priority_class=PriorityClass.STANDARD, home=self._home, source=f"jobs.standard/0/{self._next}", source_offset=self._next,
                pattern_version=1, limits=Limits(), deadline_at=1_800_000_000.0, digest="", asks=asks,
            ),
            live.job.encode(),
        )  # fmt: skip

    def _ask(self, live: _Live) -> events.FirstAsk:
        r = self._random
        step = StepId(f"{r.getrandbits(128):032x}" if r.random() < 0.95 else f"a.step${self._next}.{len(live.open)}")
        live.open[step] = 1
        return events.FirstAsk(step=step, path=f"0.{len(live.open)}", agent=r.choice(AGENTS), model=r.choice(MODELS))

    def _go_on(self, live: _Live) -> None:
        r, epoch, at = self._random, self._epochs[-1], 1_700_000_000.0 + self._next
        usage = Usage(calls=1, prompt_tokens=r.randint(0, 50), completion_tokens=r.randint(0, 50), cost=r.randint(0, 9) / 1e6)
        roll = r.random()
        if roll < 0.25 or not live.open:
            ask = self._ask(live)
            self._put(events.StepAsked(epoch=epoch, job=live.job, at=at, **ask.__dict__), live.job.encode())
            return
        step, attempt = r.choice(list(live.open.items()))
        about: dict[str, Any] = {"epoch": epoch, "job": live.job, "at": at, "step": StepId(step), "attempt": attempt}
        if roll < 0.5:
            live.usage = live.usage.plus(usage)
            del live.open[step]
            self._put(
                events.StepAnswered(**about, usage=usage, node="n1", answer=Answer(text=PROMPT, model=r.choice((None, "c:3b")))),
                live.job.encode(),
            )
        elif roll < 0.65:
            live.usage = live.usage.plus(usage.as_waste())
            live.open[step] += 1
            failure = Failure(kind=FailureKind.MODEL_ERROR, message="no")
            self._put(events.AttemptFailed(**about, failure=failure, retry_after_seconds=0.0, usage=usage), live.job.encode())
        elif roll < 0.75:
            live.usage = live.usage.plus(usage.as_waste())
            self._put(events.WorkWasted(**about, usage=usage), live.job.encode())
        else:
            self._live.remove(live)
            self._ended.append(live)
            self._put(self._end(live, epoch), live.job.encode())

    def _end(self, live: _Live, epoch: int, status: Status | None = None) -> events.JobSettled:
        status = status or self._random.choice(list(Status))
        at = 1_700_000_000.0 + self._next
        result = Result(
            job=live.job, tenant=live.tenant, status=status, usage=live.usage, pattern=live.pattern, steps=3, attempts=4,
            accepted_at=at - 2.5, finished_at=at, answer=Answer(text=PROMPT) if status is Status.SUCCEEDED else None,
        )  # fmt: skip
        return events.JobSettled(epoch=epoch, job=live.job, at=at, result=result, key=live.key)

    def _talk(self) -> None:
        """A conversation has changed, or is told again."""
        r = self._random
        self._turns += r.randint(0, 1)
        changed = ConversationChanged(
            epoch=self._epochs[-1], tenant=r.choice(TENANTS), conversation=r.choice(("talk", "other")), at=1_700_000_000.0 + self._next,
            ended=self._turns, gone=r.random() < 0.1,
        )  # fmt: skip
        self._put(changed, b"#talk")

    def _put(self, event: Any, key: bytes) -> None:
        self._put_raw(event.to_bytes(), key, event.type)

    def _put_raw(self, value: bytes, key: bytes, kind: str = "job_settled") -> None:
        self.messages.append(Message(self._topic, value, key or None, self._home, envelope(kind)))
        self._next += 1


def valid_events(messages: Sequence[Message], start: int = 0) -> Iterator[tuple[int, Any]]:
    """(offset, event) by the rule of epochs, in the plainest way."""
    epoch = None
    for offset, message in enumerate(messages, start):
        try:
            event = EVENT.validate_json(message.value or b"")
        except ValueError:
            continue
        if isinstance(event, events.PlannerStarted):
            epoch = offset
        elif event.epoch != epoch:
            continue
        yield offset, event


def recount(histories: Sequence[Sequence[Message]], begins: Sequence[int] | None = None) -> Counts:
    """What the store must say of these homes' histories. `begins`: where each begins for who reads it now, a PlannerStarted."""
    count: Counter[tuple[str, ...]] = Counter()
    for number, messages in enumerate(histories):
        home, begin = HomeCount(count), begins[number] if begins else 0
        for _, event in valid_events(messages[begin:], begin):
            home.event(event)
    return nothing_left_out(count)


def newest_talks(histories: Sequence[Sequence[Message]]) -> dict[tuple[int, str, str], tuple[int, bool]]:
    """Home and whose conversation → its turns, and whether it is gone."""
    found = {}
    for home, messages in enumerate(histories):
        for _, event in valid_events(messages):
            if isinstance(event, ConversationChanged):
                found[home, event.tenant, event.conversation] = event.ended, event.gone
    return found
