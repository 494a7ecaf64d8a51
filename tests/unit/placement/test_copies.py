"""Who holds which model: where all have read the same, as many nodes load it as are missing, and the best ones."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.node import HOURS, Hardware, Node, NodeModel
from shared.placement.copies import keeps, turn, wanted


def node(name: str, *, resident: bool = False, beside: tuple[str, ...] = (), speed: float = 10.0, **fields: Any) -> Node:
    """It has `m`, and others in memory."""
    models = (NodeModel(name="m", resident=resident, decode_tokens_per_second=speed, size_bytes=4),)
    others = tuple(NodeModel(name=other, resident=True, size_bytes=4) for other in beside)
    given = {"id": name, "boot": "b", "mailbox": 0, "backend": "ollama", "manages": "chat", "at": 0.0, "models": models + others}
    return Node.model_validate(given | fields)


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(1, 100)), max_size=8), st.integers(0, 8))
def test_as_many_load_it_as_are_missing(drawn: list[tuple[bool, bool, float]], copies: int) -> None:
    """At once; the others, if they can, when it is their turn; nobody who has it, or where enough have it. And as many keep it."""
    nodes = [node(f"n{n}", resident=there, speed=speed, reachable=up) for n, (there, up, speed) in enumerate(drawn)]
    up = [one for one in nodes if one.reachable]
    there = sum(one.models[0].resident for one in up)
    turns = [turn("m", one.id, nodes, copies) for one in nodes]
    assert turns.count(0) == max(0, min(copies - there, len(up) - there))
    assert sum(found is not None for found in turns) == (len(up) - there if copies > there else 0)
    assert sum(keeps("m", one.id, nodes, copies) for one in nodes) == min(copies, there)


def test_the_best_one_is_first() -> None:
    """Where it fits, then where it is fast; not where it is drained, asleep, broken, or where nobody loads at a word."""
    full = node("full", beside=("a",), speed=99.0, most_models=1)
    heavy = node("heavy", beside=("a",), speed=99.0, hardware=Hardware(vram_bytes=7))
    others = [node("slow", speed=1.0), node("quick", speed=20.0), full, heavy]
    odd: tuple[dict[str, Any], ...] = ({"draining": True}, {"asleep": True}, {"broken": True}, {"manages": None})
    lost = [node(str(n), speed=50.0, **fields) for n, fields in enumerate(odd)]
    order = {one.id: turn("m", one.id, [*others, *lost], 1) for one in [*others, *lost]}
    assert order == {"quick": 0, "slow": 1, "full": 2, "heavy": 3} | dict.fromkeys("0123")
    assert turn("m:latest", "quick", others, 1) == 0
    assert turn("other", "quick", others, 1) is None


def test_copies_follow_the_calls_of_the_hour() -> None:
    """Of all nodes together, and how long a call takes on the quickest; none for a call now and then; no more than can have it."""

    def asked(count: int) -> dict[str, tuple[int, ...]]:
        return {"m": tuple(count if hour == 9 else 0 for hour in range(HOURS))}

    def nodes(*counts: int) -> list[Node]:
        return [node(f"n{n}", speed=25.6, demand=asked(count)) for n, count in enumerate(counts)]

    assert wanted("m", nodes(1, 0, 0), 9) == 0
    assert wanted("m", nodes(1, 1, 0), 9) == 1
    assert wanted("m", nodes(250, 250, 0), 9) == 2  # ten seconds each, of a node's hour and 70 %
    assert wanted("m", nodes(250, 250, 0), 10) == 0
    assert wanted("m", nodes(9_000, 0, 0), 9) == 3
