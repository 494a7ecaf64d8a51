"""Properties of the assignors: complete, exclusive, the same numbers of all home topics, balanced, and little movement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ConfigurationError
from shared.kafka.assignor import BalancedAssignor, HomeAssignor, decode_facts, encode_facts, share_out
from shared.kafka.port import TopicPartition

HOME = ("jobs.interactive", "jobs.standard", "jobs.batch", "outcomes", "job-events")

counts = st.integers(min_value=1, max_value=40)
names = st.lists(st.text("abcdefgh", min_size=1, max_size=3), min_size=1, max_size=8, unique=True)


def assign(assignors: Mapping[str, HomeAssignor | BalancedAssignor], topics: Mapping[str, int]) -> dict[str, list[TopicPartition]]:
    """One rebalance: every member tells, the first decides, every member learns."""
    members = {name: (tuple(topics), assignor.user_data()) for name, assignor in assignors.items()}
    leader = next(iter(assignors.values()))
    assigned = leader.assign(members, topics)
    for name, assignor in assignors.items():
        assignor.on_assignment(assigned[name])
    return assigned


def numbers_of(assigned: Mapping[str, Sequence[TopicPartition]]) -> dict[str, set[int]]:
    return {member: {number for _, number in partitions} for member, partitions in assigned.items()}


def moved(before: Mapping[str, set[int]], after: Mapping[str, set[int]]) -> int:
    """Numbers that a member had and another one has now."""
    return sum(len(held - after.get(member, set())) for member, held in before.items())


@given(names, counts)
def test_every_number_of_every_topic_has_one_owner_and_all_topics_the_same(members: list[str], count: int) -> None:
    """Complete, exclusive and co-partitioned; nobody holds two more numbers than another."""
    assigned = assign({name: HomeAssignor(count) for name in members}, dict.fromkeys(HOME, count))
    owners = Counter(tp for partitions in assigned.values() for tp in partitions)
    assert owners == Counter(TopicPartition(topic, number) for topic in HOME for number in range(count))
    for partitions in assigned.values():
        by_topic = [{number for topic, number in partitions if topic == wanted} for wanted in HOME]
        assert all(numbers == by_topic[0] for numbers in by_topic)
    sizes = [len(numbers) for numbers in numbers_of(assigned).values()]
    assert max(sizes) - min(sizes) <= 1


@given(names, counts, st.lists(st.tuples(st.booleans(), st.integers(0, 7)), max_size=6))
def test_joins_and_leaves_move_only_what_balance_demands(members: list[str], count: int, changes: list[tuple[bool, int]]) -> None:
    """A join moves at most its own share, a leave only the leaver's numbers plus at most one a member for balance."""
    topics = dict.fromkeys(HOME, count)
    group = {name: HomeAssignor(count) for name in members}
    before = numbers_of(assign(group, topics))
    for step, (join, which) in enumerate(changes):
        if join:
            group[f"new{step}"] = HomeAssignor(count)
        elif len(group) > 1:
            del group[list(group)[which % len(group)]]
        after = numbers_of(assign(group, topics))
        staying = {member: held for member, held in before.items() if member in group}
        needed = sum(max(0, len(held) - len(after[member])) for member, held in staying.items())
        assert moved(staying, after) <= needed + 1
        if not join:
            assert needed == 0
        before = after


@given(names, counts)
def test_nothing_moves_when_nothing_changes(members: list[str], count: int) -> None:
    """A rebalance without change is a no-op, whatever order the members are met in."""
    group = {name: HomeAssignor(count) for name in members}
    topics = dict.fromkeys(HOME, count)
    before = numbers_of(assign(group, topics))
    assert numbers_of(assign(dict(reversed(group.items())), topics)) == before


def test_only_the_newest_version_gets_numbers() -> None:
    """During an upgrade old planners are left without partitions, so that they never read a newer planner's events."""
    group = {"old": HomeAssignor(6, version=1), "new": HomeAssignor(6, version=2), "newer": HomeAssignor(6, version=2)}
    assigned = numbers_of(assign(group, dict.fromkeys(HOME, 6)))
    assert assigned["old"] == set()
    assert {len(assigned["new"]), len(assigned["newer"])} == {3}


