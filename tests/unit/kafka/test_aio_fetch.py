"""The lean fetch cycle against aiokafka's own: same bytes out, same answer in, same decisions, same state afterwards."""

from __future__ import annotations

import asyncio
import io
import random
from types import SimpleNamespace
from typing import Any

import aiokafka
import pytest
from aiokafka import TopicPartition as Theirs
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.subscription_state import Assignment
from aiokafka.protocol.fetch import FetchRequest, FetchResponse_v11
from hypothesis import example, given
from hypothesis import strategies as st

from shared.clock import LoopClock
from shared.kafka.client.aio_fetch import LeanFetcher, LeanRequest, LeanResponse, hasten
from tests.support import virtual_loop

INT16 = st.integers(-(2**15), 2**15 - 1)
INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
NAMES = st.text(max_size=20)
RECORDS = st.one_of(st.just(b""), st.binary(max_size=40), st.integers(1, 200_000).map(bytes), st.none())
ABORTED = st.one_of(st.none(), st.lists(st.tuples(INT64, INT64), max_size=4))
ANSWERED = st.tuples(INT32, st.one_of(st.just(0), INT16), INT64, INT64, INT64, ABORTED, INT32, RECORDS)
ANSWERS = st.tuples(INT32, INT16, INT32, st.one_of(st.none(), st.lists(st.tuples(NAMES, st.lists(ANSWERED, max_size=12)), max_size=4)))
ASKED = st.tuples(INT32, INT64, INT32)
REQUESTS = st.tuples(
    INT32, INT32, INT32, st.integers(-128, 127), st.lists(st.tuples(NAMES, st.lists(ASKED, max_size=12)), max_size=5), NAMES
)
V11 = {1: (4, 17)}


@given(REQUESTS)
@example((500, 1, 1, 0, [(topic, [(number, 2**40, 2**20) for number in range(48)]) for topic in ("a", "b")], ""))
def test_a_request_is_encoded_as_aiokafka_does(fields: tuple[Any, ...]) -> None:
    """Every number at its bounds, any name, no topics, many partitions; the log line too."""
    theirs, ours = FetchRequest(*fields).prepare(V11), LeanRequest(*fields).prepare(V11)
    assert ours.encode() == theirs.encode()
    assert repr(ours).partition("(")[2] == repr(theirs).partition("(")[2]


@given(REQUESTS, st.integers(1, 10))
def test_older_brokers_get_what_aiokafka_sends(fields: tuple[Any, ...], newest: int) -> None:
    """Only version 11 is ours; a version that cannot carry the isolation level is refused alike."""
    if newest < 4:
        fields = (*fields[:3], 0, *fields[4:])
    versions = {1: (0, newest)}
    theirs, ours = FetchRequest(*fields).prepare(versions), LeanRequest(*fields).prepare(versions)
    assert type(ours) is type(theirs)
    assert ours.encode() == theirs.encode()


@pytest.mark.parametrize("topics", [[("t", [(2**31, 0, 1)])], [("t" * 40_000, [])]])
def test_what_does_not_fit_is_refused_as_aiokafka_does(topics: list[Any]) -> None:
    """A ValueError, not a struct.error."""
    with pytest.raises(ValueError, match="Error encountered"):
        LeanRequest(1, 1, 1, 0, topics).prepare(V11).encode()


@given(ANSWERS)
@example((0, 0, 0, [("t", [(number, 0, 9, 9, 0, [(7, 1)], -1, bytes(100_000)) for number in range(48)])]))
def test_an_answer_is_decoded_as_aiokafka_does(fields: tuple[Any, ...]) -> None:
    """Errors, nothing, aborted transactions none or several, many partitions, large record sets."""
    encoded = FetchResponse_v11(*fields).encode()
    theirs, ours = FetchResponse_v11.decode(encoded), LeanResponse.decode(encoded)
    assert ours == theirs
    assert ours.API_VERSION == theirs.API_VERSION


@given(ANSWERS, st.data())
def test_broken_bytes_are_judged_as_aiokafka_does(fields: tuple[Any, ...], data: st.DataObject) -> None:
    """Cut anywhere or with any byte changed: the same answer or the same error."""
    encoded = bytearray(FetchResponse_v11(*fields).encode()[:2_000])
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] = data.draw(st.sampled_from([0, 1, 255]))
    assert outcome(LeanResponse, bytes(encoded)) == outcome(FetchResponse_v11, bytes(encoded))


def test_a_name_cut_inside_a_letter_is_judged_as_aiokafka_does() -> None:
    """It is too short before it is no UTF-8."""
    whole = FetchResponse_v11(0, 0, 0, [("tä", [])]).encode()
    cut = whole[: whole.index("ä".encode()) + 1]
    assert outcome(LeanResponse, cut) == outcome(FetchResponse_v11, cut)


