"""Record batches of any kind come out of aiokafka's loop: as records, or as `Unreadable`, and what lies behind them too."""

from __future__ import annotations

import gc
import resource
import struct
import weakref
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import codec as codecs
from aiokafka.consumer import fetcher
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import example, given
from hypothesis import strategies as st

from shared.kafka.client.aio_fetch import take
from shared.kafka.client.aio_records import UNPACKED_BYTES, Batches, Records, install
from shared.kafka.port import TopicPartition, Unreadable
from tests.support.raw_batches import NAME, batch, bomb, renamed, sealed, with_codec

TP = TopicPartition("t", 0)
GOOD = bytes(batch([b"good"], base=100))
CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


def read(*raw: bytes | bytearray, at: int = 0) -> tuple[list[Any], int]:
    """All of the answer, and where the next fetch begins."""
    records = Records(TP, Batches(b"".join(raw)), None, at, None, None, True, 0)
    return list(records), records.next_fetch_offset


def around(raw: bytes | bytearray) -> list[Any]:
    """What is read of `raw`; good batches before and behind it are read in any case."""
    found, end = read(bytes(batch([b"first"], base=0)), raw, GOOD)
    assert (found[0].offset, found[0].value) == (0, b"first")
    assert (found[-1].offset, found[-1].value, end) == (100, b"good", 101)
    return found[1:-1]


def test_what_is_thrown_away_unread_holds_no_bytes() -> None:
    """The buffer of a partition that is paused while half of it is read: nothing waits for the collector, which counts objects only."""
    records = Records(TP, Batches(bytes(batch([b"read", b"unread"])) + GOOD), None, 0, None, None, True, 0)
    paused = SimpleNamespace(active=True, state_value=lambda _: SimpleNamespace(paused=True))
    found = fetcher.FetchResult(TP, assignment=paused, partition_records=records, backoff=0)
    assert next(records).value == b"read"
    alive = weakref.ref(records)
    gc.disable()
    try:
        del records
        assert take(found, TP, 10, 10) == ([], 0)
        assert alive() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_good_batches_are_read_as_the_client_reads_them(codec: int) -> None:
    """Every codec; also from the middle of a batch, also one that unpacks to thousands of times its size within the bound."""
    raw = bytes(batch([b"a", None, b"c" * 9_000_000], codec=codec, base=7, headers=[("type", b"job"), ("ü", b"")]))
    theirs = fetcher.PartitionRecords(TP, MemoryRecords(raw), None, 8, None, None, True, 0)
    ours, end = read(raw, at=8)
    assert ours == list(theirs)
    assert [record.offset for record in ours] == [8, 9]
    assert end == theirs.next_fetch_offset


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_a_header_name_of_any_bytes_is_readable(codec: int) -> None:
    """Records and headers around it are as they were."""
    plain = renamed(batch([b"a", b"b", b"c"], base=1, headers=[(NAME, b"1"), ("q", None), ("r", b"2")]), b"cl\xe9\x00", skip=1)
    packed = repacked(plain, codec)
    found = around(packed)
    assert [(r.offset, r.value, r.key) for r in found] == [(1, b"a", b"k"), (2, b"b", b"k"), (3, b"c", b"k")]
    assert found[1].headers == (("cl\\xe9\x00", b"1"), ("r", b"2"))
    assert found[0].headers == found[2].headers == ((NAME, b"1"), ("r", b"2"))
    assert found[0].timestamp == found[1].timestamp > 0


@pytest.mark.parametrize("codec", [5, 6, 7])
def test_an_unknown_codec_is_told(codec: int) -> None:
    [found] = around(with_codec(batch([b"a", b"b"], base=4), codec))
    assert found == Unreadable("t", 0, 5, f"offsets 4 to 5: the batch's codec {codec} is not known")


@pytest.mark.parametrize("codec", [1, 2, 3, 4])
def test_bytes_that_are_not_of_their_codec_are_told(codec: int) -> None:
    [found] = around(with_codec(batch([b"a" * 100], base=4), codec))
    assert isinstance(found, Unreadable)
    assert found.offset == 4


