"""Record batches as aiokafka's fetcher reads them, so that nothing that a record or a batch holds can end a reader.

aiokafka raises out of `getmany` where a batch cannot be unpacked (a header's name that is not UTF-8, an unknown codec, a wrong checksum),
does so again at the same offset for ever, and unpacks without a bound: 30 kB of zstd may be 600 MB. Here a batch

- is unpacked into at most `UNPACKED_BYTES`, before aiokafka sees it;
- is read by aiokafka's own code; only if that raises, by a slower and more tolerant reading (`_loosely`);
- is an `Unreadable` where it cannot be read at all. So is a record in it, where only that one is broken.

`install` puts two classes into aiokafka's fetcher: it looks them up by name each time that it unpacks an answer.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cramjam
from aiokafka.codec import snappy_decode
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.util import decode_varint_py as decode_varint
from aiokafka.structs import ConsumerRecord

from shared.kafka.port import Unreadable

UNPACKED_BYTES = 32 * 1024 * 1024
"""Most that one batch may unpack to. A batch is at most a megabyte as it travels; text shrinks to a tenth, seldom to less."""
FIRST_GUESS = 16
"""So many times its size is tried first; a fresh buffer costs as much as it is large."""

_FRAME = struct.Struct(">qi")  # base offset, length of what follows
_HEAD = struct.Struct(">qiibIhiqqqhii")
"""Base offset, length, leader epoch, magic, checksum, attributes, last offset - base, first and last timestamp, producer, its epoch,
sequence, records.
"""
_ATTRIBUTES_AT = struct.calcsize(">qiibI")
_ATTRIBUTES, _FIRST_TIMESTAMP, _MAX_TIMESTAMP, _COUNT = 5, 7, 8, 12
_MAGIC, _MAGIC_AT = 2, struct.calcsize(">qii")
_CODEC, _APPEND_TIME = 0x07, 0x08
_GZIP, _SNAPPY, _LZ4, _ZSTD = 1, 2, 3, 4
_MODULES = {_GZIP: cramjam.gzip, _LZ4: cramjam.lz4, _ZSTD: cramjam.zstd}
_XERIAL = b"\x82SNAPPY\x00"
_XERIAL_HEAD = 16
_LEAST_RECORD_BYTES = 7


def install() -> None:
    """Give aiokafka's fetcher these classes. Harmless when repeated."""
    inside: Any = fetcher
    inside.MemoryRecords = Batches
    inside.PartitionRecords = Records


class _RecordFault(NamedTuple):
    """In the place of a record: nothing of [first, offset] can be read."""

    first: int
    offset: int
    why: str


class _Loose(NamedTuple):
    """A record, read tolerantly. As aiokafka's."""

    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    odd: bool
    """A header's name is not UTF-8: its bytes stand as \\xNN."""
    checksum: None = None


class Records(fetcher.PartitionRecords):
    """aiokafka's records of one partition of an answer; faults become `Unreadable`, headers without a value are left out."""

    def close(self) -> None:
        """Thrown away unread, as a paused partition's are: its iterator and it refer to each other, and hold the bytes of the answer until
        the collector comes by, which counts objects and not what they weigh.
        """
        if self._records_iterator is not None:
            self._records_iterator.close()
            self._records_iterator = None

    def _consumer_record(self, tp: Any, record: Any) -> Any:
        if type(record) is _RecordFault:
            first = max(record.first, self.next_fetch_offset)
            where = f"offset {record.offset}" if first >= record.offset else f"offsets {first} to {record.offset}"
            return Unreadable(tp.topic, tp.partition, record.offset, f"{where}: {record.why}")
        key, value, headers = record.key, record.value, record.headers
        for _, content in headers:
            if content is None:
                headers = [header for header in headers if header[1] is not None]
                break
        if type(record) is _Loose and record.odd:
            why = f"offset {record.offset}: a header's name is not UTF-8"
            return Unreadable(tp.topic, tp.partition, record.offset, why, record.timestamp, key, value, tuple(headers))
        return ConsumerRecord(
            tp.topic,
            tp.partition,
            record.offset,
            record.timestamp,
            record.timestamp_type,
            key,
            value,
            record.checksum,
            -1 if key is None else len(key),
            -1 if value is None else len(value),
            tuple(headers),
        )


