"""What is refused because no registered node could ever answer it: never anything that some node might."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingress.admission.suitability import Offer, refusal
from services.ingress.catalogue import Registry
from services.ingress.problems import Problem
from shared.contracts.chat import ChatMessage
from shared.contracts.job import Job
from shared.contracts.node import Ability, Node, NodeModel
from tests.support.ingress_world import node

LOST_SECONDS = 150.0


def model(name: str = "m", window: int | None = None, **fields: Any) -> NodeModel:
    return NodeModel(name=name, window=window, **fields)


def having(name: str, *models: NodeModel, **fields: Any) -> Node:
    return node(name, **fields).model_copy(update={"models": models})


def registry(*nodes: Node, now: float = 0.0) -> Registry:
    found = Registry(LOST_SECONDS)
    for each in nodes:
        found.table.on_node(each, now)
    found.refresh(now)
    return found


def chat(*texts: str, **fields: Any) -> Job:
    return Job(**{"model": "m", "messages": tuple(ChatMessage(role="user", content=text) for text in texts), **fields})


def judged(job: Job, *nodes: Node) -> Problem | None:
    offer = registry(*nodes).catalogue.offer((job.model, *job.fallback_models), job.kind.value)
    return refusal(job, offer)


def code_of(job: Job, *nodes: Node) -> str | None:
    found = judged(job, *nodes)
    return None if found is None else found.code


LONG = chat("word " * 5_000)


def test_a_prompt_beyond_the_largest_window_is_refused_in_openais_words() -> None:
    """With the largest window there is; one that might fit is not refused."""
    found = judged(LONG, having("a", model(window=2_048)), having("b", model(window=4_096)))
    assert found is not None
    assert (found.status, found.code, found.param, found.details) == (400, "context_length_exceeded", "messages", {"window": 4_096})
    assert "maximum context length is 4096 tokens" in found.message
    assert "at least 5000" in found.message
    assert judged(LONG, having("a", model(window=2_048)), having("b", model(window=5_000))) is None


@pytest.mark.parametrize("state", [{"draining": True}, {"reachable": False}, {}])
def test_nodes_that_are_away_count(state: dict[str, Any]) -> None:
    """Draining, not reachable, or not heard of for long: it may come back. Only a withdrawn one is forgotten."""
    found = registry(having("large", model(window=8_192), **state), having("small", model(window=2_048)))
    for now in (0.0, LOST_SECONDS + 1):
        found.table.on_node(having("small", model(window=2_048)), now)
        found.refresh(now)
        assert refusal(LONG, found.catalogue.offer(("m",), "chat")) is None
    assert [each.id for each in found.table] == ["small"]
    found.table.on_gone("large")
    found.refresh(LOST_SECONDS + 2)
    assert refusal(LONG, found.catalogue.offer(("m",), "chat")) is not None


def test_what_is_not_told_is_not_held_against_anybody() -> None:
    """No window told, a model that nobody registers, no node at all."""
    assert judged(LONG, having("a", model(window=10)), having("b", model())) is None
    assert judged(LONG, having("a", model("other", window=10))) is None
    assert judged(LONG) is None
    assert code_of(LONG, having("a", model(context_length=100))) == "context_length_exceeded"


def test_auto_and_fallbacks_are_judged_by_the_best_of_them() -> None:
    """`auto` by the models that can do the operation; a fallback that nobody registers might come."""
    nodes = (having("a", model("m", window=100), model("n", window=9_000), model("e", window=9_999, operations=("embed",))),)
    assert judged(LONG.model_copy(update={"model": "auto"}), *nodes) is None
    assert judged(LONG.model_copy(update={"fallback_models": ("n",)}), *nodes) is None
    assert judged(LONG.model_copy(update={"fallback_models": ("unheard",)}), *nodes) is None
    assert judged(chat("word " * 9_500, model="auto"), *nodes) is not None
    assert judged(chat("word " * 200), *nodes) is not None


def test_the_name_without_its_tag_is_the_same_model() -> None:
    """As everywhere: `m` is `m:latest`."""
    assert judged(LONG, having("a", model("m:latest", window=10))) is not None


def test_texts_to_embed_are_each_a_call() -> None:
    """Many short ones fit where one long one does not."""
    embedder = having("a", model("e", window=256, operations=("embed",)))
    assert judged(Job(model="e", texts=("word " * 200,) * 50), embedder) is None
    assert judged(Job(model="e", texts=("x", "word " * 300)), embedder) is not None


def test_thoughts_of_earlier_turns_do_not_count() -> None:
    """Templates leave them out, so they may be longer than any window."""
    thoughtful = ChatMessage(role="assistant", content="<think>" + "hm " * 5_000 + "</think>yes")
    assert judged(chat("hi").model_copy(update={"messages": (thoughtful,)}), having("a", model(window=100))) is None


@pytest.mark.parametrize(
    ("fields", "ability", "param"),
    [
        ({"messages": (ChatMessage(role="user", content="look", images=("QUJD",)),)}, "vision", "messages"),
        ({"tools": ({"type": "function", "function": {"name": "f"}},)}, "tools", "tools"),
    ],
)
def test_what_every_node_says_it_cannot_is_refused(fields: dict[str, Any], ability: Ability, param: str) -> None:
    """One that can, or does not say, is enough to try; `auto` is judged by all models."""
    job = chat("hi", **fields)
    no, yes, silent = model(abilities={ability: False}), model(abilities={ability: True}), model()
    found = judged(job, having("a", no), having("b", no))
    assert found is not None
    assert (found.status, found.code, found.param) == (400, "unsupported", param)
    assert judged(chat("hi"), having("a", no)) is None
    assert judged(job, having("a", no), having("b", yes)) is None
    assert judged(job, having("a", no), having("b", silent)) is None
    auto = job.model_copy(update={"model": "auto"})
    assert judged(auto, having("a", no, model("n", abilities={ability: True}))) is None
    assert code_of(auto, having("a", no, model("n", abilities={ability: False}))) == "unsupported"


@given(st.lists(st.text(max_size=60), min_size=1, max_size=5), st.integers(1, 40))
def test_nothing_is_refused_that_has_no_more_words_than_the_window(texts: list[str], window: int) -> None:
    """The bound is one from below, whatever signs there are; counting is left out only where it could not refuse."""
    words = sum(len(text.split()) for text in texts)
    found = refusal(chat(*texts), Offer(window))
    assert (found is not None) == (words > window)
