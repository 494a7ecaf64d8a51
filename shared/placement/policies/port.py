"""What a policy is given, and what it says. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from shared.contracts.base import PriorityClass
from shared.placement.filters import Candidate


class PlaceRequest(NamedTuple):
    """A step, as far as policies look at it. Tokens are estimates, seconds monotonic."""

    key: str
    """Its id: chance is drawn from it, so that a choice can be made again."""
    prompt: int
    output: int
    priority_class: PriorityClass = PriorityClass.STANDARD
    waited: float = 0.0
    """Since its router has read it."""
    until: float = inf
    """It waits for no better node beyond this."""
    thread: int | None = None
    """What its prompt begins with (`placement.choosing`)."""
    near: str | None = None
    """The node that has read much of its prompt already."""
    cached: int = 0
    """Tokens of the prompt that such a node need not read again, if it has nothing else to do."""


@dataclass(slots=True)
class Moment:
    """What all choices of a round share. `reserved`: node to steps of this round that wait for it."""

    now: float = 0.0
    wanted: frozenset[str] = frozenset()
    """Models that waiting steps ask for."""
    heat: Mapping[str, float] = field(default_factory=dict)
    """Model to steps a second that have asked for it of late."""
    reserved: dict[str, int] = field(default_factory=dict)
    shared: dict[str, int] = field(default_factory=dict)
    """The same by their model."""


class Foreseen(NamedTuple):
    """Of one candidate. All in seconds from now, but for `cost`, which is compared: lower is better."""

    cost: float
    candidate: Candidate
    wait: float = 0.0
    """Until it has a slot."""
    load: float = 0.0
    read: float = 0.0
    write: float = 0.0
    now: bool = True
    """It has a place at once."""

    @property
    def first(self) -> float:
        """To the first token."""
        return self.wait + self.load + self.read

    @property
    def end(self) -> float:
        return self.first + self.write


Policy = Callable[[Sequence[Candidate], PlaceRequest, Moment], list[Foreseen]]
"""All candidates that could be taken, in any order; the one of the least cost is. Where that has no place at once the step waits for it.
Empty: none has a place."""


def foresee(candidate: Candidate, ask: PlaceRequest, moment: Moment) -> Foreseen:
    """What a step would meet there; `cost` is its end."""
    account = candidate.account
    active = account.active
    beside = active if active < candidate.slots else candidate.slots - 1
    prompt, resident = ask.prompt, candidate.resident
    if candidate.node == ask.near and resident:
        prompt -= min(prompt, ask.cached) // (1 + active)
    read = candidate.read_fixed + prompt / candidate.prefill
    write = ask.output * (1.0 + candidate.slowdown * beside) / candidate.decode
    load = 0.0 if resident else candidate.load_seconds
    wait = 0.0
    if active >= candidate.slots or not account.available:
        queued = moment.reserved.get(candidate.node, 0) + max(0, active - candidate.slots)
        wait = account.free_in(moment.now) + queued * (read + write) / candidate.slots
    cost = wait + load + read + write
    return Foreseen(cost, candidate, wait, load, read, write, account.available > 0)
