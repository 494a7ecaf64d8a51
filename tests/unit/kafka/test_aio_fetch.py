"""What a heeded fetch keeps of its answer, and that aiokafka decides the rest as it would without."""

from __future__ import annotations

import asyncio
import itertools
from types import SimpleNamespace
from typing import Any

import aiokafka
import pytest
from aiokafka import TopicPartition as Theirs
from aiokafka import errors as kafka
from aiokafka.consumer.fetcher import Fetcher, FetchResult
from aiokafka.consumer.subscription_state import Assignment
from aiokafka.protocol.fetch import FetchRequest, FetchResponse_v11
from hypothesis import given
from hypothesis import strategies as st

from infra.lab import virtual_loop
from shared.clock import LoopClock
from shared.kafka.client.aio_fetch import HeedfulFetcher, heed_fetches

PARTITIONS = [Theirs(topic, number) for topic in ("a", "b") for number in range(3)]
ASKED = 5
OUT_OF_RANGE = 1


class Client:
    """A broker: answers with `answer`, raises it where it is an error."""

    def __init__(self, leaders: dict[Theirs, int]) -> None:
        self.cluster = SimpleNamespace(_partitions={}, leader_for_partition=leaders.get, broker_metadata=lambda node: node)
        self.answer: Any = FetchResponse_v11(0, 0, 0, [])

    async def send(self, node: int, request: FetchRequest) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def force_metadata_update(self) -> None:
        """Asked for after a lost leader."""


def fetcher(client: Client, *, heeded: bool = True) -> Any:
    """Without its background task."""
    made = Fetcher.__new__(Fetcher)
    made.__dict__.update(
        {"_records": {}, "_in_flight": set(), "_preferred_read_replica": {}, "_client": client, "_client_rack": None},
        _fetch_max_wait_ms=500, _fetch_min_bytes=1, _fetch_max_bytes=99, _max_partition_fetch_bytes=7, _isolation_level=0,
        _fetcher_timeout=0.2, _prefetch_backoff=0.1, _retry_backoff=0, _default_reset_strategy=-2, _key_deserializer=None,
        _value_deserializer=None, _check_crcs=True,
    )  # fmt: skip
    if heeded:
        assert heed_fetches(SimpleNamespace(_fetcher=made))  # type: ignore[arg-type]
        assert isinstance(made, HeedfulFetcher)
    return made


def assigned() -> Any:
    assignment = Assignment(PARTITIONS)
    for tp in PARTITIONS:
        assignment.state_value(tp).seek(ASKED)
    return assignment


FOUND = st.tuples(st.sampled_from([0, 0, 0, OUT_OF_RANGE, 6, 99]), st.integers(0, 9), st.sampled_from([b"", b"", b"\0" * 30]))


@given(st.lists(FOUND, min_size=6, max_size=6), st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5)))
def test_errors_are_kept_and_the_rest_is_as_aiokafka_leaves_it(found: list[Any], moved: set[int], lost: set[int]) -> None:
    """Whichever partitions fail, were sought elsewhere or are reset meanwhile: all errors make their topics doubtful, a position counts as
    out of range unless the reader has left it; high water, stable offset, position, errors and the wake-up are aiokafka's.
    """

    async def answer(*, heeded: bool) -> tuple[list[Any], Any]:
        client, assignment = Client(dict.fromkeys(PARTITIONS, 1)), assigned()
        made = fetcher(client, heeded=heeded)
        [(node, request)] = made._get_actions_per_node(assignment)[0]
        for number in moved:
            assignment.state_value(PARTITIONS[number]).seek(8)
        for number in lost:
            assignment.state_value(PARTITIONS[number]).await_reset(-1)
        parts = [
            (tp.partition, error, high, high - 1, 0, None, -1, records)
            for tp, (error, high, records) in zip(PARTITIONS, found, strict=True)
        ]
        client.answer = FetchResponse_v11(0, 0, 0, [("a", parts[:3]), ("b", parts[3:])])
        woken = await made._proc_fetch_request(assignment, node, request)
        states = [assignment.state_value(tp) for tp in PARTITIONS]
        known = [(state.highwater, state.lso, state.timestamp is None, state._position, state.reset_strategy) for state in states]
        errors = {tp: (type(kept), str(getattr(kept, "_error", ""))) for tp, kept in made._records.items()}
        return [woken, known, errors], getattr(made, "oddities", None)

    theirs, _ = asyncio.run(answer(heeded=False))
    ours, oddities = asyncio.run(answer(heeded=True))
    assert ours == theirs
    failed = {number: error for number, (error, *_) in enumerate(found) if error}
    assert oddities.doubtful == {PARTITIONS[number].topic for number in failed}
    gone = {number for number, error in failed.items() if error == OUT_OF_RANGE and not (number in moved and number not in lost)}
    assert oddities.out_of_range == {PARTITIONS[number]: ASKED for number in gone}


