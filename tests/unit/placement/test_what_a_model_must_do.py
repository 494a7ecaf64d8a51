"""Windows and abilities: a step goes where it fits, asks a larger window when it may not, and ends at once when nothing holds it."""

from __future__ import annotations

from typing import Any

import pytest

from shared.contracts.blob import BlobRef
from shared.contracts.chat import ChatMessage, Operation, Options
from shared.contracts.failure import FailureKind
from shared.contracts.job import Job
from shared.contracts.node import Node, NodeModel
from shared.contracts.step import Step
from shared.inputs import held, input_of
from shared.placement.choosing import Chosen, choose
from shared.placement.demand import demand_of
from shared.placement.filters import NodeView, Unplaceable, candidates
from tests.support.routing import node, step, view


def with_window(name: str, window: int | None, **model: Any) -> Node:
    return node(name, models=(NodeModel(name="m", window=window, **model),))


def saying(words: int, **changes: Any) -> Step:
    return step(model="m", messages=(ChatMessage(role="user", content="word " * words),), **changes)


def names(asked: Step, *nodes: Node, away: tuple[Node, ...] = ()) -> set[str]:
    found = candidates(demand_of(asked), [view(one) for one in nodes], (*nodes, *away))
    assert not isinstance(found, Unplaceable)
    return {candidate.node for candidate in found}


def refused(asked: Step, *nodes: Node, away: tuple[Node, ...] = ()) -> Unplaceable:
    found = candidates(demand_of(asked), [view(one) for one in nodes], (*nodes, *away))
    assert isinstance(found, Unplaceable)
    return found


SMALL, LARGE, UNKNOWN = with_window("small", 2_048), with_window("large", 8_192), with_window("unknown", None)


def test_a_prompt_goes_where_its_fewest_tokens_fit() -> None:
    """Not by the model's own maximum, but by the window that it is loaded with; one that is not told is taken to suffice."""
    assert names(saying(100), SMALL, LARGE, UNKNOWN) == {"small", "large", "unknown"}
    assert names(saying(4_000), SMALL, LARGE, UNKNOWN) == {"large", "unknown"}
    assert names(
        saying(4_000), with_window("loaded", 8_192, context_length=131_072), with_window("idle", 2_048, context_length=131_072)
    ) == {"loaded"}
    assert names(saying(4_000), with_window("maximum", None, context_length=8_192)) == {"maximum"}


def test_what_may_not_fit_is_asked_of_the_largest_window() -> None:
    """Between the fewest and the likely tokens the node's own count decides; a long answer counts as far as it may be."""
    assert names(saying(1_500), SMALL, LARGE) == {"large"}
    assert names(saying(1_500), SMALL, with_window("tiny", 1_800)) == {"small"}
    assert names(saying(800, options=Options(max_tokens=2_000)), SMALL, LARGE) == {"large"}


@pytest.mark.parametrize("text", ["words of prose, and more. ", "\N{CJK UNIFIED IDEOGRAPH-6570}" * 20, "\N{MUSICAL KEYBOARD} a "])
@pytest.mark.parametrize("operation", sorted(set(Operation) - {Operation.TOOL, Operation.CRITIQUE, Operation.MANAGE}))
def test_a_prompt_by_reference_asks_for_the_same(text: str, operation: Operation) -> None:
    """As where it lies in the step itself, whatever its script; also when an answer is to be continued."""
    long = text * 3_000
    given = {"texts": (long, text)} if operation is Operation.EMBED else {"prompt": long}
    asked = Job(operation=operation, system=None if operation is Operation.EMBED else text, **given)
    blob = BlobRef(digest="0" * 32, partition=0, first=0, last=0, chunks=1, size=1, written_at=0)
    prefix = None if operation is Operation.EMBED else text * 100
    inline, reference = input_of(asked, hands_on=True), held(asked, input_of(asked, hands_on=True), blob).input_ref
    fields = {"operation": operation, "prefix": prefix, "options": Options(max_tokens=1_000)}
    there = demand_of(step(messages=inline.messages, prompt=inline.prompt, texts=inline.texts, **fields))
    by_reference = demand_of(step(input_ref=reference, **fields))
    assert by_reference.fewest_tokens == there.fewest_tokens
    assert by_reference.likely_tokens >= there.likely_tokens > 0


