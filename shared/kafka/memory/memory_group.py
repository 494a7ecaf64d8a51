"""Consumer groups of the in-memory log: Kafka's classic protocol with eager rebalances, as aiokafka speaks it.

A change of members makes every member give up everything and join again; when all have joined, or the rebalance timeout has passed
(who has not joined is dropped), the generation rises and the first member's assignor decides. A commit needs the current generation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from shared.errors import CommitRefused
from shared.kafka.memory.memory_cluster import MemoryCluster
from shared.kafka.port import Assignor, TopicPartition


@dataclass(frozen=True, slots=True)
class _Joined:
    """What a member learns at the end of a rebalance."""

    generation: int
    partitions: Sequence[TopicPartition]
    """Sorted: what follows from their order is the same in every process, whatever it hashes strings with."""


@dataclass(eq=False, slots=True)
class GroupMember:
    """One consumer in a group. `rejoin` is called when it is to give up its partitions and join again."""

    client_id: str
    topics: frozenset[str]
    assignor: Assignor
    rejoin: Callable[[], None]
    id: str = ""
    joining: asyncio.Future[_Joined | None] | None = None
    expiry: asyncio.TimerHandle | None = field(default=None, repr=False)


class MemoryGroup:
    """Members, generation and committed offsets of one group."""

    def __init__(self, name: str, log: MemoryCluster) -> None:
        self.name = name
        self.generation = 0
        self.offsets: dict[TopicPartition, int] = {}
        self.topic_ids: dict[TopicPartition, str] = {}
        """Of which topic of that name each offset is."""
        self._log = log
        log.topics_listeners.append(self._on_topics_changed)
        self._members: dict[str, GroupMember] = {}
        self._rebalancing = False
        self._deadline: asyncio.TimerHandle | None = None

    def contains(self, member: GroupMember) -> bool:
        return self._members.get(member.id) is member

    def member_count(self) -> int:
        return len(self._members)

    def wants(self, member: GroupMember) -> bool:
        """Whether the member is to join: it is not in the group, or the group rebalances and waits for it."""
        return not self.contains(member) or (self._rebalancing and member.joining is None)

    async def join(self, member: GroupMember) -> _Joined | None:
        """Wait for the end of the rebalance that this causes or takes part in. None: thrown out meanwhile, join again."""
        if not self.contains(member):
            member.id = f"{member.client_id}-{self._log.next_number()}"
            self._members[member.id] = member
        joining: asyncio.Future[_Joined | None] = asyncio.get_running_loop().create_future()
        member.joining = joining
        self._begin_rebalance()
        self._complete_when_all_joined()
        return await joining

    def leave(self, member: GroupMember) -> None:
        """A clean leave, or the end of a session: the others rebalance."""
        if not self.contains(member):
            return
        del self._members[member.id]
        self._cancel_expiry(member)
        _finish(member, None)
        if self._members:
            self._begin_rebalance()
            self._complete_when_all_joined()

    def stop_heartbeats(self, member: GroupMember) -> None:
        """The member's process hangs or is dead: its session expires."""
        self._cancel_expiry(member)
        member.expiry = self._later(self._log.timings.session, self.leave, member)

    def resume_heartbeats(self, member: GroupMember) -> None:
        """The process goes on; when its session has expired meanwhile, the next heartbeat tells it so."""
        self._cancel_expiry(member)
        if not self.contains(member):
            self._notify(member)

    def evict(self, member: GroupMember) -> None:
        """As if the session had expired just now; the member learns it from its next heartbeat."""
        self.leave(member)
        self._notify(member)

    def evict_any(self, random: Random) -> bool:
        """Evict one member, drawn at random; False when there is none."""
        if not self._members:
            return False
        self.evict(random.choice(list(self._members.values())))
        return True

    def _on_topics_changed(self, topics: Collection[str]) -> None:
        self.offsets = {tp: offset for tp, offset in self.offsets.items() if tp.topic in self._log.topics}
        if any(member.topics.intersection(topics) for member in self._members.values()):
            self._begin_rebalance()

    def commit(
        self, member: GroupMember | None, generation: int, offsets: Mapping[TopicPartition, int], topic_ids: Mapping[str, str]
    ) -> None:
        """Keep `offsets` of topics that exist. Raises CommitRefused for an old generation, or without membership while the group has
        members.
        """
        if member is None:
            if self._members:
                raise CommitRefused(f"group {self.name} has members")
        elif not self.contains(member) or generation != self.generation or (self._rebalancing and member.joining):
            raise CommitRefused
        there = {tp: offset for tp, offset in offsets.items() if tp.topic in self._log.topics}
        self.offsets.update(there)
        self.topic_ids.update({tp: topic_ids.get(tp.topic, "") for tp in there})
        self._log.committed(self.name, there)

    def committed(self, partition: TopicPartition) -> int | None:
        """None also when it was committed of another topic of that name."""
        known = self.topic_ids.get(partition, "")
        return self.offsets.get(partition) if not known or known == self._log.topic_ids.get(partition.topic) else None

    def _begin_rebalance(self) -> None:
        if self._rebalancing:
            return
        self._rebalancing = True
        self._deadline = self._later(self._log.timings.rebalance, self._drop_laggards)
        for member in self._members.values():
            if member.joining is None:
                self._notify(member)

    def _notify(self, member: GroupMember) -> None:
        """The member learns it from its next heartbeat."""
        delay = self._log.faults.draw((0.0, self._log.timings.heartbeat))
        self._later(delay, member.rejoin)

    def _later(self, seconds: float, callback: Callable[..., None], *args: object) -> asyncio.TimerHandle:
        """A timer of the cluster's: it runs whatever becomes of the process whose call set it."""
        return asyncio.get_running_loop().call_later(seconds, callback, *args, context=self._log.context)

    def _drop_laggards(self) -> None:
        for member in [m for m in self._members.values() if m.joining is None]:
            del self._members[member.id]
            self._cancel_expiry(member)
            self._notify(member)
        self._complete_when_all_joined()

    def _complete_when_all_joined(self) -> None:
        if not self._rebalancing or any(member.joining is None for member in self._members.values()):
            return
        self._rebalancing = False
        if self._deadline is not None:
            self._deadline.cancel()
        self.generation += 1
        if not self._members:
            return
        assigned = self._assign()
        for member in self._members.values():
            _finish(member, _Joined(self.generation, sorted(assigned.get(member.id, ()))))

    def _assign(self) -> Mapping[str, Collection[TopicPartition]]:
        leader = next(iter(self._members.values()))
        names = {member.assignor.name for member in self._members.values()}
        assert names == {leader.assignor.name}, f"group {self.name} mixes assignors: {sorted(names)}"
        members = {m.id: (sorted(m.topics), m.assignor.user_data()) for m in self._members.values()}
        topics = {topic for member in self._members.values() for topic in member.topics}
        counts = {topic: count for topic in sorted(topics) if (count := self._log.partition_count(topic))}
        return leader.assignor.assign(members, counts)

    @staticmethod
    def _cancel_expiry(member: GroupMember) -> None:
        if member.expiry is not None:
            member.expiry.cancel()
            member.expiry = None


def _finish(member: GroupMember, joined: _Joined | None) -> None:
    future, member.joining = member.joining, None
    if future is not None and not future.done():
        future.set_result(joined)
