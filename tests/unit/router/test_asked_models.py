"""Nobody gets another model than he asked for: by the router's choice, and by the worker's, unless he left it to them or named others."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.worker import registration
from shared.contracts.node import NodeModel
from shared.model_names import AUTO, canonical
from shared.placement.choosing import Chosen, choose
from tests.support.routing import node, step, view

NAMES = ("a", "a:latest", "a:1b", "b", "b:1b", "c")
names = st.sampled_from(NAMES)
held = st.lists(names, min_size=1, max_size=4, unique=True).map(lambda found: tuple(NodeModel(name=name) for name in found))


@given(st.sampled_from((AUTO, *NAMES)), st.lists(names, max_size=2), st.lists(held, min_size=1, max_size=4))
def test_what_is_chosen_was_asked_for(asked: str, fallbacks: list[str], nodes: list[tuple[NodeModel, ...]]) -> None:
    """A name without a tag means `latest`; nothing else is the same model."""
    wanted = step(model=asked, fallback_models=tuple(fallbacks))
    allowed = {canonical(name) for name in (asked, *fallbacks)}
    choice = choose(wanted, [view(node(f"n{number}", models=found)) for number, found in enumerate(nodes)], 0.0)
    if isinstance(choice, Chosen) and asked != AUTO:
        assert canonical(choice.model) in allowed
    for found in nodes:
        tried = registration.candidates(wanted, found)
        assert asked == AUTO or {canonical(name) for name in tried} <= allowed