class Batches:
    """aiokafka's MemoryRecords: the batches of one partition of an answer. The last one may be cut off and is then left."""

    def __init__(self, data: bytes | None) -> None:
        self._data = memoryview(data or b"")  # an answer may say that there is nothing at all
        self._at = 0

    def size_in_bytes(self) -> int:
        return len(self._data)

    def has_next(self) -> bool:
        return self._end() is not None

    def next_batch(self) -> _RecordBatch | None:
        end = self._end()
        if end is None:
            return None
        begin, self._at = self._at, end
        return _RecordBatch(self._data[begin:end])

    def _end(self) -> int | None:
        body = self._at + _FRAME.size
        if body > len(self._data):
            return None
        _, length = _FRAME.unpack_from(self._data, self._at)
        return body + length if 0 <= length <= len(self._data) - body else None


class _RecordBatch:
    """What aiokafka's loop asks of a batch. Iterating never raises."""

    __slots__ = ("_batch", "_raw", "_why", "base_offset", "is_control_batch", "is_transactional", "next_offset", "producer_id")

    producer_id: int | None

    def __init__(self, raw: memoryview) -> None:
        self._raw = raw
        self._why: str | None = None
        if len(raw) < _HEAD.size or raw[_MAGIC_AT] != _MAGIC:
            self._refuse(f"only batches of format {_MAGIC} are read")
            return
        batch = self._batch = DefaultRecordBatch(raw)
        self.base_offset, self.next_offset = batch.base_offset, max(batch.base_offset + 1, batch.next_offset)
        self.is_control_batch, self.is_transactional = batch.is_control_batch, batch.is_transactional
        self.producer_id = batch.producer_id

    def _refuse(self, why: str) -> None:
        """The head is not known, or not to be trusted: one offset is stepped over."""
        self._why = why
        self.base_offset = _FRAME.unpack_from(self._raw)[0]
        self.next_offset = self.base_offset + 1
        self.is_control_batch = self.is_transactional = False
        self.producer_id = None

    def validate_crc(self) -> bool:
        """Always true for aiokafka, which would raise; a wrong checksum is a fault like any other."""
        if self._why is None and not self._batch.validate_crc():
            end = self.next_offset
            self._refuse("the batch's checksum is wrong")
            if end - self.base_offset <= UNPACKED_BYTES // _LEAST_RECORD_BYTES:
                self.next_offset = end
        return True

    def __next__(self) -> Any:
        """The client looks into control batches so; only brokers write them."""
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        if self._why is not None:
            yield self._fault(self.base_offset, self._why)
            return
        raw, batch = self._raw, self._batch
        if batch.compression_type:
            try:
                raw = self._unpacked(batch.compression_type)
            except CorruptRecordException as error:
                yield self._fault(self.base_offset, str(error.args[0]))
                return
            batch = DefaultRecordBatch(raw)
        wanted = self.base_offset
        try:
            for record in batch:
                if not wanted <= record.offset < self.next_offset:
                    raise CorruptRecordException
                yield record
                wanted = record.offset + 1
        except Exception:  # whatever the client makes of foreign bytes; what is wrong is found out below
            yield from self._loosely(raw, wanted)

    def _fault(self, first: int, why: str) -> _RecordFault:
        return _RecordFault(first, self.next_offset - 1, why)

    def _unpacked(self, codec: int) -> memoryview:
        """The batch without compression. Raises CorruptRecordException."""
        packed = bytes(self._raw[_HEAD.size :])
        if codec == _SNAPPY:
            return self._plain(_unpack_snappy(packed))
        module = _MODULES.get(codec)
        if module is None:
            raise CorruptRecordException(f"the batch's codec {codec} is not known")
        size = max(64 * 1024, FIRST_GUESS * len(packed))
        while True:
            size = min(size, UNPACKED_BYTES)
            room = bytearray(_HEAD.size + size)
            try:
                length = module.decompress_into(packed, memoryview(room)[_HEAD.size :])
            except cramjam.DecompressionError:
                # It does not say whether the room or the bytes are at fault.
                if size == UNPACKED_BYTES:
                    raise CorruptRecordException(_too_large()) from None
                size *= FIRST_GUESS
            else:
                return self._headed(room, length)

    def _plain(self, body: bytes) -> memoryview:
        return self._headed(bytearray(_HEAD.size) + body, len(body))

    def _headed(self, room: bytearray, length: int) -> memoryview:
        room[: _HEAD.size] = self._raw[: _HEAD.size]
        (attributes,) = struct.unpack_from(">h", room, _ATTRIBUTES_AT)
        struct.pack_into(">h", room, _ATTRIBUTES_AT, attributes & ~_CODEC)
        return memoryview(room)[: _HEAD.size + length]

    def _loosely(self, raw: memoryview, wanted: int) -> Iterator[_Loose | _RecordFault]:
        """The records from offset `wanted` on, one by one. A record that cannot be read is a fault; one without a length ends the batch."""
        head, body = _HEAD.unpack_from(raw), bytearray(raw[_HEAD.size :])
        at = 0
        for _ in range(head[_COUNT]):
            try:
                length, begin = decode_varint(body, at)
                at = begin + length
                if length < 0 or at > len(body):
                    raise IndexError
            except (IndexError, ValueError):
                if wanted < self.next_offset:
                    yield self._fault(wanted, "the batch's structure is wrong")
                return
            try:
                record = _record(head, body[begin:at])
                if record.offset >= self.next_offset:
                    raise ValueError
            except (IndexError, ValueError):
                if wanted >= self.next_offset:
                    return
                yield _RecordFault(wanted, wanted, "the record's structure is wrong")
                wanted += 1
                continue
            if record.offset >= wanted:
                yield record
                wanted = record.offset + 1


