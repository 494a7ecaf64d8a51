"""What every policy promises, and what hybrid adds: steps of a model run together, better nodes are waited for, but never for ever."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.settings import RouterSettings
from shared.contracts.base import PriorityClass
from shared.contracts.chat import ChatMessage
from shared.contracts.node import NodeModel
from shared.placement import why
from shared.placement.choosing import Chosen, Held, Placement, ask_of, best, choose
from shared.placement.demand import demand_of
from shared.placement.filters import Candidate, NodeView, candidates
from shared.placement.ledger import CreditLedger
from shared.placement.policies import POLICIES, hybrid
from shared.placement.policies.port import Moment, PlaceRequest
from shared.processing.node_table import NodeTable
from tests.support.routing import credit, node, step, view

FAST = NodeModel(name="m", size_bytes=10**9, prefill_tokens_per_second=2_000.0, decode_tokens_per_second=100.0, load_seconds=5.0)
SLOW = FAST.model_copy(update={"prefill_tokens_per_second": 125.0, "decode_tokens_per_second": 6.25})
OTHER = FAST.model_copy(update={"name": "other"})
ASKED = PlaceRequest("a" * 32, 400, 100)


def found(*views: NodeView, model: str = "m") -> list[Candidate]:
    there = candidates(demand_of(step(model=model)), views)
    assert isinstance(there, tuple)
    return list(there)


def full(name: str, **changes: Any) -> Any:
    return credit(name, 0, running=1, free_seconds=2.0, **changes)


facts = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.booleans(), st.sampled_from([FAST, SLOW])), min_size=1, max_size=6)


@given(facts, st.sampled_from(sorted(POLICIES)), st.sampled_from(list(PriorityClass)))
def test_no_policy_gives_a_place_that_is_not_there(rows: list[tuple[int, int, bool, NodeModel]], policy: str, of: PriorityClass) -> None:
    """Chosen has one; the plain policies take one wherever there is one; who is held has a node that is worth it."""
    views = [
        view(node(f"n{n}", models=(model,), slots=2), credit(f"n{n}", places, running=running, resident=("m",) if warm else ()))
        for n, (places, running, warm, model) in enumerate(rows)
    ]
    choice = best(found(*views), ASKED._replace(priority_class=of), Moment(), policy)
    if isinstance(choice, Chosen):
        assert choice.account.available > 0
        told = why.read(choice.why())
        assert told is not None
        assert (told.policy, told.node, len(choice.why()) <= why.MOST_BYTES) == (policy, choice.node, True)
    else:
        assert policy == "hybrid" or all(places == 0 for places, *_ in rows)


def test_every_policy_can_be_named() -> None:
    """The setting knows them all, and no other."""
    for policy in POLICIES:
        assert RouterSettings.model_validate({"policy": policy}).policy == policy
    with pytest.raises(ValueError, match="policy"):
        RouterSettings.model_validate({"policy": "best"})


def test_a_busy_node_that_has_the_model_is_waited_for_instead_of_a_load() -> None:
    """Two seconds of waiting beat five of loading; beyond what loading would have cost nobody waits."""
    warm = view(node("warm", models=(FAST,)), full("warm", resident=("m",)))
    cold = view(node("cold", models=(FAST,)), credit("cold"))
    moment = Moment(now=100.0)
    held = best(found(warm, cold), ASKED, moment)
    assert isinstance(held, Held)
    assert (held.node, 100.0 + 5.0 <= held.until <= 100.0 + 8.0) == ("warm", True)
    late = best(found(warm, cold), ASKED._replace(until=held.until), Moment(now=held.until))
    assert isinstance(late, Chosen)
    assert late.node == "cold"


def test_the_second_that_waits_is_counted_behind_the_first() -> None:
    """Each that waits for a node makes waiting there longer, and shares the load elsewhere: soon that is better."""
    warm = view(node("warm", models=(FAST,)), full("warm", resident=("m",)))
    cold = view(node("cold", models=(FAST,)), credit("cold"))
    moment, choices = Moment(), []
    for _ in range(8):
        choices.append(best(found(warm, cold), ASKED, moment))
        if isinstance(choices[-1], Chosen):
            break
    assert [type(choice) for choice in choices[:-1]] == [Held] * (len(choices) - 1)
    assert len(choices) > 1
    assert isinstance(choices[-1], Chosen)


def test_steps_that_wait_for_another_model_share_no_load() -> None:
    """However many: of one's own two are enough."""
    slow = FAST.model_copy(update={"load_seconds": 40.0})
    warm = view(node("warm", models=(slow, OTHER)), credit("warm", 0, running=1, free_seconds=4.5, resident=("m",)))
    cold = view(node("cold", models=(slow,)), credit("cold"))
    busy = view(node("busy", models=(OTHER,)), full("busy", resident=("other",)))
    spare = view(node("spare", models=(OTHER.model_copy(update={"load_seconds": 1e3}),)), credit("spare"))
    moment = Moment()
    for _ in range(15):
        assert isinstance(best(found(busy, spare, model="other"), ASKED, moment), Held)
    assert isinstance(held := best(found(warm, cold), ASKED, moment), Held)
    assert (held.node, moment.shared) == ("warm", {"other": 15, "m": 1})


