"""Targets: where a task on a model is done: named, tagged, so many copies, all; disk and memory are looked at first."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from services.ingress.admission.targets import TaskOrder, targets
from shared.contracts.node import Hardware, Node, NodeModel
from shared.problem import Refused

GB = 1_000_000_000


def node(name: str, *models: NodeModel, free: float | None = 100, vram: float = 24, **fields: Any) -> Node:
    hardware = Hardware(vram_bytes=int(vram * GB), disk_free_bytes=None if free is None else int(free * GB))
    return Node(
        **{"id": name, "boot": "b", "mailbox": 0, "backend": "ollama", "manages": "chat", "at": 0.0, **fields},
        hardware=hardware,
        models=models,
    )


def model(name: str = "m:1", size: float = 10, **fields: Any) -> NodeModel:
    return NodeModel(name=name, size_bytes=int(size * GB), **fields)


FLEET = (
    node("a", model(), free=5, tags=("gpu",)),
    node("b", model(resident=True), model("big:1", 20, pinned=True), free=50, tags=("gpu", "eu")),
    node("c", free=80),
    node("d", free=None),
    node("e", free=3),
    node("f", free=500, draining=True),
    node("g", free=500, manages=None),
    node("h", free=500, reachable=False),
    node("i", manages="embed", free=20, capabilities=()),
)


def chosen(action: str, **fields: Any) -> list[str]:
    return [target.node for target in targets(TaskOrder(**{"action": action, "model": "m:1", **fields}), FLEET)]


@pytest.mark.parametrize(
    ("order", "found"),
    [
        ({"action": "pull"}, ["b"]),
        ({"action": "pull", "copies": 2}, ["b", "a"]),
        ({"action": "pull", "copies": 4}, ["b", "a", "c", "i"]),
        ({"action": "pull", "model": "new:1"}, ["c"]),
        ({"action": "pull", "model": "new:1", "copies": 3, "size_bytes": 30 * GB}, ["c", "b", "d"]),
        ({"action": "pull", "all": True}, ["a", "b", "c", "d", "i"]),
        ({"action": "pull", "tags": ["gpu", "eu"]}, ["b"]),
        ({"action": "pull", "nodes": ["h", "c"]}, ["h", "c"]),
        ({"action": "delete"}, ["a", "b"]),
        ({"action": "delete", "nodes": ["a"]}, ["a"]),
        ({"action": "copy", "to": "n:1"}, ["a", "b"]),
        ({"action": "load"}, ["b"]),
        ({"action": "load", "copies": 2}, ["b", "a"]),
        ({"action": "pin", "tags": ["gpu"]}, ["a", "b"]),
        ({"action": "unload"}, ["a", "b"]),
        ({"action": "unpin", "model": "big:1"}, ["b"]),
    ],
)
def test_the_nodes_of_a_task(order: dict[str, Any], found: list[str]) -> None:
    """Those that have it first, then those with most room; a node that is away is waited for where it is named."""
    assert chosen(**order) == found


@pytest.mark.parametrize(
    ("order", "status", "words"),
    [
        ({"action": "pull", "nodes": ["e"], "size_bytes": 10 * GB}, 409, "3.0 GB of disk are free, 10.0 GB are needed"),
        ({"action": "pull", "copies": 9}, 409, "of 9 nodes can pull m:1"),
        ({"action": "pull", "nodes": ["g"]}, 404, "no node g that manages models; there are a, b, c"),
        ({"action": "load", "nodes": ["c"]}, 409, "it does not have the model"),
        ({"action": "load", "model": "none:1"}, 404, "no node that manages models has the model 'none:1'"),
        ({"action": "delete", "model": "none:1"}, 404, "no node that manages models has the model 'none:1'"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_queued(order: dict[str, Any], status: int, words: str) -> None:
    with pytest.raises(Refused) as caught:
        chosen(**order)
    assert (caught.value.problem.status, words in caught.value.problem.message) == (status, True), caught.value.problem.message


def test_memory_that_is_pinned_is_not_there_for_another() -> None:
    full = node("x", model("old:1", 20, resident=True, pinned=True), model("m:1", 10))
    with pytest.raises(Refused) as caught:
        targets(TaskOrder(action="pin", model="m:1"), [full])
    assert "4.0 GB of memory are not pinned, 10.0 GB are needed" in caught.value.problem.message


@pytest.mark.parametrize(
    "order",
    [
        {"action": "pull", "nodes": ["a"], "all": True},
        {"action": "copy"},
        {"action": "pull", "to": "x"},
        {"action": "delete", "copies": 1},
        {"action": "pull", "model": "auto"},
        {"action": "pull", "model": "tier:small"},
        {"action": "pull", "nodes": [""]},
        {"action": "paint"},
    ],
)
def test_an_order_that_says_two_things_is_none(order: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TaskOrder(**{"model": "m:1", **order})
