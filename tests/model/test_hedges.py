"""Hedges, as a model: a second attempt beside one that takes long. Explored in full.

The rule: one append gives the standing attempt up, uncounted, and asks for the next; who runs the former is not told to stop. While the
step is open any answer counts that history has asked for, whoever gives it (law 2, as it always was for steps that do not stream); once
it has one, all others are waste, and who still runs is told to stop. That a former one may go on is in memory only: a successor does not
know it, so the next renewal of that claim is answered with a stop, which costs the hedge and nothing else.

Left out: what attempts cost (an outcome that does not count is waste, as ever), retries behind the second.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from tests.model.search import Explored, Step, checks, explore

FORMER, SECOND = 0, 1
_MOST_OUTCOMES = 7


class State(NamedTuple):
    history: str = "a"
    """a: asked; 1, 2: a claim of the attempt; h: given up and asked again; +: an answer; -: failed for good."""
    outcomes: tuple[str, ...] = ()
    """In the log: c claimed, s succeeded, f ended without an answer, r renewed; of 1 or 2."""
    folded: int = 0
    committed: int = 0
    knows: bool = False
    """This planner has not forgotten that the former runs on."""
    taken_over: bool = False
    runs: tuple[str, str] = ("", "")
    """Of each attempt's worker: r runs, d done."""
    stops: frozenset[int] = frozenset()
    """On their way."""
    early: bool = False
    """The former was told to stop while nobody had answered, by who had hedged."""
    unheard: bool = False
    """One who has lost told that he runs, and was not told to stop."""
    deaths: int = 1

    @property
    def ended(self) -> bool:
        return "+" in self.history or "-" in self.history

    @property
    def current(self) -> int:
        return SECOND if "h" in self.history else FORMER


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule; set otherwise, a planted bug."""

    only_open: bool = True
    """Only an outcome of an open step counts."""
    knows_former: bool = True
    """The former's renewals are not those of a claim that nobody knows."""
    only_current: bool = True
    """A failure counts for the attempt that stands."""
    disowns: bool = True
    """A renewal of a claim that nobody knows is answered with a stop."""
    once: bool = True
    """Of one step one at most runs beside."""
    any_answer: bool = True
    """Also the former's answer counts."""


def planner(state: State, rule: Rule) -> Iterator[Step[State]]:
    if "1" in state.history and not state.ended and ("h" not in state.history or (not rule.once and state.history.count("h") < 3)):
        yield Step("it takes long: another attempt", state._replace(history=state.history + "h", knows=True), fault=True)
    if state.folded < len(state.outcomes):
        kind, of = state.outcomes[state.folded][0], int(state.outcomes[state.folded][1]) - 1
        yield Step(f"folds {state.outcomes[state.folded]}", _fold(state._replace(folded=state.folded + 1), rule, kind, of))
    if state.committed < state.folded:
        yield Step("commits", state._replace(committed=state.folded))
    if state.deaths:
        gone = state._replace(deaths=0, folded=state.committed, knows=False, taken_over=True, stops=frozenset())
        yield Step("the planner is succeeded, its stops are lost", gone, fault=True)


def _fold(state: State, rule: Rule, kind: str, of: int) -> State:
    number, asked = str(of + 1), of <= state.current
    if kind == "c":
        known = number in state.history
        if known or (of == state.current and not state.ended):
            return state if known else state._replace(history=state.history + number)
        return _stop(state, of)
    if kind == "r":
        stands = not state.ended and of == state.current
        beside = not state.ended and of == FORMER and state.knows and rule.knows_former
        if stands or beside:
            return state
        return _stop(state, of) if rule.disowns else state._replace(unheard=True)
    if kind == "s":
        counts = asked and (not state.ended or not rule.only_open) and (rule.any_answer or of == state.current)
        return _stop(state._replace(history=state.history + "+"), 1 - of) if counts else state
    fails = not state.ended and (of == state.current or not rule.only_current)
    return state._replace(history=state.history + "-") if fails else state


def _stop(state: State, of: int) -> State:
    early = state.early or (of == FORMER and not state.ended and not state.taken_over)
    return state._replace(stops=state.stops | {of}, early=early)


def workers(state: State) -> Iterator[Step[State]]:
    for of in (FORMER, SECOND):
        number, runs = str(of + 1), state.runs[of]

        def after(became: str, *told: str, of: int = of, number: str = number) -> State:
            both = (became, state.runs[1]) if of == FORMER else (state.runs[0], became)
            return state._replace(runs=both, outcomes=state.outcomes + tuple(kind + number for kind in told))

        if not runs and (of == FORMER or "h" in state.history):
            yield Step(f"{number} is claimed", after("r", "c"))
        if runs == "r":
            yield Step(f"{number} answers", after("d", "s"), fault=of == FORMER)
            if f"r{number}" not in state.outcomes[state.folded :]:
                yield Step(f"{number} is renewed", after("r", "r"))
        if of in state.stops:
            ended = after("d", "f") if runs == "r" else state
            yield Step(f"the stop of {number} arrives", ended._replace(stops=state.stops - {of}))


def steps(state: State, rule: Rule) -> Iterator[Step[State]]:
    if len(state.outcomes) < _MOST_OUTCOMES:
        yield from workers(state)
    yield from planner(state, rule)


def wrong(state: State) -> str | None:
    if state.history.count("+") > 1:
        return "two answers of one step are accepted"
    if "-" in state.history:
        return "a step fails although an attempt of it runs"
    if state.history.count("h") > 1:
        return "more than one attempt runs beside"
    if state.unheard:
        return "who has lost runs for ever"
    return "the former is stopped before anybody has answered" if state.early else None


def over(state: State) -> str | None:
    """Where nothing but faults can follow; beyond the bound of outcomes nothing is said."""
    if len(state.outcomes) >= _MOST_OUTCOMES:
        return None
    return None if state.ended else "the step waits for ever"


def ends_lost(state: State) -> str | None:
    """A former that has answered while its step was open, and nobody heeds it: the hedge has cost an answer."""
    answered = "s1" in state.outcomes[: state.folded]
    return "the former's answer is thrown away" if answered and not state.ended else wrong(state)


def search(rule: Rule) -> Explored:
    return explore(State(), partial(steps, rule=rule), ends_lost, over)


RULE = Rule()
BUGS = {
    "both answers count": (replace(RULE, only_open=False), "two answers of one step are accepted"),
    "the former is as good as lost": (replace(RULE, knows_former=False), "the former is stopped before anybody has answered"),
    "a failure beside ends the step": (replace(RULE, only_current=False), "a step fails although an attempt of it runs"),
    "nobody is told that he has lost": (replace(RULE, disowns=False), "who has lost runs for ever"),
    "again and again": (replace(RULE, once=False), "more than one attempt runs beside"),
    "only the newest may answer": (replace(RULE, any_answer=False), "the former's answer is thrown away"),
}


test_the_rule_holds, test_a_planted_bug_is_seen = checks(search, {"the rule": RULE}, BUGS)