def outcome(decoder: Any, encoded: bytes) -> object:
    try:
        decoded = decoder.decode(encoded)
    except ValueError as error:
        return type(error), str(error)
    return decoded.throttle_time_ms, decoded.error_code, decoded.session_id, decoded.topics


class Client:
    """A broker behind aiokafka's wire code: answers with `answer`, as bytes."""

    def __init__(self, leaders: dict[Theirs, int]) -> None:
        self.cluster = SimpleNamespace(_partitions={}, leader_for_partition=leaders.get, broker_metadata=lambda node: node)
        self.answer = FetchResponse_v11(0, 0, 0, [])

    async def send(self, node: int, request: FetchRequest) -> Any:
        wire = request.prepare(V11)
        stream = io.BytesIO(b"\0\0\0\7" + self.answer.encode())
        assert wire.parse_response_header(stream).correlation_id == 7
        return wire.RESPONSE_TYPE.decode(stream)

    def force_metadata_update(self) -> None:
        """Asked for after a lost leader."""


def fetcher(kind: type[Fetcher], client: Client, in_flight: set[int] | None = None) -> Any:
    """Without its background task. The lean one is made as `hasten` does."""
    made = Fetcher.__new__(Fetcher)
    made.__dict__.update(
        {"_records": {}, "_in_flight": in_flight or set(), "_preferred_read_replica": {}, "_client": client, "_client_rack": None},
        _fetch_max_wait_ms=500, _fetch_min_bytes=1, _fetch_max_bytes=99, _max_partition_fetch_bytes=7, _isolation_level=0,
        _fetcher_timeout=0.2, _prefetch_backoff=0.1, _default_reset_strategy=-2, _key_deserializer=None, _value_deserializer=None,
        _check_crcs=True,
    )  # fmt: skip
    if kind is LeanFetcher:
        assert hasten(SimpleNamespace(_fetcher=made))  # type: ignore[arg-type]
    return made


PARTITIONS = [Theirs(topic, number) for topic in ("a", "b") for number in range(3)]
STATES = st.sampled_from(["fetching"] * 6 + ["paused", "unknown"])


@given(st.lists(STATES, min_size=6, max_size=6), st.lists(st.sampled_from([1, 1, 1, 1, 2, -1]), min_size=6, max_size=6), st.booleans(),
       st.sets(st.sampled_from([1, 2])), st.booleans())  # fmt: skip
def test_decisions_are_those_of_aiokafka(states: list[str], leaders: list[int], one: bool, busy: set[int], waiting: bool) -> None:
    """Whatever is paused, lost, without leader, in flight or buffered: the same fetches, resets and wake-ups, order aside."""

    async def decide() -> None:
        client = Client(dict(zip(PARTITIONS, [1] * 6 if one else leaders, strict=True)))
        assignment = Assignment(PARTITIONS)
        for tp, state in zip(PARTITIONS, states, strict=True):
            prepare(assignment.state_value(tp), state, tp.partition)
        decisions = []
        for kind in (Fetcher, LeanFetcher):
            made = fetcher(kind, client, busy)
            if waiting:
                made._records[PARTITIONS[0]] = SimpleNamespace(calculate_backoff=lambda: 0.05)
            decisions.append(made._get_actions_per_node(assignment))
        (theirs, *their_rest), (ours, *our_rest) = decisions
        assert our_rest == their_rest
        assert [(node, unordered(request)) for node, request in ours] == [(node, unordered(request)) for node, request in theirs]
        assert all(isinstance(request, LeanRequest) for _, request in ours)

    asyncio.run(decide())


def prepare(state: Any, kind: str, position: int) -> None:
    if kind != "unknown":
        state.seek(position)
    if kind == "paused":
        state.pause()


def unordered(request: FetchRequest) -> dict[str, Any]:
    known = {name: value for name, value in vars(request).items() if name not in ("_topics", "quiet", "answered", "errors")}
    return {**known, "topics": {topic: sorted(partitions) for topic, partitions in request.topics}}


FOUND = st.tuples(st.sampled_from([0, 0, 0, 1, 6, 99]), st.integers(0, 9), ABORTED, st.sampled_from([b"", b"", b"\0" * 30]))