def test_without_an_answer_all_that_was_asked_is_doubtful() -> None:
    """A broker that fails may come back with other topics."""

    async def fail() -> set[str]:
        client, assignment = Client(dict.fromkeys(PARTITIONS, 1)), assigned()
        made = fetcher(client)
        [(node, request)] = made._get_actions_per_node(assignment)[0]
        client.answer = kafka.RequestTimedOutError()
        assert not await made._proc_fetch_request(assignment, node, request)
        return set(made.oddities.doubtful)

    assert asyncio.run(fail()) == {"a", "b"}


def test_a_rebalance_during_the_fetch_discards_the_answer() -> None:
    """Nothing is said of partitions that are others' by now."""

    async def discard() -> None:
        client, assignment = Client(dict.fromkeys(PARTITIONS, 1)), assigned()
        made = fetcher(client)
        [(node, request)] = made._get_actions_per_node(assignment)[0]
        client.answer = FetchResponse_v11(0, 0, 0, [("a", [(0, OUT_OF_RANGE, 9, 9, 0, None, -1, b"")])])
        assignment._unassign()
        assert not await made._proc_fetch_request(assignment, node, request)
        assert not made.oddities

    asyncio.run(discard())


def test_a_partition_without_leader_is_asked_for_with_pauses() -> None:
    """As of a topic that is gone: aiokafka asks for metadata again as soon as it has an answer, a thousand times a second."""

    async def ask() -> None:
        assignment = Assignment(PARTITIONS)
        made, asked = fetcher(Client(dict.fromkeys(PARTITIONS[1:], 1))), 0
        clock = LoopClock()
        until = clock.monotonic() + 0.95
        while clock.monotonic() < until:
            _, _, seconds, stale, _ = made._get_actions_per_node(assignment)
            asked += stale
            await clock.sleep(0.001 if stale else seconds)
        assert asked == 10

    virtual_loop.run(ask())


class Unread:
    """Records of a partition that a fetch has brought."""

    def __init__(self, count: int) -> None:
        self.next_fetch_offset, self._end = ASKED, ASKED + count

    def __iter__(self) -> Unread:
        return self

    def __next__(self) -> Any:
        if self.next_fetch_offset == self._end:
            raise StopIteration
        self.next_fetch_offset += 1
        return SimpleNamespace(value=b"v")

    def close(self) -> None:
        """Nothing is held."""


@given(st.lists(st.integers(1, 40), min_size=6, max_size=6), st.integers(1, 9))
def test_partitions_take_turns(counts: list[int], most: int) -> None:
    """However much one has brought: no other one waits for a second piece of it; nothing is left behind."""

    async def read() -> list[tuple[Theirs, int]]:
        reading, assignment = fetcher(Client({})), assigned()
        reading.__dict__.update(_subscriptions=None, _wait_consume_future=None, _max_partition_fetch_bytes=99)
        for tp, count in zip(PARTITIONS, counts, strict=True):
            reading._records[tp] = FetchResult(tp, assignment=assignment, partition_records=Unread(count), backoff=0)
        taken: list[tuple[Theirs, int]] = []
        while reading._records:
            taken += [(tp, len(records)) for tp, records in reading._drain((), most).items()]
        return taken

    taken = virtual_loop.run(read())
    assert {tp: sum(n for one, n in taken if one == tp) for tp in PARTITIONS} == dict(zip(PARTITIONS, counts, strict=True))
    waits = {tp: [i for i, (one, _) in enumerate(taken) if one == tp] for tp in PARTITIONS}
    assert all(later - earlier <= len(PARTITIONS) for places in waits.values() for earlier, later in itertools.pairwise([-1, *places]))


def test_another_version_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The consumer then works as aiokafka made it."""
    made = Fetcher.__new__(Fetcher)
    monkeypatch.setattr(aiokafka, "__version__", "0.15.0")
    assert not heed_fetches(SimpleNamespace(_fetcher=made))  # type: ignore[arg-type]
    assert type(made) is Fetcher
