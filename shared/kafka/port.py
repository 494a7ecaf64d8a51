"""The log port: what tutti needs of Kafka, and nothing more. Two adapters implement it: `aio.AioLog` and `memory.MemoryLog`;
`tests/contract/test_log_behaviour.py` is the suite that both pass.

Obligations common to all methods: they run on the event loop, never block it, and raise only `shared.errors.LogError` kinds
(programming mistakes raise AssertionError). Cancelling an awaiting caller never corrupts the object.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, Required, TypedDict, Unpack

Headers = Sequence[tuple[str, bytes]]


class TopicPartition(NamedTuple):
    """One partition of one topic. Equal to, and hashed like, aiokafka's own tuple of that name."""

    topic: str
    partition: int


class Record(Protocol):
    """A record as read. aiokafka's ConsumerRecord satisfies it as it is, so nothing is copied on the hot path."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...  # milliseconds since the epoch, set by producer or broker
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...  # those without a value are left out


@dataclass(slots=True)
class Unreadable:
    """What lies where records cannot be unpacked: one of these for each, or for a whole batch, at its last offset. Satisfies `Record`.

    It is no tombstone: `shared.processing.readable` turns it into an InvalidRecord.
    """

    topic: str
    partition: int
    offset: int
    reason: str
    """One sentence. It names the offsets where there are several, and quotes nothing of them."""
    # What could be read for the dead letter, all the same: odd bytes of a header's name stand as \\xNN.
    timestamp: int = 0
    key: bytes | None = None
    value: bytes | None = None
    headers: Headers = ()
    shredded: bool = False
    """It is sealed, and its key went with its tenant: that is as it should be, and a fault of nobody's."""


@dataclass(slots=True)
class OriginalRecord:
    """A record as it was before it was sealed, or sent on. Satisfies `Record`."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    tenant: str | None
    """With whose key it is sealed; none: with the one of nobody in particular, or with none."""


def tenant_of(record: Record) -> str | None:
    """For whom the record was sealed, for whoever sends it on as it is."""
    return getattr(record, "tenant", None) or None


class Message(NamedTuple):
    """A record to be written. Without `partition` the key chooses (murmur2 mod n), without a key they rotate."""

    topic: str
    value: bytes | None
    key: bytes | None = None
    partition: int | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    tenant: str | None = None
    """Whose it is, where it holds something of one: not written, but with his key it is sealed (`shared.sealing`)."""


class Appended(NamedTuple):
    """Where a message came to lie. `offset` is -1 when the broker does not know (only with acks=0 or a de-duplicated retry)."""

    topic: str
    partition: int
    offset: int


class Producer(Protocol):
    """Writes records. One per process and purpose, for the life of the process. Bounded: callers wait when too much is in flight.

    An error that breaks an idempotent session ends everything outstanding in SendFailed; the next call opens a new session by itself.
    Nothing is ever sent again behind the caller's back.
    """

    async def send(self, message: Message) -> Appended:
        """Write one record; returns when it is acknowledged. Raises SendFailed (fate unknown) or RecordTooLarge (not sent)."""
        ...

    async def send_many(self, messages: Sequence[Message]) -> list[Appended | Exception]:
        """Write all, in as few record batches as possible, in order per partition.

        Returns one entry a message, in order: where it lies, or the LogError that befell it. Never raises for a single message.
        """
        ...

    async def append(self, partition: TopicPartition, messages: Sequence[Message]) -> int:
        """Write all of `messages` as ONE record batch; returns the offset of the first, the others follow contiguously.

        At most one append a partition may be outstanding (asserted). Raises RecordTooLarge when they do not fit one batch
        (nothing is sent), SendFailed when the fate is unknown.
        """
        ...

    async def close(self) -> None:
        """Send what is waiting (bounded by the request timeout), then free everything. Idempotent."""
        ...


class RebalanceListener(Protocol):
    """Told of every change of a group consumer's assignment. Called on the event loop, before polling goes on.

    What it raises comes out of the next `poll`.
    """

    async def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        """Everything that was assigned (never called with nothing). Must return within the rebalance timeout; commits are still possible
        here, and refused from then on. Not called by `close`.
        """
        ...

    async def on_assigned(self, partitions: Collection[TopicPartition]) -> None:
        """The new complete assignment. May seek and pause; nothing has been fetched yet."""
        ...


class Assignor(Protocol):
    """Decides, in the group's leader, who reads what. An instance belongs to one consumer and may keep state."""

    @property
    def name(self) -> str: ...

    def user_data(self) -> bytes:
        """What the leader learns of this member (its weight, version and present numbers)."""
        ...

    def assign(
        self, members: Mapping[str, tuple[Sequence[str], bytes]], partitions: Mapping[str, int]
    ) -> Mapping[str, Sequence[TopicPartition]]:
        """members: id → (subscribed topics, user data); partitions: topic → count. Returns id → partitions. Pure."""
        ...

    def on_assignment(self, partitions: Collection[TopicPartition]) -> None:
        """This member's own new assignment."""
        ...


