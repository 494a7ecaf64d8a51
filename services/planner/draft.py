"""Draft: what a round has decided so far, and nobody knows yet. Filled by the engine, written by the home.

Order of effects: `events` are one append; `dispatches` may go out beside it; what is in `after` waits for its acknowledgement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.contracts.batch import BatchChanged, OfBatch
from shared.contracts.budget import BudgetGranted, BudgetRecalled, BudgetRequested
from shared.contracts.cache import CacheAbandoned, CacheFill, CacheLookup
from shared.contracts.control import BeginStep, StopClaims, StopStep
from shared.contracts.conversation import Memory, ToHome, ToOwner, TurnBegun
from shared.contracts.event import (
    Event,
    JobAccepted,
    JobSettled,
    StepAnswered,
    joined,
)
from shared.contracts.job import HeldJob, Job, ReplyTo
from shared.contracts.reply import StreamBroken
from shared.contracts.result import Result
from shared.contracts.step import Content, Step
from shared.contracts.versions import VERSIONS, version_of
from shared.kafka.port import Message
from shared.placement.ledger import OpenDispatch


@dataclass(slots=True, eq=False)
class Given:
    """A node's place that this planner uses itself. `why`: as its record says it (`placement.why`)."""

    node: str
    mailbox: int
    model: str
    why: bytes
    use: OpenDispatch
    failed: bool = False
    """Kafka has not taken the step: it goes to the routers."""


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Send this attempt to its `steps` topic, or into the mailbox of the node that it is given to."""

    step: Step
    trace: str | None
    content: Content | None = None
    """The step's, as JSON that is there already."""
    given: Given | None = None
    known: bool = False
    """History knows of the step already: no append need be waited for."""


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Stop:
    """Tell a node to stop. `release`: called once it is acknowledged."""

    mailbox: int
    control: StopStep
    release: Callable[[], None] = _nothing


@dataclass(frozen=True, slots=True)
class Begin:
    """Tell a node that its claim stands in history: what must not be done twice is begun only then."""

    mailbox: int
    control: BeginStep


@dataclass(frozen=True, slots=True)
class Disown:
    """Tell a node that nobody knows these claims of it. Only the partition's owner can know that."""

    mailbox: int
    control: StopClaims


@dataclass(frozen=True, slots=True)
class StopAnywhere:
    """Tell every node: the step waits for a router, and whoever gets it must not begin it."""

    control: StopStep


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish the result of a settled job, and finals to who is owed one: not to who learns the end from the settle event."""

    settled: JobSettled
    followers: tuple[ReplyTo, ...] = ()
    body: bytes | None = None
    """The result's JSON, where it is there already."""


@dataclass(frozen=True, slots=True)
class Bury:
    """Write a dead letter; `release`: called once it is acknowledged."""

    letter: Message
    release: Callable[[], None]


@dataclass(frozen=True, slots=True)
class CallerAnswer:
    """Answer one caller of whom no event tells: a repeated submission, or a refused one. `release`: called once it is acknowledged."""

    reply: ReplyTo
    result: Result
    trace: str | None = None
    release: Callable[[], None] = _nothing


@dataclass(frozen=True, slots=True)
class AskPosition:
    """Ask the reader of a broken stream what he has been shown."""

    reply: ReplyTo
    broken: StreamBroken
    tenant: str


@dataclass(frozen=True, slots=True)
class Tell:
    """A message about a tenant's budget, a turn of a conversation, or a batch: to a home, or (None) to the owner of what it is about.

    `sure`: else only who is still its home's owner can know it.
    """

    home: int | None
    outcome: BudgetRequested | BudgetGranted | BudgetRecalled | ToHome | ToOwner | OfBatch
    sure: bool = True


@dataclass(frozen=True, slots=True)
class EndTurn:
    """Tell the conversation's owner that the job has ended, and what its turn adds. `begun` None: it never began.

    `found`: what it has summed up of older turns; `dropped`: these are left out from now on, summed up or not.
    """

    settled: JobSettled
    request: Job
    begun: TurnBegun | None
    found: Memory | None = None
    dropped: bool = False


@dataclass(frozen=True, slots=True)
class EndLine:
    """Tell the batch that one of its lines has ended."""

    settled: JobSettled
    request: HeldJob


@dataclass(frozen=True, slots=True)
class KeepEnds:
    """Write a block of a batch's ended lines: number → its row, and whether it ended well. `known`: the batch as it is by now."""

    known: BatchChanged
    rows: Mapping[int, tuple[bytes, bool]]


