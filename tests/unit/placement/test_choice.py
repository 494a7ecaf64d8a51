"""What `choose` promises."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.job import Needs
from shared.contracts.node import Hardware, NodeModel
from shared.placement.choosing import Chosen, choose
from shared.placement.demand import cost_of
from shared.placement.filters import NodeView, Unplaceable
from shared.placement.why import read
from tests.support.routing import MODEL, credit, node, step, view

BIG = NodeModel(name="big:70b", size_bytes=40 * 10**9, context_length=131_072)
EMBEDDER = NodeModel(name="nomic:latest", operations=("embed",))


def chosen(choice: object) -> Chosen:
    assert isinstance(choice, Chosen)
    return choice


def missing(choice: object) -> tuple[str, ...]:
    assert isinstance(choice, Unplaceable)
    return choice.missing


def test_no_live_node_is_said_so() -> None:
    """The failure that a user sees names what is missing."""
    assert missing(choose(step(), [], 0.0)) == ("a live node",)


@pytest.mark.parametrize(
    ("changes", "needs", "phrase"),
    [
        ({"model": "none:1b"}, Needs(), "model none:1b for chat"),
        ({"model": "none:1b", "fallback_models": ("nor:1b",)}, Needs(), "model none:1b or nor:1b for chat"),
        ({"capability": "embed"}, Needs(), "capability embed"),
        ({"operation": "embed", "texts": ("a",)}, Needs(), "a model for embed"),
        ({}, Needs(tags=("gpu",)), "tag gpu"),
        ({}, Needs(node="n9"), "node n9"),
        ({}, Needs(min_vram_bytes=24 * 10**9), "24.0 GB of VRAM"),
        ({}, Needs(min_context=100_000), "a model for chat with 100000 tokens of context"),
    ],
)
def test_each_filter_says_what_is_missing(changes: dict[str, object], needs: Needs, phrase: str) -> None:
    """A step that no node can run is Unplaceable, not None, however many places there are."""
    assert missing(choose(step(needs=needs, **changes), [view(node(), credit(places=9))], 0.0)) == (phrase,)


@pytest.mark.parametrize("changes", [{"draining": True}, {"reachable": False}])
def test_a_node_that_leaves_or_is_broken_is_no_candidate(changes: dict[str, Any]) -> None:
    """Draining and unreachable nodes get nothing, places or not."""
    assert len(missing(choose(step(), [view(node(**changes), credit(places=9))], 0.0))) == 1


def test_things_that_exist_but_not_together_are_said_together() -> None:
    """A tag on one node and the model on another is not a node."""
    nodes = [view(node("n1", tags=("gpu",), models=(BIG,))), view(node("n2"))]
    (phrase,) = missing(choose(step(model=MODEL.name, needs=Needs(tags=("gpu",))), nodes, 0.0))
    assert phrase.startswith("one node with all of:")
    assert "tag gpu" in phrase
    assert "small:1b" in phrase


def test_all_needs_can_be_met() -> None:
    """A node that has everything is chosen."""
    able = node("n2", tags=("gpu", "eu"), hardware=Hardware(vram_bytes=48 * 10**9), models=(BIG, MODEL), capabilities=("chat", "code"))
    needs = Needs(tags=("gpu",), min_vram_bytes=40 * 10**9, min_context=100_000, node="n2")
    choice = chosen(choose(step(capability="code", needs=needs), [view(node()), view(able)], 0.0))
    assert (choice.node, choice.model) == ("n2", "big:70b")


def test_full_nodes_are_busy_not_missing() -> None:
    """Being busy is waited for; being absent leaves the partition."""
    assert choose(step(), [view(node("n1"), credit("n1", 0)), view(node("n2"), credit("n2", 0))], 0.0) is None


def test_an_avoided_node_is_used_only_when_it_is_the_only_one() -> None:
    """A retry goes elsewhere when there is an elsewhere, even a busy one."""
    both = [view(node("n1")), view(node("n2"), credit("n2", 0))]
    assert choose(step(avoid=("n1",)), both, 0.0) is None
    assert chosen(choose(step(avoid=("n1",)), both[:1], 0.0)).node == "n1"


def test_what_fails_gets_nothing_and_is_not_missing() -> None:
    """Where a node, or its model, fails: another one that has it; then the fallbacks; then the step waits, and that is said."""
    failing = MODEL.model_copy(update={"broken": True})
    works, fails, broken = view(node("n1", models=(MODEL, BIG))), view(node("n2", models=(failing, BIG))), view(node("n3", broken=True))
    asked = step(model="small:1b")
    assert chosen(choose(asked, [fails, broken, works], 0.0)).node == "n1"
    assert missing(choose(asked, [fails], 0.0)) == ("a node that does not fail at small:1b",)
    assert missing(choose(asked, [broken], 0.0)) == ("a node whose calls do not fail",)
    fallback = step(model="small:1b", fallback_models=("big:70b",))
    assert chosen(choose(fallback, [fails, broken], 0.0)).model == "big:70b"
    assert chosen(choose(fallback, [fails, works], 0.0)).model == "small:1b"
    assert chosen(choose(step(model="auto"), [fails], 0.0)).model == "big:70b"
    only = view(node("n4", models=(failing,)))
    assert missing(choose(step(model="auto"), [only], 0.0)) == ("a node that does not fail at any model",)
    assert missing(choose(step(model="none:1b"), [only], 0.0)) == ("model none:1b for chat",)


def test_a_fallback_model_counts_only_without_the_model_itself() -> None:
    """Order is preference, and a busy model is still there."""
    nodes = [view(node("n1", models=(BIG,)), credit("n1", 0)), view(node("n2"))]
    asked = step(model="big:70b", fallback_models=("small:1b",))
    assert choose(asked, nodes, 0.0) is None
    assert chosen(choose(asked, nodes[1:], 0.0)).model == "small:1b"


def test_a_model_without_tag_means_latest() -> None:
    """As Ollama spells it; the node's own spelling travels on."""
    found = choose(step(model="nomic", operation="embed", texts=("a",)), [view(node(models=(EMBEDDER,)))], 0.0)
    assert chosen(found).model == "nomic:latest"


