"""Advice for each thing that may be wrong with a node."""

from __future__ import annotations

from typing import Any

import pytest

from shared.contracts.node import Advice, Hardware, Node, NodeModel
from shared.placement.advice import advice

GIB = 2**30
CARD = Hardware(vram_bytes=24 * GIB)
SLOW = NodeModel(name="m:70b", size_bytes=40 * GIB, resident=True, decode_tokens_per_second=1.2)
SPILLED = NodeModel(name="m:8b", size_bytes=5 * GIB, resident=True, loaded_bytes=30 * GIB, vram_bytes=22 * GIB)
INSIDE = NodeModel(name="m:8b", size_bytes=5 * GIB, resident=True, loaded_bytes=9 * GIB, vram_bytes=9 * GIB)


def node(**changes: Any) -> Node:
    model = NodeModel(name="m:7b", size_bytes=4 * GIB, resident=True, decode_tokens_per_second=30)
    base: dict[str, Any] = {"id": "n1", "boot": "b", "mailbox": 0, "backend": "ollama", "slots": 4, "models": (model,), "at": 1.0}
    return Node(**base | changes)


@pytest.mark.parametrize(
    ("changes", "silent", "found"),
    [
        ({}, 0.0, []),
        ({}, 60.0, [("bad", "Silent for 60 s")]),
        ({"draining": True}, 60.0, [("note", "no new work")]),
        ({"draining": True, "maintenance": True}, 0.0, [("note", "out of service")]),
        ({"draining": True, "maintenance": True}, 60.0, [("bad", "Silent"), ("note", "out of service")]),
        ({"asleep": True}, 6_000.0, [("note", "A router wakes it")]),
        ({"yields": "memory is short"}, 0.0, [("note", "owner: memory is short")]),
        ({"reachable": False}, 0.0, [("bad", "does not answer. Is it running")]),
        ({"reachable": False, "advice": (Advice(code="endpoint", level="bad", text="h:1 is dead"),)}, 0.0, [("bad", "h:1 is dead")]),
        ({"waits": True}, 0.0, [("bad", "waits until an earlier process")]),
        ({"models": ()}, 0.0, [("bad", "ollama pull")]),
        ({"models": (), "backend": "tools"}, 0.0, []),
        ({"pause_seconds": 40.0}, 0.0, [("warn", "30 s more")]),
        ({"pause_seconds": 5.0}, 0.0, []),
        ({"models": (SLOW,), "hardware": CARD}, 0.0, [("warn", "larger than its graphics memory: 16.0 of 40.0 GiB")]),
        ({"models": (SPILLED,), "hardware": CARD}, 0.0, [("warn", "8.0 of 30.0 GiB are on the CPU")]),
        ({"models": (INSIDE,), "hardware": CARD}, 0.0, []),
        ({"models": (SPILLED.changed(vram_bytes=0),)}, 0.0, []),  # there is no graphics processor
        ({"models": (SLOW,)}, 0.0, [("warn", "1.2 tokens/s")]),
        ({"version": "0.5.13"}, 0.0, [("warn", "0.5.13 is older than 0.30")]),
        ({"version": "0.34.0"}, 0.0, []),
        ({"version": "0.0.0"}, 0.0, []),
        ({"version": "1.2"}, 0.0, []),
        ({"version": "0.5.13", "backend": "openai"}, 0.0, []),
        ({"advice": (Advice(code="swaps", level="warn", text="many loads"),)}, 0.0, [("warn", "many loads")]),
        ({"simulated": True}, 0.0, [("note", "made up")]),
        ({"simulated": True, "reachable": False}, 60.0, [("bad", "Silent"), ("bad", "does not answer"), ("note", "made up")]),
    ],
)
def test_advice_names_what_is_wrong_and_what_to_do(changes: dict[str, Any], silent: float, found: list[tuple[str, str]]) -> None:
    """The worst first; `pause_seconds` counts from the announcement, here 10 s ago."""
    told = advice(node(**changes), silent, 10.0)
    assert [one.level for one in told] == [level for level, _ in sorted(found, key=lambda pair: ("bad", "warn", "note").index(pair[0]))]
    for _, words in found:
        assert any(words in one.text for one in told), (words, told)
