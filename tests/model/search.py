"""The search that all models of this folder share: every state that can be reached, nearest first, each once.

A model gives a first state, the steps that can follow a state, what is wrong with a state, and what is wrong where nothing but faults can
still happen (somebody waits for ever). States are hashable values; a step is a fault when nobody can count on it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import pytest

State = TypeVar("State", bound=Hashable)
Rule = TypeVar("Rule")
THOROUGH = os.environ.get("TUTTI_EXAMPLES") == "thorough"
at_length = pytest.mark.skipif(not THOROUGH, reason="takes up to minutes: TUTTI_EXAMPLES=thorough")
"""Mark of what `make test` leaves to `make test-chaos`."""


class Step(NamedTuple, Generic[State]):
    what: str
    after: State
    fault: bool = False


class Explored(NamedTuple):
    states: int
    wrong: str | None
    """What the first bad state breaks; None: every reachable state was seen, none is bad."""
    trace: tuple[str, ...] = ()
    """The steps to it, as few as can be."""

    def __str__(self) -> str:
        return f"{self.wrong} after {self.states} states:\n  " + "\n  ".join(self.trace)


class OfAnEpoch(Protocol):
    """An event of a home's history; a `started` begins the epoch that is its offset."""

    @property
    def kind(self) -> str: ...

    @property
    def epoch(self) -> int: ...


Event = TypeVar("Event", bound=OfAnEpoch)


def valid(events: tuple[Event, ...], start: int) -> Iterator[tuple[int, Event]]:
    """With their offsets: those from `start` on whose epoch is the last one begun before them."""
    current = -1 if start >= len(events) else start if events[start].kind == "started" else events[start].epoch
    for offset in range(start, len(events)):
        if events[offset].kind == "started":
            current = offset
        elif events[offset].epoch == current:
            yield offset, events[offset]


def nothing(_: object) -> None:
    """A model without ends: nothing is wrong where only faults could follow."""


def explore(
    first: State,
    steps: Callable[[State], Iterable[Step[State]]],
    wrong: Callable[[State], str | None],
    over: Callable[[State], str | None] = nothing,
) -> Explored:
    came: dict[State, tuple[State, str] | None] = {first: None}
    layer = [first]
    while layer:
        following: list[State] = []
        for state in layer:
            why, alive = wrong(state), False
            if why is None:
                for what, after, fault in steps(state):
                    alive = alive or not fault
                    if after not in came:
                        came[after] = (state, what)
                        following.append(after)
                if not alive:
                    why = over(state)
            if why is not None:
                return Explored(len(came), why, _trace(came, state))
        layer = following
    return Explored(len(came), None)


def _trace(came: dict[State, tuple[State, str] | None], state: State) -> tuple[str, ...]:
    trace: list[str] = []
    while (before := came[state]) is not None:
        state, what = before
        trace.append(what)
    return tuple(reversed(trace))


def checks(
    search: Callable[[Rule], Explored],
    holds: Mapping[str, Rule],
    bugs: Mapping[str, tuple[Rule, str | None]],
    *,
    states: int = 1_000,
    long: Collection[str] = (),
) -> tuple[Any, Any]:
    """A model's two tests: where the rule is kept nothing is wrong, in more than so many states; and each planted bug is seen by what it
    breaks (None: whatever it is). What is named in `long` takes up to minutes.
    """

    def named(cases: Iterable[str]) -> pytest.MarkDecorator:
        slow = (at_length, pytest.mark.timeout(1_800))
        return pytest.mark.parametrize("name", [pytest.param(name, marks=slow if name in long else ()) for name in cases])

    @named(holds)
    def rule_holds(name: str) -> None:
        found = search(holds[name])
        assert found.wrong is None, found
        assert found.states > states

    @named(bugs)
    def bug_is_seen(name: str) -> None:
        rule, breaks = bugs[name]
        found = search(rule)
        assert found.wrong is not None, found
        assert breaks in (None, found.wrong), found

    return rule_holds, bug_is_seen