def test_residency_lowers_cost_but_filters_nothing() -> None:
    """The node with the model in memory is preferred, until its queue costs more than a load elsewhere."""
    cold = view(node("a"), credit("a"))
    warm = view(node("b"), credit("b", resident=("small:1b",)))
    assert chosen(choose(step(), [cold, warm], 0.0)).node == "b"
    swamped = view(node("b"), credit("b", resident=("small:1b",), running=1, queued_tokens=10_000, decode_tokens_per_second=20.0))
    assert chosen(choose(step(), [cold, swamped], 0.0)).node == "a"
    assert chosen(choose(step(), [cold], 0.0)).node == "a"


def test_measured_speed_decides_between_idle_nodes() -> None:
    """Faster for this model wins; what was never measured counts as slow."""
    fast = MODEL.model_copy(update={"decode_tokens_per_second": 100.0, "prefill_tokens_per_second": 2000.0})
    nodes = [view(node("a")), view(node("b", models=(fast,)))]
    choice = chosen(choose(step(estimated_tokens=500), nodes, 0.0))
    assert choice.node == "b"
    why = read(choice.why())
    assert why is not None
    assert (why.node, why.end > why.load > 0, [loser.node for loser in why.losers]) == ("b", True, ["a"])


def test_auto_takes_the_model_that_is_done_first() -> None:
    """A resident small model beats a large one that must be loaded."""
    choice = chosen(choose(step(), [view(node(models=(BIG, MODEL)), credit(resident=("small:1b",)))], 0.0))
    assert choice.model == "small:1b"


def test_the_registration_tells_residency_when_the_credits_had_no_room_for_it() -> None:
    """A credits record leaves the list out when it is too long."""
    resident = MODEL.model_copy(update={"resident": True})
    nodes = [view(node("a")), view(node("b", models=(resident,)))]
    assert chosen(choose(step(), nodes, 0.0)).node == "b"


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5000), st.booleans()), min_size=1, max_size=8),
    st.integers(0, 4000),
)
def test_the_choice_has_a_place_and_is_the_best(facts: list[tuple[int, int, bool]], tokens: int) -> None:
    """Never a full node; never one that another with a place beats; the same answer for any order of the nodes."""
    nodes = [
        view(node(f"n{i}"), credit(f"n{i}", places, queued_tokens=queued, resident=(MODEL.name,) if warm else ()))
        for i, (places, queued, warm) in enumerate(facts)
    ]
    asked = step(estimated_tokens=tokens)
    choice, turned = choose(asked, nodes, 0.0), choose(asked, nodes[::-1], 0.0)
    if choice is None:
        assert all(places == 0 for places, _, _ in facts)
        assert turned is None
        return
    assert (chosen(choice).node, choice.seconds) == (chosen(turned).node, turned.seconds)
    assert chosen(choice).account.available > 0
    alone = [choose(asked, [one], 0.0) for one in nodes]
    assert chosen(choice).seconds <= min(c.seconds for c in alone if isinstance(c, Chosen))


def test_places_spread_over_equal_nodes() -> None:
    """With equal predictions the emptier node is chosen, so bursts spread."""
    nodes: list[NodeView] = [view(node("a"), credit("a", 1)), view(node("b"), credit("b", 2))]
    assert chosen(choose(step(), nodes, 0.0)).node == "b"


HUGE = 10**310
"""Beyond what a float can hold; no contract lets it in any more, and no choice ends a router if one did."""


def test_no_number_ends_a_router() -> None:
    """Neither a size nor a speed of any step or node: it is placed, or what is missing is said."""
    odd = step(estimated_tokens=1).model_copy(update={"estimated_tokens": HUGE, "needs": Needs()})
    slow = MODEL.model_copy(update={"decode_tokens_per_second": 5e-324, "prefill_tokens_per_second": 5e-324, "size_bytes": 1})
    swamped = credit(places=1).model_copy(update={"queued_tokens": HUGE, "decode_tokens_per_second": 5e-324})
    assert chosen(choose(odd, [view(node(models=(slow,)), swamped)], 0.0)).node == "n1"
    wide = step().model_copy(update={"needs": Needs().model_copy(update={"min_vram_bytes": HUGE, "min_context": HUGE})})
    assert any("GB of VRAM" in phrase for phrase in missing(choose(wide, [view(node())], 0.0)))
    assert cost_of(odd) == 10**9