@given(st.lists(FOUND, min_size=6, max_size=6), st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5)))
def test_an_answer_leaves_the_state_that_aiokafka_leaves(found: list[Any], moved: set[int], lost: set[int]) -> None:
    """Quiet or not, sought elsewhere or reset meanwhile: high water, stable offset, position, errors and the wake-up agree."""

    async def answer(kind: type[Fetcher]) -> list[Any]:
        client, assignment = Client(dict.fromkeys(PARTITIONS, 1)), Assignment(PARTITIONS)
        for tp in PARTITIONS:
            assignment.state_value(tp).seek(5)
        made = fetcher(kind, client)
        [(node, request)] = made._get_actions_per_node(assignment)[0]
        for number in moved:
            assignment.state_value(PARTITIONS[number]).seek(8)
        for number in lost:
            assignment.state_value(PARTITIONS[number]).await_reset(-1)
        parts = [
            (tp.partition, error, high, high - 1, 0, aborted, -1, records)
            for tp, (error, high, aborted, records) in zip(PARTITIONS, found, strict=True)
        ]
        client.answer = FetchResponse_v11(0, 0, 0, [("a", parts[:3]), ("b", parts[3:])])
        woken = await made._proc_fetch_request(assignment, node, request)
        states = [assignment.state_value(tp) for tp in PARTITIONS]
        known = [(state.highwater, state.lso, state.timestamp is None, state._position, state.reset_strategy) for state in states]
        return [woken, known, {tp: (type(kept), str(getattr(kept, "_error", ""))) for tp, kept in made._records.items()}]

    assert asyncio.run(answer(LeanFetcher)) == asyncio.run(answer(Fetcher))


def test_a_rebalance_during_the_fetch_discards_the_answer() -> None:
    """The old assignment's partitions are not touched."""

    async def discard() -> None:
        client, assignment = Client(dict.fromkeys(PARTITIONS, 1)), Assignment(PARTITIONS)
        for tp in PARTITIONS:
            assignment.state_value(tp).seek(5)
        made = fetcher(LeanFetcher, client)
        [(node, request)] = made._get_actions_per_node(assignment)[0]
        client.answer = FetchResponse_v11(0, 0, 0, [("a", [(0, 0, 9, 9, 0, None, -1, b"")])])
        assignment._unassign()
        assert not await made._proc_fetch_request(assignment, node, request)
        assert assignment.state_value(PARTITIONS[0]).highwater is None

    asyncio.run(discard())


def test_a_new_leader_is_followed() -> None:
    """After a metadata update the next fetch goes to the partitions' new node."""

    async def move() -> None:
        leaders = dict.fromkeys(PARTITIONS, 1)
        client, assignment = Client(leaders), Assignment(PARTITIONS)
        for tp in PARTITIONS:
            assignment.state_value(tp).seek(5)
        made = fetcher(LeanFetcher, client)
        assert [node for node, _ in made._get_actions_per_node(assignment)[0]] == [1]
        leaders.update(dict.fromkeys(PARTITIONS, 2))
        client.cluster._partitions = {}
        assert [node for node, _ in made._get_actions_per_node(assignment)[0]] == [2]

    asyncio.run(move())


def test_a_partition_without_leader_is_asked_for_with_pauses() -> None:
    """As of a topic that is gone: aiokafka asks for metadata again as soon as it has an answer, a thousand times a second."""

    async def ask() -> None:
        assignment = Assignment(PARTITIONS)
        made, asked = fetcher(LeanFetcher, Client(dict.fromkeys(PARTITIONS[1:], 1))), 0
        clock = LoopClock()
        until = clock.monotonic() + 0.95
        while clock.monotonic() < until:
            _, _, seconds, stale, _ = made._get_actions_per_node(assignment)
            asked += stale
            await clock.sleep(0.001 if stale else seconds)
        assert asked == 10

    virtual_loop.run(ask())


def test_another_version_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The consumer then works as aiokafka made it."""
    made = Fetcher.__new__(Fetcher)
    made._client_rack = None
    monkeypatch.setattr(aiokafka, "__version__", "0.15.0")
    assert not hasten(SimpleNamespace(_fetcher=made))  # type: ignore[arg-type]
    assert type(made) is Fetcher


def test_a_rack_is_left_alone() -> None:
    """Reading from followers needs every partition's answer."""
    made = Fetcher.__new__(Fetcher)
    made._client_rack = "r1"
    assert not hasten(SimpleNamespace(_fetcher=made))  # type: ignore[arg-type]
    assert type(made) is Fetcher


def test_every_partition_may_come_first() -> None:
    """The broker fills an answer in the order asked, up to a bound: the order changes from fetch to fetch."""

    async def ask() -> None:
        assignment = Assignment(PARTITIONS)
        for tp in PARTITIONS:
            assignment.state_value(tp).seek(5)
        made = fetcher(LeanFetcher, Client(dict.fromkeys(PARTITIONS, 1)))
        random.seed(1)
        first = {made._get_actions_per_node(assignment)[0][0][1].topics[0][0] for _ in range(50)}
        assert first == {"a", "b"}

    asyncio.run(ask())
