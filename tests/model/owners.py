"""Who owns a home, in models of one home and two planners: assignment, crashes with or without what is under way, rebalances.

A state has `planners` (two), `owner`, `generation`, `crashes`, `rebalances`, `appends`; a planner `doing` (idle, start, taking, ready,
appending, dead), `generation`, `life`; an append `by` and `life`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from tests.model.search import Step

State = TypeVar("State", bound=Any)


def put(state: State, at: int, planner: Any) -> State:
    return state._replace(planners=(planner, state.planners[1]) if at == 0 else (state.planners[0], planner))


def assigned(state: State, at: int) -> State:
    generation, planner = state.generation + 1, state.planners[at]
    return put(state, at, type(planner)("start", generation, planner.life))._replace(owner=at, generation=generation)


def owns(state: Any, at: int) -> bool:
    return bool(state.owner == at and state.planners[at].generation == state.generation)


def is_there(state: Any, at: int) -> bool:
    return state.planners[at].doing not in ("idle", "dead")


def append_lost(state: State, at: int) -> State:
    """What the planner's present life has under way."""
    life = state.planners[at].life
    return state._replace(appends=frozenset(append for append in state.appends if (append.by, append.life) != (at, life)))


def fates(state: State, at: int, lost: Callable[[State, int], State] = append_lost) -> Iterator[Step[State]]:
    """What befalls a planner, whatever it does. `lost`: a state without what it has under way."""
    planner = state.planners[at]
    anew = type(planner)
    if not is_there(state, at):
        if state.owner == at:
            yield Step(f"the session of P{at} times out", assigned(state, 1 - at))
        return
    if state.crashes:
        dead = put(state, at, anew("dead", life=planner.life))._replace(crashes=state.crashes - 1)
        yield Step(f"P{at} crashes", dead, fault=True)
        if (without := lost(dead, at)) != dead:
            yield Step(f"P{at} crashes, what it has under way is lost", without, fault=True)
    if not owns(state, at):
        yield Step(f"P{at} notices the rebalance", put(state, at, anew(life=planner.life)))


def rebalances(state: State) -> Iterator[Step[State]]:
    other = 1 - state.owner
    if state.rebalances and not is_there(state, other):
        yield Step(f"P{other} is assigned", assigned(state, other)._replace(rebalances=state.rebalances - 1), fault=True)
