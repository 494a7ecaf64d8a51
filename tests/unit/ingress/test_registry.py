"""The registry's fold and what follows from it: known models, what is missing."""

from __future__ import annotations

from services.ingress.catalogue import Registry
from shared.contracts.node import Node, NodeModel
from tests.support.ingress_world import node


def registry(*nodes: Node, now: float = 0.0) -> Registry:
    found = Registry(lost_seconds=150.0)
    for each in nodes:
        found.table.on_node(each, now)
    found.refresh(now)
    return found


def test_models_of_all_nodes_are_known_and_latest_is_implied() -> None:
    """`llama3` is `llama3:latest`, as Ollama has it."""
    catalogue = registry(node("a", "llama3:latest"), node("b", "tiny:1")).catalogue
    assert catalogue.models == ("llama3:latest", "tiny:1")
    assert (catalogue.resolve("llama3"), catalogue.resolve("tiny:1"), catalogue.resolve("tiny")) == ("llama3:latest", "tiny:1", None)


def test_nothing_is_unknown_while_no_node_is_registered() -> None:
    """An empty registry refuses no model."""
    assert registry().catalogue.knows_any(["whatever"])
    assert not registry(node("a")).catalogue.knows_any(["whatever"])
    assert registry(node("a")).catalogue.knows_any(["whatever", "tiny:1"])


def test_what_is_missing_is_said() -> None:
    """No node, no capability, no live node with the model."""
    assert registry().catalogue.missing(["auto"], "chat") == ("a live node",)
    assert registry(node("a", draining=True)).catalogue.missing(["auto"], "chat") == ("a live node",)
    assert registry(node("a", capabilities=("embed",))).catalogue.missing(["auto"], "chat") == ("capability chat",)
    both = registry(node("a", "x"), node("b", "y", reachable=False)).catalogue
    assert both.missing(["y"], "chat") == ("a live node with model y",)
    assert both.missing(["x"], "chat") == ()
    assert both.missing(["auto"], "chat") == ()


def test_a_node_that_sleeps_is_known_and_may_be_asked_for() -> None:
    """It is silent for hours: a router wakes it for what waits. It has no places meanwhile. One that yields is its owner's."""
    found = registry(node("a", "x", asleep=True), node("b", "y"))
    found.table.on_node(node("b", "y"), 10_000.0)
    found.refresh(10_000.0)
    assert found.catalogue.resolve("x") == "x"
    assert found.catalogue.missing(["x"], "chat") == ()
    assert found.catalogue.slots["chat"] == node("b").slots
    assert registry(node("a", "x", yields="the owner is there")).catalogue.missing(["x"], "chat") == ("a live node",)


def test_silent_nodes_and_tombstones_are_forgotten() -> None:
    """A node counts for as long as it registers."""
    found = registry(node("a"), node("b"))
    found.table.on_node(node("a"), 100.0)
    found.refresh(200.0)
    assert [each.id for each in found.table] == ["a"]
    found.table.on_gone("a")
    found.refresh(201.0)
    assert found.catalogue.nodes == 0


def test_only_simulators_is_said() -> None:
    """One real live node is enough to be not simulated."""
    assert registry(node("a", simulated=True)).catalogue.simulated
    assert not registry(node("a", simulated=True), node("b")).catalogue.simulated
    assert not registry().catalogue.simulated


def test_tools_are_no_models() -> None:
    """A node of tools adds no model's name, answers no chat, and is no simulator's witness."""
    served = NodeModel(name="calculator", operations=("tool",))
    tools = node("t", capabilities=("tools",)).model_copy(update={"models": (served,)})
    catalogue = registry(tools, node("a", simulated=True)).catalogue
    assert (catalogue.models, catalogue.nodes, catalogue.simulated) == (("tiny:1",), 1, True)
    assert catalogue.missing(["auto"], "tools") == ("capability tools",)
    assert registry(tools).catalogue.knows_any(["whatever"])