def _record(head: tuple[int, ...], body: bytearray) -> _Loose:
    """Raises IndexError or ValueError."""
    _, at = decode_varint(body, 0)
    delta, at = decode_varint(body, at)
    by_broker = bool(head[_ATTRIBUTES] & _APPEND_TIME)
    timestamp = head[_MAX_TIMESTAMP] if by_broker else head[_FIRST_TIMESTAMP] + delta
    place, at = decode_varint(body, at)
    key, at = _bytes(body, at)
    value, at = _bytes(body, at)
    count, at = decode_varint(body, at)
    headers: list[tuple[str, bytes | None]] = []
    odd = False
    for _ in range(count):
        name, at = _bytes(body, at)
        content, at = _bytes(body, at)
        written = (name or b"").decode("utf-8", "backslashreplace")
        odd = odd or written.encode() != (name or b"")
        headers.append((written, content))
    if count < 0 or at != len(body) or place < 0:
        raise ValueError
    return _Loose(head[0] + place, timestamp, int(by_broker), key, value, headers, odd)


def _bytes(body: bytearray, at: int) -> tuple[bytes | None, int]:
    """Bytes behind their length; below zero: none. Raises IndexError."""
    length, at = decode_varint(body, at)
    if length < 0:
        return None, at
    if at + length > len(body):
        raise IndexError
    return bytes(body[at : at + length]), at + length


def _unpack_snappy(packed: bytes) -> bytes:
    """Raw, or in the blocks of Java's client. Every block says its size first. Raises CorruptRecordException."""
    try:
        if sum(map(cramjam.snappy.decompress_raw_len, _snappy_blocks(packed))) <= UNPACKED_BYTES:
            return snappy_decode(packed)
    except Exception:
        raise CorruptRecordException(_too_large()) from None
    raise CorruptRecordException(_too_large())


def _snappy_blocks(packed: bytes) -> Iterator[bytes]:
    if not packed.startswith(_XERIAL):
        yield packed
        return
    at = _XERIAL_HEAD
    while at < len(packed):
        (length,) = struct.unpack_from(">i", packed, at)
        if length < 0:
            raise ValueError
        yield packed[at + 4 : at + 4 + length]
        at += 4 + length


def _too_large() -> str:
    return f"the batch cannot be unpacked into {UNPACKED_BYTES} bytes"