MISSED = 100
"""So many of them are kept until somebody takes them away."""


class MissedRecords(NamedTuple):
    """Records that were gone before this reader came to them: reading went on at `offset` instead of `expected`.

    `offset` below `expected`: the log went back (truncated after an unclean election).
    """

    partition: TopicPartition
    expected: int
    offset: int


class HeldBack(NamedTuple):
    """Of one partition: where the open transaction begins, and how many offsets lie from there to the end."""

    offset: int
    records: int


class Consumer(Protocol):
    """Reads records. Either `assign` (no group management) or `subscribe` (group), once, before the first poll.

    A position belongs to a topic, not to a name. When a topic was deleted and made anew, no record of the new one is given under the old
    position: for a group that is a rebalance, after which `identity` tells another id and reading begins at the beginning; whoever assigned
    by hand gets TopicMadeAnew from `poll`, once, and reads on from the beginning. A commit names the topic's id with each offset, so that
    `committed` passes over what was committed of another topic of that name, also when such a commit came late.
    """

    @property
    def missed(self) -> MutableSequence[MissedRecords]:
        """What was deleted unread, newest last and bounded. Whoever watches takes it away; readers that position themselves add to it."""
        ...

    def assign(self, partitions: Collection[TopicPartition]) -> None:
        """Read exactly these, from their committed offset if there is a group, else by the reset policy. May be called again."""
        ...

    async def subscribe(self, topics: Collection[str], listener: RebalanceListener | None = None) -> None:
        """Join the group. Returns at once; the listener hears of the assignment. One that does not exist is assigned when it does."""
        ...

    async def poll(
        self, *, timeout_seconds: float, max_records: int | None = None, partitions: Collection[TopicPartition] | None = None
    ) -> Mapping[TopicPartition, Sequence[Record]]:
        """Records that have arrived, waiting up to `timeout_seconds` for the first. `partitions` restricts (the rest stays buffered).

        At most `max_records`, else `POLL_RECORDS`; of one partition at most `max_partition_fetch_bytes`, soft by one batch. After a poll
        that brought many, other tasks have their turn before the next: what a reader does with one poll is all that it does in one go.

        Nothing that a record holds makes this raise: what cannot be unpacked comes as `Unreadable`, and reading goes on behind it.
        """
        ...

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """One OffsetCommit with all of `offsets` (next offset to read). Raises CommitRefused (old generation, foreign partition)
        or LogUnavailable.
        """
        ...

    async def committed(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int | None]: ...
    async def position(self, partition: TopicPartition) -> int: ...
    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read on from `offset`. Raises LogError when the partition is not assigned (any more)."""
        ...

    async def beginning_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]: ...
    async def end_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]: ...
    async def offset_at(self, partition: TopicPartition, timestamp_ms: int) -> int:
        """Offset of the first record written at or after `timestamp_ms` (epoch milliseconds); the end when there is none."""
        ...

    def identity(self, topic: str) -> str | None:
        """The id of an assigned topic whose records are given; None while it is not known."""
        ...

    def reached(self, partition: TopicPartition) -> int | None:
        """The position as it is known here, without asking: everything before it was given. It passes what is no record (compaction,
        the marks of transactions). None: not known.
        """
        ...

    def held_back(self) -> dict[TopicPartition, HeldBack]:
        """What waits behind an open transaction on assigned partitions, as the broker last told; only with `committed_only`."""
        ...

    def pause(self, *partitions: TopicPartition) -> None:
        """Give nothing of these until `resume`; what was fetched of them is fetched again. Passes over what is not assigned.

        A new assignment has nothing paused.
        """
        ...

    def resume(self, *partitions: TopicPartition) -> None: ...
    def assignment(self) -> frozenset[TopicPartition]:
        """What is owned right now; empty from the end of `on_revoked` to the next assignment."""
        ...

    async def close(self) -> None:
        """Leave the group and free everything. Commits nothing. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class NewTopic:
    """A topic to be created. `config` holds Kafka's topic configuration names."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TopicInfo:
    name: str
    partitions: int
    id: str
    """Another one when the topic was deleted and made anew."""


class Admin(Protocol):
    """Cluster administration; short-lived."""

    async def create_topics(self, topics: Sequence[NewTopic]) -> list[str]:
        """Creates those that do not exist; returns their names. An existing topic is left as it is."""
        ...

    async def add_partitions(self, counts: Mapping[str, int]) -> None:
        """Each topic has so many then, more than before: none can ever be taken away."""
        ...

    async def list_topics(self) -> dict[str, TopicInfo]: ...
    async def topic_configs(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        """Every configuration in force, defaults included, of each topic that exists."""
        ...

    async def delete_topics(self, names: Sequence[str]) -> None: ...
    async def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Deletes every record below the offset given for its partition, for all readers and for good. Not more than there are."""
        ...

    async def group_offsets(self, group: str) -> dict[TopicPartition, int]: ...
    async def cluster_id(self) -> str: ...
    async def close(self) -> None: ...