def test_a_wrong_checksum_is_told() -> None:
    raw = batch([b"a", b"b"], base=4)
    raw[-1] ^= 1
    assert around(raw) == [Unreadable("t", 0, 5, "offsets 4 to 5: the batch's checksum is wrong")]


@pytest.mark.parametrize("magic", [0, 1, 3, 127])
def test_another_format_is_told(magic: int) -> None:
    raw = batch([b"a"], base=4)
    raw[16] = magic
    assert around(raw) == [Unreadable("t", 0, 4, "offset 4: only batches of format 2 are read")]


@pytest.mark.parametrize("codec", [1, 2, 3, 4])
def test_a_bomb_is_told_and_costs_a_bounded_memory(codec: int) -> None:
    """Also where nothing says how large it will be. The bound is on what is unpacked, not on what travels."""
    raw = batch([b"a" * UNPACKED_BYTES] * 2, codec=codec, base=4)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    [found] = around(raw)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert found.reason == f"offsets 4 to 5: the batch cannot be unpacked into {UNPACKED_BYTES} bytes"
    assert grown < 4 * UNPACKED_BYTES


def test_one_broken_record_costs_the_others_of_its_batch_nothing() -> None:
    """Its number of headers is nonsense; its length is right."""
    raw = batch([b"aaaa", b"bbbb", b"cccc"], base=1)
    at = raw.index(b"bbbb") + 4
    raw[at] = 1  # -1 as a varint
    first, broken, last = around(sealed(raw))
    assert (first.value, last.value) == (b"aaaa", b"cccc")
    assert broken == Unreadable("t", 0, 2, "offset 2: the record's structure is wrong")


def test_a_batch_that_says_it_has_more_than_it_holds_is_told() -> None:
    raw = batch([b"a"], base=4)
    struct.pack_into(">i", raw, 23, 2)
    struct.pack_into(">i", raw, 57, 3)
    found = around(sealed(raw))
    assert [record.value for record in found] == [b"a", None]
    assert found[1] == Unreadable("t", 0, 6, "offsets 5 to 6: the batch's structure is wrong")


@given(st.lists(st.tuples(st.integers(16, 400), st.integers(0, 255)), max_size=8), st.booleans(), st.sampled_from([0, 1, 2, 3, 4]))
@example([(103, 128)], True, 0)  # a record that says an offset behind its batch's last one
def test_no_bytes_whatever_end_a_reader(changes: Sequence[tuple[int, int]], checked: bool, codec: int) -> None:
    """Anything but a batch's place and length may be changed; offsets never go back, and what lies behind is read."""
    raw = batch([b"a", b"bb", None], base=3, codec=codec, headers=[(NAME, b"1"), ("q", None)])
    for at, byte in changes:
        raw[min(at, len(raw) - 1)] = byte
    raw[22] &= ~0x20  # brokers alone write control batches
    struct.pack_into(">i", raw, 23, min(50, max(0, struct.unpack_from(">i", raw, 23)[0])))
    found, end = read(bytes(batch([b"first"])), sealed(raw) if checked else raw, GOOD)
    offsets = [record.offset for record in found]
    assert offsets == sorted(set(offsets))
    assert (offsets[0], offsets[-1], end) == (0, 100, 101)


def test_the_fetcher_uses_these() -> None:
    """It looks the classes up by these names whenever an answer has come."""
    install()
    names = fetcher.Fetcher._proc_fetch_request.__code__.co_names
    assert {"MemoryRecords", "PartitionRecords"} <= set(names)
    inside: Any = fetcher
    assert (inside.MemoryRecords, inside.PartitionRecords) == (Batches, Records)


def test_bombs_are_small() -> None:
    """What the bound is for."""
    assert len(bomb(1, 100_000_000)) < 20_000


def repacked(plain: bytearray, codec: int) -> bytearray:
    """The same records behind a codec."""
    packs: dict[int, Any] = {1: codecs.gzip_encode, 2: codecs.snappy_encode, 3: codecs.lz4_encode, 4: codecs.zstd_encode}
    if codec not in packs:
        return plain
    made = plain[:61] + packs[codec](bytes(plain[61:]))
    struct.pack_into(">i", made, 8, len(made) - 12)
    return with_codec(made, codec)