@dataclass(frozen=True, slots=True)
class SendLines:
    """Send these lines of a batch as jobs; cancel those of `cancelled`. `paid`: records that now count as done."""

    known: BatchChanged
    numbers: Sequence[int] = ()
    cancelled: Sequence[int] = ()
    paid: Sequence[Callable[[], None]] = ()


Sendable = Dispatch | Stop | Begin | Disown | StopAnywhere | Publish | Bury | CallerAnswer | AskPosition | Tell | CacheFill | CacheAbandoned
"""The last two tell the cache of an answer that history has accepted, or that none comes."""
Effect = Sendable | EndTurn | EndLine | KeepEnds | SendLines


@dataclass(slots=True)
class Draft:
    """Grouped by job: a job's events of one round are never cut apart."""

    epoch: int
    wall: float
    """Seconds since the epoch, for `at`."""
    now: float
    """Monotonic seconds, for timers."""
    events: dict[str, list[tuple[str, bytes]]] = field(default_factory=dict)
    """job id → (type, JSON) in order"""
    ledger: dict[str, list[tuple[str, bytes]]] = field(default_factory=dict)
    """The same of what is no job's, under names that no job can have. Appended before `events`: cut off behind them, use counts twice."""
    lies: dict[tuple[str, int], tuple[Callable[[int], None], ...]] = field(default_factory=dict)
    """(name in `events` or `ledger`, index there) → who is told the event's offset once it is acknowledged"""
    newer: dict[tuple[str, int], int] = field(default_factory=dict)
    """The same → its version, where that is not its type's."""
    whose: dict[str, str] = field(default_factory=dict)
    """job id → its tenant, with whose key its events are sealed. What is no job's own is nobody's: it must outlive any tenant's key."""
    dispatches: list[Dispatch] = field(default_factory=list)
    lookups: list[CacheLookup] = field(default_factory=list)
    """Instead of dispatches, and beside the append like them."""
    after: list[Effect] = field(default_factory=list)
    _open: dict[str, tuple[JobAccepted | StepAnswered, bytes | None, tuple[Callable[[int], None], ...]]] = field(default_factory=dict)
    """job id → its last event, while the next one may be joined to it, its part, and who is told where it lies"""

    def about(self, job: str) -> dict[str, Any]:
        """What each fact of a job says first."""
        return {"epoch": self.epoch, "job": job, "at": self.wall}

    def add(self, group: str, event: Event, *lies: Callable[[int], None], part: bytes | None = None, ledger: bool = False) -> list[bytes]:
        """Append an event, joined to the job's last one where both are written as one; returns the JSON of what nothing joins any more.

        `lies`: told its offset once it is acknowledged. `part`: of the event, as JSON that is there already.
        """
        values: list[bytes] = []
        waiting = self._open.pop(group, None)
        if waiting is not None:
            before, its_part, its_lies = waiting
            both = joined(before, event)
            if both is None:
                values.append(self._write(group, before, its_part, its_lies))
            else:
                event, part, lies = both, part or its_part, its_lies + lies
        if type(event) is JobAccepted or type(event) is StepAnswered:
            self._open[group] = event, part, lies
        else:
            values.append(self._write(group, event, part, lies, ledger=ledger))
        return values

    def close(self, job: str) -> list[bytes]:
        """Nothing joins the job's last event any more; returns its JSON, if something might have."""
        waiting = self._open.pop(job, None)
        return [] if waiting is None else [self._write(job, *waiting)]

    def _write(self, group: str, event: Any, part: bytes | None, lies: tuple[Callable[[int], None], ...], *, ledger: bool = False) -> bytes:
        value: bytes = event.to_bytes() if part is None else event.to_bytes(part)
        events = (self.ledger if ledger else self.events).setdefault(group, [])
        if lies:
            self.lies[group, len(events)] = lies
        if (version := version_of(event)) != VERSIONS.get(event.type, 1):
            self.newer[group, len(events)] = version
        events.append((event.type, value))
        return value

    def settled(self, event: JobSettled, lies: Callable[[int], None], followers: tuple[ReplyTo, ...] = ()) -> None:
        """Append a settle event, and publish what it says."""
        body = event.result.to_bytes()
        self.whose[event.job] = event.result.tenant
        self.add(event.job, event, lies, part=body)
        self.after.append(Publish(event, followers, body))

    @property
    def empty(self) -> bool:
        return not (self.ledger or self.events or self.dispatches or self.lookups or self.after)