@pytest.mark.parametrize(
    ("topic", "count", "given"), [("jobs.batch", 12, 6), ("jobs.batch", 3, 3), ("jobs.batch", None, 0), ("outcomes", 7, 6)]
)
def test_a_topic_that_changed_takes_no_number_from_the_others(topic: str, count: int | None, given: int) -> None:
    """Grown, made anew with fewer partitions, or deleted: the other topics' numbers stay, and nobody owns what is beyond the homes."""
    there = {name: 6 for name in HOME if name != topic} | ({} if count is None else {topic: count})
    assigned = assign({"a": HomeAssignor(6), "b": HomeAssignor(6)}, there)
    owned = [tp for partitions in assigned.values() for tp in partitions]
    assert sorted(owned) == sorted(TopicPartition(name, n) for name in HOME for n in range(given if name == topic else 6))
    assert all(set(numbers) == {tp.partition for tp in assigned[m]} for m, numbers in numbers_of(assigned).items())


def test_a_group_whose_newest_members_miss_a_topic_is_a_configuration_error() -> None:
    """Nobody could own a number completely."""
    members = {"a": (HOME[:-1], HomeAssignor(6, version=2).user_data()), "b": (HOME, HomeAssignor(6, version=1).user_data())}
    with pytest.raises(ConfigurationError, match="subscribes to all"):
        HomeAssignor(6).assign(members, dict.fromkeys(HOME, 4))


@given(names, st.integers(1, 30), st.integers(1, 30))
def test_balanced_assignment_is_complete_exclusive_and_even(members: list[str], first: int, second: int) -> None:
    """Over all topics together nobody holds two more partitions than another."""
    assigned = assign({name: BalancedAssignor() for name in members}, {"a": first, "b": second})
    owners = Counter(tp for partitions in assigned.values() for tp in partitions)
    assert set(owners.values()) == {1}
    assert len(owners) == first + second
    sizes = [len(partitions) for partitions in assigned.values()]
    assert max(sizes) - min(sizes) <= 1


def test_weights_are_proportions_and_a_join_moves_little() -> None:
    """Weights 1, 1, 4 share 12 as 2, 2, 8; a fourth member of weight 1 takes at most 3."""
    group = {"a": BalancedAssignor(), "b": BalancedAssignor(), "c": BalancedAssignor(weight=4)}
    before = {member: set(partitions) for member, partitions in assign(group, {"t": 12}).items()}
    assert [len(before[member]) for member in "abc"] == [2, 2, 8]
    group["d"] = BalancedAssignor()
    after = {member: set(partitions) for member, partitions in assign(group, {"t": 12}).items()}
    assert sum(len(before[member] - after[member]) for member in "abc") <= 3
    assert sum(len(partitions) for partitions in after.values()) == 12


def test_members_read_only_what_they_subscribed_to() -> None:
    """Different subscriptions in one group are honoured."""
    members = {"a": (("t", "u"), b""), "b": (("t",), b"")}
    assigned = BalancedAssignor().assign(members, {"t": 4, "u": 3, "unread": 2})
    assert {topic for topic, _ in assigned["b"]} == {"t"}
    assert sum(map(len, assigned.values())) == 7


@given(st.integers(0, 60), st.dictionaries(st.sampled_from("abcdef"), st.floats(0.001, 1000.0), min_size=1), st.data())
def test_shares_are_proportional_to_the_nearest_whole(count: int, weights: dict[str, float], data: st.DataObject) -> None:
    """Whatever members claim to hold, every unit has one owner and every share is its exact proportion rounded up or down."""
    held = {member: data.draw(st.lists(st.integers(-3, 70), max_size=30)) for member in weights}
    shares = share_out(range(count), weights, held)
    assert sorted(unit for share in shares.values() for unit in share) == list(range(count))
    total = sum(weights.values())
    for member, share in shares.items():
        assert abs(len(share) - count * weights[member] / total) < 1 + 1e-6


@given(st.binary(max_size=200))
def test_foreign_user_data_counts_as_nothing_held(data: bytes) -> None:
    """A broken member cannot stop the group."""
    facts = decode_facts(data)
    assert facts.weight > 0
    HomeAssignor(6).assign({"a": (HOME, data), "b": (HOME, HomeAssignor(6).user_data())}, dict.fromkeys(HOME, 3))
    BalancedAssignor().assign({"a": (HOME, data)}, dict.fromkeys(HOME, 3))


def test_facts_survive_the_wire() -> None:
    """User data is JSON with version, weight and what is held."""
    facts = (2, 1.5, (1, 2, 3))
    assert decode_facts(encode_facts(*facts)) == facts