def test_what_no_registered_node_could_hold_fails_at_once_and_names_the_largest_window() -> None:
    """A node that is away counts: it may come back. Without any that has the model it is the model that is missing."""
    found = refused(saying(9_000), SMALL, LARGE)
    assert found.hopeless is not None
    assert (found.hopeless.kind, found.hopeless.window) == (FailureKind.CONTEXT_LENGTH, 8_192)
    assert refused(saying(4_000), SMALL, away=(LARGE,)).hopeless is None
    assert "a window of more than" in refused(saying(4_000), SMALL, away=(LARGE,)).missing[0]
    assert refused(saying(9_000), SMALL, away=(UNKNOWN,)).hopeless is None
    assert refused(saying(9_000), node("other", models=(NodeModel(name="other"),))).hopeless is None


def test_after_a_node_has_counted_only_a_larger_window_is_tried() -> None:
    """Neither the same nor a smaller one, nor the node itself where its window is not known."""
    again = saying(10, beyond_window=2_048, avoid=("small",))
    assert names(again, SMALL, LARGE) == {"large"}
    found = refused(again, SMALL)
    assert found.hopeless is not None
    assert found.hopeless.kind is FailureKind.CONTEXT_LENGTH
    unknown = saying(10, beyond_window=0, avoid=("unknown",))
    assert names(unknown, UNKNOWN, LARGE) == {"large"}
    assert refused(unknown, UNKNOWN).hopeless is not None


def test_a_models_maximum_is_not_told_as_its_window_when_a_node_has_counted_less() -> None:
    """Beyond the maximum itself it is what there is."""
    grand = node("grand", models=(NodeModel(name="m", context_length=131_072),))
    for demand, told in ((saying(10, beyond_window=0, avoid=("grand",)), None), (saying(140_000), 131_072)):
        found = refused(demand, grand).hopeless
        assert found is not None
        assert found.window == told


def test_embeddings_are_measured_text_by_text() -> None:
    """Each must fit for itself."""
    vectors = node("v", models=(NodeModel(name="m", window=2_048, operations=("embed",)),))
    short, long_ = ("word " * 500,) * 20, ("word " * 3_000,)
    assert names(step(model="m", operation=Operation.EMBED, texts=short), vectors) == {"v"}
    assert refused(step(model="m", operation=Operation.EMBED, texts=long_), vectors).hopeless is not None


PICTURE = (ChatMessage(role="user", content="what is this?", images=("iVBORw0KGgo=",)),)
TOOL = ({"type": "function", "function": {"name": "f"}},)


@pytest.mark.parametrize(
    ("changes", "ability"),
    [({"messages": PICTURE}, "vision"), ({"tools": TOOL}, "tools")],
)
def test_a_model_is_asked_only_for_what_it_does_not_deny(changes: dict[str, Any], ability: str) -> None:
    """`auto` finds one that can; a named one that cannot, on any node, is refused at once: no waiting changes it."""
    able, blind = with_window("able", None, abilities={ability: True}), with_window("blind", None, abilities={ability: False})
    silent = with_window("silent", None)
    for model in ("m", "auto"):
        assert names(step(model=model, **changes), able, blind, silent) == {"able", "silent"}
    found = refused(step(model="m", **changes), blind)
    assert found.hopeless is not None
    assert found.hopeless.kind is FailureKind.UNSUPPORTED
    assert refused(step(model="m", **changes), blind, away=(able,)).hopeless is None
    waiting = refused(step(model="auto", **changes), blind)
    assert waiting.hopeless is None
    assert ability in waiting.missing[0]
    assert waiting.unable is not None
    assert waiting.unable.kind is FailureKind.UNSUPPORTED
    assert refused(step(model="auto", **changes), blind, away=(able,)).unable is None
    assert names(step(model="m"), blind) == {"blind"}


def test_sizes_are_rounded_so_that_demands_stay_few() -> None:
    """Lanes are one a demand: a thousand prompts of different lengths must not be a thousand lanes. Never rounded above what is there."""
    demands = [demand_of(saying(words)) for words in range(1, 20_000, 17)]
    assert len(set(demands)) < 100
    assert all(demand.fewest_tokens <= words for demand, words in zip(demands, range(1, 20_000, 17), strict=True))


def test_the_chosen_one_is_told_by_its_own_spelling() -> None:
    """As before, with a window asked for."""
    choice = choose(saying(4_000), [NodeView(LARGE, view(LARGE).account)], 0.0)
    assert isinstance(choice, Chosen)
    assert (choice.node, choice.model) == ("large", "m")