@pytest.mark.parametrize(("since", "held"), [(1.0, True), (hybrid.QUANTUM * 5.0 + 1.0, False)])
def test_a_model_keeps_its_place_for_some_loads_time_while_steps_wait_for_it(since: float, *, held: bool) -> None:
    """Then another one has its turn: neither is starved, and loads cost a fixed share at most."""
    there = view(node("n", models=(FAST, OTHER), most_models=1), credit("n", resident=("other",)))
    moment = Moment(now=since, wanted=frozenset({"m", "other"}))
    choice = best(found(there), ASKED, moment)
    assert isinstance(choice, Held if held else Chosen)
    assert isinstance(best(found(there), ASKED, Moment(now=since, wanted=frozenset({"m"}))), Chosen)


def test_the_model_in_least_demand_is_put_out() -> None:
    """Of two idle nodes with other models."""
    hot = view(node("hot", models=(FAST, OTHER), most_models=1), credit("hot", resident=("other",)))
    idle = FAST.model_copy(update={"name": "idle"})
    cool = view(node("warm", models=(FAST, idle), most_models=1), credit("warm", resident=("idle",)))
    choice = best(found(hot, cool), ASKED, Moment(now=1e3, heat={"other": 1.0}))
    assert isinstance(choice, Chosen)
    assert choice.node == "warm"


@pytest.mark.parametrize("of", list(PriorityClass))
def test_only_batch_waits_for_a_faster_node(of: PriorityClass) -> None:
    """Who reads along gets the place that there is."""
    fast = view(node("fast", models=(FAST,)), full("fast", resident=("m",)))
    slow = view(node("slow", models=(SLOW,)), credit("slow", resident=("m",)))
    choice = best(found(fast, slow), ASKED._replace(priority_class=of), Moment())
    assert isinstance(choice, Held if of is PriorityClass.BATCH else Chosen)


def test_places_that_are_offered_to_other_routers_are_asked_for() -> None:
    """A far better node whose free places are another's is waited for, a moment."""
    theirs = view(node("fast", models=(FAST,), slots=2), credit("fast", 0, resident=("m",), offers={"r2": 2}))
    mine = view(node("slow", models=(SLOW,)), credit("slow", resident=("m",)))
    choice = best(found(theirs, mine), ASKED, Moment(now=5.0))
    assert isinstance(choice, Held)
    assert choice.node == "fast"
    alone = best(found(theirs), ASKED, Moment(now=5.0))
    assert alone is None or isinstance(alone, Held)


def test_the_reasons_of_losers_are_told() -> None:
    """By what each would have been first without, and how many had no place."""
    load = view(node("cold", models=(FAST,)), credit("cold"))
    slower = view(node("slow", models=(SLOW,)), credit("slow", resident=("m",)))
    nothing = view(node("none", models=(FAST,)), credit("none", 0))
    taken = view(node("n", models=(FAST.model_copy(update={"decode_tokens_per_second": 90.0}),)), credit("n", resident=("m",)))
    choice = choose(step(model="m", estimated_tokens=600), [load, slower, nothing, taken], 0.0)
    assert isinstance(choice, Chosen)
    told = why.read(choice.why())
    assert told is not None
    assert (told.node, {loser.node: loser.reason for loser in told.losers}, told.others) == (
        "n",
        {"cold": "load", "slow": "slower"},
        {"no place": 1},
    )
    assert "not cold: load" in "\n".join(why.in_words(told))
    assert why.in_short("an older planner's words") == "an older planner's words"


def test_an_explanation_fits_its_bound_with_the_longest_names() -> None:
    """Of a thousand nodes eight are told at most, the rest is counted."""
    name = "n" * 120
    views = [view(node(f"{name}{n}", models=(FAST,)), credit(f"{name}{n}", resident=("m",))) for n in range(1_000)]
    choice = best(found(*views), ASKED, Moment())
    assert isinstance(choice, Chosen)
    told = why.read(choice.why())
    assert told is not None
    assert len(choice.why()) <= why.MOST_BYTES
    assert len(told.losers) + sum(told.others.values()) == 999


def chat(*said: str, **changes: Any) -> Any:
    return step(model="m", estimated_tokens=2_000, messages=[ChatMessage(role="user", content=text) for text in said], **changes)


def test_a_chat_goes_on_where_it_was_read() -> None:
    """To the node of its last call, though another is a little faster; not when that has much to do, nor long afterwards."""
    long = "word " * 1_500
    quick = FAST.model_copy(update={"prefill_tokens_per_second": 2_200.0})
    known = Placement(NodeTable(1e9), CreditLedger("r1", lost_seconds=1e9, forgotten_seconds=1e9))
    for name, model in (("a", FAST), ("b", quick)):
        known.table.on_node(node(name, models=(model,), slots=4), 0.0)

    def offer(sequence: int, busy: int = 0) -> None:
        for name in ("a", "b"):
            places = 4 if sequence else 4 * (name == "a")
            told = credit(name, places, sequence=sequence, resident=("m",), running=busy if name == "a" else 0)
            known.ledger.on_credits(told, float(sequence))

    def given(asked: Any, now: float) -> str:
        known.begin_round(now)
        choice = known.choose(demand_of(asked), ask_of(asked, now=now))
        assert isinstance(choice, Chosen)
        return choice.node

    offer(0)
    assert given(chat(long, "answer", "next"), 0.0) == "a"  # b has no place
    offer(1)
    assert given(chat("something else", "answer", "next"), 1.0) == "b"
    assert given(chat(long, "answer", "next", "answer", "and then"), 1.0) == "a"
    assert given(chat(long, "answer", "next", tenant="other"), 1.0) == "b"
    offer(2, busy=3)
    assert given(chat(long, "answer", "next", "answer", "and then"), 2.0) == "b"
    offer(3)
    assert given(chat(long, "answer", "next"), 3.0 + 301.0) == "b"
