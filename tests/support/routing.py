"""Nodes, credits, steps and records as the tests of router and delay make them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from shared.contracts.credits import Credits
from shared.contracts.node import Node, NodeModel
from shared.contracts.step import Step
from shared.kafka.port import Headers
from shared.placement.filters import NodeView
from shared.placement.ledger import NodeCredit

MODEL = NodeModel(name="small:1b", size_bytes=10**9, context_length=8192, operations=("chat", "generate"))


@dataclass(frozen=True, slots=True)
class FakeRecord:
    """Satisfies `port.Record`."""

    topic: str = "steps.chat.standard"
    partition: int = 0
    offset: int = 0
    timestamp: int = 0
    key: bytes | None = None
    value: bytes | None = b"{}"
    headers: Headers = field(default=())


def node(name: str = "n1", **changes: Any) -> Node:
    return Node(**({"id": name, "boot": "b1", "mailbox": 0, "backend": "ollama", "models": (MODEL,), "at": 0.0} | changes))


def step(**changes: Any) -> Step:
    return Step(**({"job": "j1", "id": "0" * 32, "home": 0} | changes))


def credit(name: str = "n1", places: int = 1, *, router: str = "r1", **changes: Any) -> Credits:
    given = {"node": name, "boot": "b1", "sequence": 0, "mailbox": 0, "offers": {router: places}, "read": {"chat": 0, "embed": 0}}
    return Credits(**(given | changes))


def view(registered: Node, record: Credits | None = None) -> NodeView:
    """A live node, with as many places as its record offers to router r1."""
    account = NodeCredit(registered.id)
    account.fold(record or credit(registered.id), "r1", 0.0)
    return NodeView(registered, account)
