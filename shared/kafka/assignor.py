"""Who reads what in a group: pure, sticky assignors whose instances carry what their own member holds.

`HomeAssignor` gives partition *numbers*: one planner owns the same number of all home topics (jobs.*, outcomes, job-events). A topic that
is missing, or was made anew with another count, takes no number from the others (`topic_news` reports it).
`BalancedAssignor` gives partitions one by one; for groups whose partitions are independent (router, delay).
Both move only what balance demands. What a member holds, its weight and its version travel as JSON in the protocol's user data.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from shared.errors import ConfigurationError
from shared.kafka.port import TopicPartition

Unit = TypeVar("Unit", int, TopicPartition)
Members = Mapping[str, tuple[Sequence[str], bytes]]

MAX_WEIGHT = 1_000_000.0


class _MemberFacts(NamedTuple):
    """What a member tells the leader. `held` is a list of numbers, or of [topic, number] pairs."""

    version: int = 0
    weight: float = 1.0
    held: tuple[Any, ...] = ()


def encode_facts(version: int, weight: float, held: Sequence[Any]) -> bytes:
    """The user data of a member."""
    return json.dumps({"version": version, "weight": weight, "held": held}, separators=(",", ":")).encode()


def decode_facts(data: bytes) -> _MemberFacts:
    """Foreign or broken user data count as a member of version 0 that holds nothing."""
    try:
        raw = json.loads(data)
        weight = float(raw["weight"])
        return _MemberFacts(int(raw["version"]), min(weight, MAX_WEIGHT) if weight > 0 else 1.0, tuple(raw["held"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        return _MemberFacts()


class HomeAssignor:
    """Assigns numbers. Only members of the highest version get any, so that during an upgrade no old planner reads a newer one's events."""

    name = "tutti-home"

    def __init__(self, homes: int, *, version: int = 1) -> None:
        """`homes`: the count that the cluster was made with; numbers beyond it are nobody's."""
        self._homes, self._version = homes, version
        self._held: tuple[int, ...] = ()

    def user_data(self) -> bytes:
        return encode_facts(self._version, 1.0, self._held)

    def on_assignment(self, partitions: Collection[TopicPartition]) -> None:
        self._held = tuple(sorted({number for _, number in partitions}))

    def assign(self, members: Members, partitions: Mapping[str, int]) -> dict[str, list[TopicPartition]]:
        """Raises ConfigurationError when no preferred member subscribes to all topics."""
        facts = {member: decode_facts(data) for member, (_, data) in members.items()}
        newest = max((f.version for f in facts.values()), default=0)
        weights = {m: f.weight for m, f in facts.items() if f.version == newest and set(partitions) <= set(members[m][0])}
        if members and partitions and not weights:
            raise ConfigurationError("no planner of the newest version subscribes to all home topics")
        held = {member: [n for n in facts[member].held if isinstance(n, int)] for member in weights}
        numbers = share_out(range(self._homes), weights, held)
        there = sorted(partitions.items())
        return {m: [TopicPartition(topic, n) for n in numbers.get(m, ()) for topic, count in there if n < count] for m in members}


class BalancedAssignor:
    """Assigns partitions one by one in proportion to the members' weights."""

    name = "tutti-balanced"

    def __init__(self, *, weight: float = 1.0) -> None:
        self._weight = weight
        self._held: tuple[TopicPartition, ...] = ()

    def user_data(self) -> bytes:
        return encode_facts(1, self._weight, self._held)

    def on_assignment(self, partitions: Collection[TopicPartition]) -> None:
        self._held = tuple(sorted(TopicPartition(*tp) for tp in partitions))

    def assign(self, members: Members, partitions: Mapping[str, int]) -> dict[str, list[TopicPartition]]:
        facts = {member: decode_facts(data) for member, (_, data) in members.items()}
        held = {member: _pairs(f.held) for member, f in facts.items()}
        assigned: dict[str, list[TopicPartition]] = {member: [] for member in members}
        for readers, units in _by_readers(members, partitions).items():
            weights = {member: facts[member].weight for member in readers}
            for member, share in share_out(units, weights, held).items():
                assigned[member].extend(share)
        return assigned


def share_out(units: Sequence[Unit], weights: Mapping[str, float], held: Mapping[str, Collection[Unit]]) -> dict[str, list[Unit]]:
    """Every unit to exactly one member, numbers in proportion to weights (to the nearest whole), moving as few units as that allows."""
    if not weights:
        return {}
    claims = _claims(units, sorted(weights), held)
    targets = _targets(len(units), weights, {member: len(claim) for member, claim in claims.items()})
    shares = {member: claim[: targets[member]] for member, claim in claims.items()}
    kept = {unit for share in shares.values() for unit in share}
    free = [unit for unit in reversed(units) if unit not in kept]
    for member, share in shares.items():
        while len(share) < targets[member]:
            share.append(free.pop())
        share.sort()
    return shares


def _claims(units: Sequence[Unit], members: Sequence[str], held: Mapping[str, Collection[Unit]]) -> dict[str, list[Unit]]:
    """What each member holds of `units`; a unit that two claim belongs to the first of them."""
    owner: dict[Unit, str] = {}
    for member in members:
        for unit in held.get(member, ()):
            owner.setdefault(unit, member)
    claims: dict[str, list[Unit]] = {member: [] for member in members}
    for unit in units:
        if unit in owner:
            claims[owner[unit]].append(unit)
    return claims


def _targets(count: int, weights: Mapping[str, float], held: Mapping[str, int]) -> dict[str, int]:
    """Whole shares that add up to `count`. What is left after rounding down goes to those who hold more than their rounded share
    already (so that it need not move), then by largest remainder.
    """
    total = sum(weights.values())
    exact = {member: count * weight / total for member, weight in weights.items()}
    targets = {member: int(share) for member, share in exact.items()}
    order = sorted(weights, key=lambda m: (held[m] <= targets[m], targets[m] - exact[m], m))
    for member in order[: count - sum(targets.values())]:
        targets[member] += 1
    return targets


def _by_readers(members: Members, partitions: Mapping[str, int]) -> dict[tuple[str, ...], list[TopicPartition]]:
    """Partitions grouped by who may read them; in most groups all members subscribe alike and there is one entry.

    Ordered by number, not by topic: a member's share is a stretch of this order, and the work of one topic must not be one member's.
    """
    groups: defaultdict[tuple[str, ...], list[TopicPartition]] = defaultdict(list)
    for topic, count in sorted(partitions.items()):
        readers = tuple(sorted(member for member, (topics, _) in members.items() if topic in topics))
        if readers:
            groups[readers].extend(TopicPartition(topic, number) for number in range(count))
    for units in groups.values():
        units.sort(key=lambda unit: (unit.partition, unit.topic))
    return groups


def _pairs(held: Collection[Any]) -> list[TopicPartition]:
    return [TopicPartition(pair[0], pair[1]) for pair in held if isinstance(pair, list | tuple) and _is_pair(pair)]


def _is_pair(pair: Sequence[Any]) -> bool:
    return len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], int)
