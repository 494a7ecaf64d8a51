"""Model of the shares of a tenant's day (decision 0007), explored exhaustively: two homes, a limit of two units.

Messages are never taken out of the network: loss, repetition and any order are all possible. A zombie is an older state of its home
that still sends; a crash loses what is not recorded. Each variant leaves one rule out and must give a counter-example.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import pytest

T = TypeVar("T")
LIMIT, HOMES, MOST = 2, (0, 1), 3
"""Units, homes, and the highest serial explored."""


@dataclass(frozen=True)
class Rules:
    """All true in the protocol."""

    serials_decided_once: bool = True
    recorded_before_answer: bool = True
    only_awaited_answers: bool = True
    given_back_before_told: bool = True


class Share(NamedTuple):
    """Recorded. `told`: the giving back of `serial` + 1 is open."""

    serial: int = 0
    total: int = 0
    open: bool = False


class State(NamedTuple):
    """`older`: states that each home once had: its zombies. `used`: by accepted work."""

    owner: tuple[Share, ...] = (Share(), Share())
    homes: tuple[Share, ...] = (Share(), Share())
    used: tuple[int, ...] = (0, 0)
    net: frozenset[tuple[object, ...]] = frozenset()
    older: tuple[frozenset[Share], ...] = (frozenset(), frozenset())


def put(values: tuple[T, ...], at: int, value: T) -> tuple[T, ...]:
    return (*values[:at], value, *values[at + 1 :])


def record(state: State, home: int, share: Share) -> State:
    older = state.older[home] | {state.homes[home]}
    return state._replace(homes=put(state.homes, home, share), older=put(state.older, home, older))


def home_steps(state: State, home: int, rules: Rules) -> Iterator[tuple[str, State]]:
    share, used = state.homes[home], state.used[home]
    if used < share.total:
        yield f"home {home} spends", state._replace(used=put(state.used, home, used + 1))
        if not share.open and share.serial < MOST:
            if rules.given_back_before_told:
                yield f"home {home} records giving back", record(state, home, Share(share.serial, used, open=True))
            else:
                yield f"home {home} tells giving back", send(state, ("back", home, share.serial + 1, used))
    for known in (share, *state.older[home]):
        if known.open:
            yield f"home {home} tells giving back {known.serial + 1}", send(state, ("back", home, known.serial + 1, known.total))
        elif known.serial < MOST:
            yield f"home {home} asks {known.serial + 1}", send(state, ("ask", home, known.serial + 1, known.total + 1))
    for message in state.net:
        if message[:2] == ("answer", home):
            _, _, serial, total = message
            if serial == share.serial + 1 or not rules.only_awaited_answers:
                assert isinstance(serial, int)
                assert isinstance(total, int)
                yield f"home {home} folds answer {serial}: {total}", record(state, home, Share(serial, total))


def send(state: State, message: tuple[object, ...]) -> State:
    return state._replace(net=state.net | {message})


def owner_steps(state: State, rules: Rules) -> Iterator[tuple[str, State]]:
    for message in state.net:
        kind, home, serial, least = message
        if kind == "answer":
            continue
        assert isinstance(home, int)
        assert isinstance(serial, int)
        assert isinstance(least, int)
        share = state.owner[home]
        if serial <= share.serial and rules.serials_decided_once:
            yield f"owner repeats {share.serial} to {home}", send(state, ("answer", home, share.serial, share.total))
        elif serial == share.serial + 1 or not rules.serials_decided_once:
            decided = Share(serial, decide(state, share, least, back=kind == "back"))
            answer = ("answer", home, serial, decided.total)
            if not rules.recorded_before_answer:
                yield f"owner answers {serial} to {home} and dies before it records", send(state, answer)
            recorded = state._replace(owner=put(state.owner, home, decided))
            yield f"owner decides {serial} for {home}: {decided.total}", recorded
            if not rules.serials_decided_once:
                yield f"owner decides {serial} for {home} and answers: {decided.total}", send(recorded, answer)


def decide(state: State, share: Share, least: int, *, back: bool) -> int:
    free = LIMIT - sum(s.total for s in state.owner)
    return min(share.total, least) if back else share.total + min(free, max(least - share.total, 0))


def explore(rules: Rules) -> tuple[int, list[str] | None]:
    """(states, a trace to one where more is spent than the limit)."""
    first = State()
    parents: dict[State, tuple[State, str] | None] = {first: None}
    todo = deque([first])
    while todo:
        state = todo.popleft()
        if sum(state.used) > LIMIT:
            return len(parents), trace(parents, state)
        steps = [*owner_steps(state, rules), *(step for home in HOMES for step in home_steps(state, home, rules))]
        for label, following in steps:
            if following not in parents:
                parents[following] = (state, label)
                todo.append(following)
    return len(parents), None


def trace(parents: dict[State, tuple[State, str] | None], state: State) -> list[str]:
    labels = []
    while (before := parents[state]) is not None:
        state = before[0]
        labels.append(before[1])
    return labels[::-1]


def test_the_protocol_never_spends_more_than_the_limit() -> None:
    """Every state that two homes, an owner and the network can reach within the bound on serials."""
    states, found = explore(Rules())
    assert found is None, "\n".join(found)
    assert states > 10_000


@pytest.mark.parametrize("left_out", ["serials_decided_once", "recorded_before_answer", "only_awaited_answers", "given_back_before_told"])
def test_each_rule_is_needed(left_out: str) -> None:
    """Without it some order of deaths, losses and repetitions spends more."""
    _, found = explore(Rules(**{left_out: False}))
    assert found is not None
