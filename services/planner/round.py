"""Round: what one pass over a partition's inputs decided. Filled by the engine, written by the home.

Order of effects: `events` are one append; `dispatches` may go out beside it; what is in `after` waits for its acknowledgement.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from shared.contracts.budget import BudgetGranted, BudgetRecalled, BudgetRequested
from shared.contracts.control import StopClaims, StopStep
from shared.contracts.event import Event, JobSettled
from shared.contracts.job import ReplyTo
from shared.contracts.reply import StreamBroken
from shared.contracts.result import Result
from shared.contracts.step import Step
from shared.kafka.port import Message


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Send this attempt to its `steps` topic."""

    step: Step
    trace: str | None


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Stop:
    """Tell a node to stop. `release`: called once it is acknowledged."""

    mailbox: int
    control: StopStep
    release: Callable[[], None] = _nothing


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
    """Publish the result of a settled job, and the finals to whoever waits."""

    settled: JobSettled
    followers: tuple[ReplyTo, ...] = ()


@dataclass(frozen=True, slots=True)
class Bury:
    """Write a dead letter; `release`: called once it is acknowledged."""

    letter: Message
    release: Callable[[], None]


@dataclass(frozen=True, slots=True)
class CallerAnswer:
    """CallerAnswer one caller without touching `results`: a repeated submission, or one that was refused."""

    reply: ReplyTo
    result: Result
    trace: str | None = None


@dataclass(frozen=True, slots=True)
class AskPosition:
    """Ask the reader of a broken stream what he has been shown."""

    reply: ReplyTo
    broken: StreamBroken


@dataclass(frozen=True, slots=True)
class Tell:
    """A message about a tenant's budget: to a home, or (None) to the owner of the tenant's account."""

    home: int | None
    outcome: BudgetRequested | BudgetGranted | BudgetRecalled


Effect = Dispatch | Stop | Disown | StopAnywhere | Publish | Bury | CallerAnswer | AskPosition | Tell


@dataclass(slots=True)
class Round:
    """Grouped by job: a job's events of one round are never cut apart."""

    wall: float
    """Seconds since the epoch, for `at`."""
    now: float
    """Monotonic seconds, for timers."""
    events: dict[str, list[tuple[str, bytes]]] = field(default_factory=dict)
    """job id → (type, JSON) in order"""
    ledger: dict[str, list[tuple[str, bytes]]] = field(default_factory=dict)
    """The same of what is no job's, under names that no job can have. Appended before `events`: cut off behind them, use counts twice."""
    firsts: dict[str, int] = field(default_factory=dict)
    """job id → index in its event list of the event that becomes its first offset"""
    ends: dict[str, int] = field(default_factory=dict)
    """job id → index in its event list of its settle event, if its id is a client's"""
    dispatches: list[Dispatch] = field(default_factory=list)
    after: list[Effect] = field(default_factory=list)

    def add(self, job: str, event: Event) -> bytes:
        """Append an event; returns its JSON."""
        value = event.to_bytes()
        self.events.setdefault(job, []).append((event.type, value))
        return value

    def settle(self, event: JobSettled) -> None:
        """Append a settle event, and note where it stands."""
        self.add(event.job, event)
        self.ends[event.job] = len(self.events[event.job]) - 1

    @property
    def empty(self) -> bool:
        return not (self.ledger or self.events or self.dispatches or self.after)
