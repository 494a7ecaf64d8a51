"""Record batches as foreign clients may write them, byte by byte: odd header names, unknown codecs, bombs. And a way to send them."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from shared.clock import SystemClock
from shared.kafka.port import TopicPartition

NAME = "zzzz"
"""A header's name of four bytes, which `renamed` replaces."""
_CHECKSUM_AT, _ATTRIBUTES_AT, _CHECKED_FROM = 17, 21, 21


def batch(
    values: Sequence[bytes | None],
    *,
    codec: int = 0,
    base: int = 0,
    headers: Sequence[tuple[str, bytes | None]] = (),
    key: bytes | None = b"k",
) -> bytearray:
    """A good one. `codec`: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd."""
    builder: Any = DefaultRecordBatchBuilder(
        magic=2, compression_type=codec, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1, batch_size=2**30
    )
    now = int(SystemClock().wall() * 1000)
    for number, value in enumerate(values):
        builder.append(number, timestamp=now, key=b"k", value=value, headers=list(headers))
    made = bytearray(builder.build())
    struct.pack_into(">q", made, 0, base)
    return made


def sealed(raw: bytearray) -> bytearray:
    """With the right checksum again."""
    struct.pack_into(">I", raw, _CHECKSUM_AT, calc_crc32c(bytes(raw[_CHECKED_FROM:])))
    return raw


def renamed(raw: bytearray, name: bytes, *, skip: int = 0) -> bytearray:
    """The header NAME of the record behind the first `skip` is called `name`: four bytes."""
    at = -1
    for _ in range(skip + 1):
        at = raw.index(NAME.encode(), at + 1)
    raw[at : at + 4] = name
    return sealed(raw)


def with_codec(raw: bytearray, codec: int) -> bytearray:
    """Says that it is packed otherwise than it is."""
    (attributes,) = struct.unpack_from(">h", raw, _ATTRIBUTES_AT)
    struct.pack_into(">h", raw, _ATTRIBUTES_AT, attributes & ~7 | codec)
    return sealed(raw)


def bomb(count: int = 1, size: int = 600_000_000) -> bytearray:
    """Some ten kilobytes of zstd that are `size` bytes of text."""
    return batch([b"a" * (size // count)] * count, codec=4)


async def write_raw(servers: str, partition: TopicPartition, raw: bytes | bytearray) -> int:
    """Have the broker append this batch; returns its base offset."""
    client: Any = AIOKafkaClient(bootstrap_servers=servers, client_id="raw")
    await client.bootstrap()
    try:
        await client.force_metadata_update()
        while True:
            await client.add_topic(partition.topic)
            node = client.cluster.leader_for_partition(partition)
            if node not in (None, -1):
                break
            await asyncio.sleep(0.05)
        response = await client.send(node, ProduceRequest(None, -1, 10_000, [(partition.topic, [(partition.partition, bytes(raw))])]))
        [(_, [(_, error, offset, *_rest)])] = response.topics
        assert error == 0, f"the broker refused it: {error}"
        return int(offset)
    finally:
        await client.close()
