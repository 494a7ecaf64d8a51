"""What the router knows of nodes, and what becomes of steps without one."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.settings import RouterSettings
from services.router.unplaced import Leaves, decide
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import Needs
from shared.contracts.node import Node
from shared.placement.choosing import Placement
from shared.placement.demand import Demand, demand_of
from shared.placement.filters import Unplaceable, seen_models
from shared.placement.ledger import CreditLedger
from shared.processing.node_table import NodeTable
from tests.support.routing import MODEL, credit, node, step, view

POLICY = RouterSettings()


def placement(*nodes: Node) -> Placement:
    registry = NodeTable(silent_seconds=300.0)
    for registered in nodes:
        registry.on_node(registered, 0.0)
    return Placement(registry, CreditLedger("r1", lost_seconds=5.0, forgotten_seconds=300.0))


def placeable(known: Placement) -> bool:
    return not isinstance(known.candidates(demand_of(step())), Unplaceable)


def test_a_node_is_live_when_registered_and_heard_with_the_same_boot() -> None:
    """Neither a registration alone, nor credits alone, nor those of another boot."""
    known = placement(node())
    assert not placeable(known)
    known.ledger.on_credits(credit(boot="b0"), 0.0)
    known.refresh()
    assert not placeable(known)
    known.ledger.on_credits(credit(boot="b1"), 0.1)
    known.refresh()
    assert placeable(known)
    known.ledger.on_credits(credit("n2"), 0.1)
    known.refresh()
    assert len(known.nodes()) == 1


def test_a_change_of_the_registry_is_seen_at_the_next_choice() -> None:
    """What is kept of the filters' work never outlives what it was made from."""
    known = placement(node())
    known.ledger.on_credits(credit(), 0.0)
    known.refresh()
    assert placeable(known)
    known.table.on_node(node(draining=True), 1.0)
    assert not placeable(known)
    known.table.on_node(node(), 2.0)
    assert placeable(known)
    known.table.on_gone("n1")
    assert not placeable(known)


def test_repeating_an_announcement_changes_nothing() -> None:
    """Every minute each node says the same with another time: no reason to begin anew."""
    registry = NodeTable(silent_seconds=300.0)
    registry.on_node(node(at=1.0), 0.0)
    before = registry.version
    registry.on_node(node(at=2.0), 60.0)
    assert registry.version == before
    registry.expire(359.0)
    assert len(registry) == 1
    registry.expire(361.0)
    assert len(registry) == 0
    assert registry.version != before


def test_a_closed_lane_opens_with_the_next_round() -> None:
    """Within a round a lane without places stays closed; places that came free count from the next round on."""
    known = placement(node())
    demand = demand_of(step())
    known.ledger.on_credits(credit(places=0), 0.0)
    known.refresh()
    assert not known.open_lane(demand)
    known.ledger.on_credits(credit(places=1, sequence=1), 0.1)
    assert not known.open_lane(demand)
    known.begin_round(0.1)
    assert known.open_lane(demand)


@given(st.floats(0, 700), st.floats(0, 10), st.none() | st.floats(-10, 100))
def test_a_homeless_step_comes_back_or_fails(before: float, waited: float, left: float | None) -> None:
    """Its age grows by what it waited, never by what it is to wait; it comes back neither after the limit nor after its deadline."""
    homeless = step(unplaced_seconds=before, seconds_left=None if left is None else max(0.0, left))
    fate = decide(homeless, Unplaceable(("a live node",)), waited, inf if left is None else left, POLICY)
    if isinstance(fate, Failure):
        assert before + waited >= POLICY.no_node_limit_seconds
        assert (fate.kind, fate.missing) == (FailureKind.NO_NODE, ("a live node",))
        return
    assert 0 <= fate.seconds <= POLICY.unplaced_max_delay_seconds
    assert fate.step.unplaced_seconds + fate.seconds <= POLICY.no_node_limit_seconds + 1e-6
    assert fate.step.unplaced_seconds == before + waited
    assert (fate.step.missing, fate.step.seconds_left) == (("a live node",), homeless.seconds_left)
    assert left is None or fate.seconds <= max(0.0, left)


def test_waiting_grows_with_age_so_that_delays_are_few() -> None:
    """Within the ten minutes a step passes through delay at most 70 times."""
    homeless, hops, waited = step(), 0, 1.0
    while isinstance(fate := decide(homeless, Unplaceable(("x",)), waited, inf, POLICY), Leaves):
        homeless, hops, waited = fate.step, hops + 1, fate.seconds + 1.0
    assert hops <= 70