Reset = Literal["earliest", "latest", "none"]


class ConsumerOptions(TypedDict, total=False):
    """What a consumer is opened with; the defaults stand in `AioLog.consumer`."""

    client_id: Required[str]
    group: str | None
    """With one, commits are possible. None: no group."""
    reset: Reset
    """Where to begin without a committed offset: earliest unless said."""
    assignor: Assignor | None
    fetch_max_wait_ms: int
    """So long a fetch waits for records."""
    paused_max_wait_ms: int | None
    """The same while a partition is paused: resumed, it waits for the fetch in flight. None: the same."""
    max_partition_fetch_bytes: int
    committed_only: bool
    """Of foreign transactions only what was committed, and nothing behind one that is open; `end_offsets` then ends in front of it."""


class Log(Protocol):
    """A Kafka cluster, or its stand-in in memory. Factory methods wait for the cluster with bounded backoff, until cancelled."""

    @property
    def trouble(self) -> str | None:
        """Why the brokers did not let us in when we last tried, for people; None: they did, or nobody answered."""
        ...

    @property
    def unheard(self) -> bool:
        """Of what one of its producers has sent nothing was acknowledged for a while: too few replicas, or no leader."""
        ...

    async def producer(self, *, client_id: str, acks: Literal["all", 1] = "all", linger_ms: int = 0) -> Producer:
        """acks="all" is idempotent (no duplicates by retries); acks=1 is not and is for chunks only."""
        ...

    async def consumer(self, **options: Unpack[ConsumerOptions]) -> Consumer:
        """With `group` commits are possible; `assign` and `subscribe` decide about membership."""
        ...

    async def admin(self) -> Admin: ...
    async def close(self) -> None: ...
