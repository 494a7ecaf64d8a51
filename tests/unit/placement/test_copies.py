"""Who holds which model: where all have read the same, as many nodes load it as are missing, and the best ones."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.node import HOURS, Hardware, Node, NodeModel
from shared.placement.copies import by_model, expected, finds_place, keeps, turn, wanted


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
    able = by_model(nodes)["m:latest"]
    turns = [turn(one.id, able, copies) for one in nodes]
    assert turns.count(0) == max(0, min(copies - there, len(up) - there))
    assert sum(found is not None for found in turns) == (len(up) - there if copies > there else 0)
    assert sum(keeps(one.id, able, copies) for one in nodes) == min(copies, there)


def test_the_best_one_is_first() -> None:
    """Where it fits, then where it is fast; not where it is drained, asleep, broken, or where nobody loads at a word."""
    full = node("full", beside=("a",), speed=99.0, most_models=1)
    heavy = node("heavy", beside=("a",), speed=99.0, hardware=Hardware(vram_bytes=7))
    others = [node("slow", speed=1.0), node("quick", speed=20.0), full, heavy]
    odd: tuple[dict[str, Any], ...] = ({"draining": True}, {"asleep": True}, {"broken": True}, {"manages": None})
    lost = [node(str(n), speed=50.0, **fields) for n, fields in enumerate(odd)]
    able = by_model([*others, *lost])
    order = {one.id: turn(one.id, able["m:latest"], 1) for one in [*others, *lost]}
    assert order == {"quick": 0, "slow": 1, "full": 2, "heavy": 3} | dict.fromkeys("0123")
    assert turn("quick", able["other:latest"], 1) is None


def test_a_place_is_where_what_is_loaded_leaves_one() -> None:
    """With its context, which its file's size says nothing of."""
    there = NodeModel(name="a", resident=True, size_bytes=4, loaded_bytes=7)
    full = node("n", hardware=Hardware(vram_bytes=10))
    own = full.models[0]
    assert finds_place(full, own)
    assert not finds_place(full.model_copy(update={"models": (own, there)}), own)


def test_copies_follow_the_calls_of_the_hour() -> None:
    """Of all nodes together, and how long a call takes on the quickest; none for a call now and then; no more than can have it."""

    def asked(count: int) -> dict[str, tuple[int, ...]]:
        return {"m": tuple(count if hour == 9 else 0 for hour in range(HOURS))}

    def nodes(*counts: int) -> list[Node]:
        return [node(f"n{n}", speed=25.6, demand=asked(count)) for n, count in enumerate(counts)]

    def copies(nodes: list[Node], hour: int = 9) -> int:
        return wanted(expected(nodes, hour)["m:latest"], by_model(nodes)["m:latest"])

    assert copies(nodes(1, 0, 0)) == 0
    assert copies(nodes(1, 1, 0)) == 1
    assert copies(nodes(250, 250, 0)) == 2  # ten seconds each, of a node's hour and 70 %
    assert copies(nodes(250, 250, 0), 10) == 0
    assert copies(nodes(9_000, 0, 0)) == 3