@pytest.mark.parametrize("before", [0.0, 60.0])
def test_what_every_model_denies_ends_soon_but_not_at_the_first_look(before: float) -> None:
    """Of nodes that start one may be the first: a step that has waited for any node for a minute leaves once more."""
    denied = Unplaceable(("a model that can do tools",), unable=Failure(kind=FailureKind.UNSUPPORTED, message="no model here can"))
    homeless, waited, hops = step(unplaced_seconds=before, missing=("a live node",)), 1.0, 0
    while isinstance(fate := decide(homeless, denied, waited, inf, POLICY), Leaves):
        homeless, waited, hops = fate.step, fate.seconds + 1.0, hops + 1
    assert fate is denied.unable
    assert hops >= 1
    assert homeless.unplaced_seconds + waited <= before + POLICY.unplaced_max_delay_seconds + 3.0


def test_a_node_that_is_silent_for_long_is_known_until_it_leaves() -> None:
    """It may be asleep: what only it could hold is not refused as impossible. Its own word ends that, or its return."""
    registry = NodeTable(silent_seconds=300.0)
    registry.on_node(node("asleep"), 0.0)
    registry.on_node(node("gone"), 0.0)
    registry.expire(301.0)
    assert len(registry) == 0
    assert {known.id for known in registry.known()} == {"asleep", "gone"}
    registry.on_gone("gone")
    registry.on_node(node("asleep"), 400.0)
    assert [known.id for known in registry.known()] == ["asleep"] == [known.id for known in registry]


def test_preferred_tags_count_where_a_live_node_has_them() -> None:
    """All of them, and the model, and where the step has not failed already, and fits; else any node will do."""
    prefers = Needs(prefers=("gpu", "eu"))
    wanted = demand_of(step(needs=prefers))
    plain, near, other = node("n1"), node("n2", mailbox=1, tags=("eu", "gpu")), node("n3", mailbox=2, tags=("eu", "gpu"), models=())

    def found(*nodes: Node, wanted: Demand = wanted) -> list[str]:
        known = placement(*nodes)
        for one in nodes:
            known.ledger.on_credits(credit(one.id, mailbox=one.mailbox), 0.0)
        candidates = known.candidates(wanted)
        assert not isinstance(candidates, Unplaceable)
        return [candidate.node for candidate in candidates]

    assert found(plain, near, other) == ["n2"]
    assert found(plain, other) == ["n1"]
    assert found(plain, near, wanted=demand_of(step(needs=prefers, avoid=("n2",)))) == ["n1"]
    assert found(near, other, wanted=demand_of(step(needs=prefers, avoid=("n2",)))) == ["n2"]
    narrow = node("n2", mailbox=1, tags=("eu", "gpu"), models=(MODEL.changed(window=3_000),))
    assert found(plain, narrow, wanted=demand_of(step(needs=prefers, prompt="x" * 12_000))) == ["n1"]


def test_what_nodes_tell_of_a_model_is_told_together() -> None:
    """The best state and speed, the largest window, what any can; not of nodes or models that take nothing."""
    slow = MODEL.changed(name="small:1b", decode_tokens_per_second=5.0, window=2048, abilities={"vision": False, "tools": False})
    fast = MODEL.changed(decode_tokens_per_second=50.0, resident=True, abilities={"tools": True})
    embedder = MODEL.changed(name="embedder", operations=("embed",))
    views = [
        view(node("n1", models=(slow, MODEL.changed(name="other")))),
        view(node("n2", models=(fast,)), credit("n2", running=1)),
        view(node("n3", models=(MODEL.changed(name="gone", broken=True), MODEL.changed(name="third"), embedder)), credit("n3")),
        view(node("n4", models=(MODEL.changed(name="drained"),), draining=True)),
    ]
    seen = seen_models(views)
    assert seen.keys() == {"small:1b", "other:latest", "third:latest"}
    small = seen["small:1b"]
    assert (small.state, small.speed, small.window, small.abilities) == ("busy", 50.0, 8192, {"vision": False, "tools": True})
    assert seen["other:latest"].state == "cold"
    assert seen_models([*views[:1], view(node("n2", models=(fast,)))])["small:1b"].state == "free"
