"""The native launcher's promise about Kafka: a real broker that keeps its data across stop, start and kill.

What: records that were acknowledged are read back after an orderly restart and after SIGKILL, with the same cluster id.
How: one broker of our own; write, restart, read; kill, start, read.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from infra.native.errors import PortTaken
from infra.native.kafka import Kafka
from infra.native.paths import StackHome

pytestmark = pytest.mark.kafka


async def write(servers: str, values: list[bytes]) -> None:
    new_producer: Any = AIOKafkaProducer
    connected = new_producer(bootstrap_servers=servers, acks="all", enable_idempotence=True)
    async with connected as producer:
        for value in values:
            await producer.send_and_wait("kept", value)


async def read(servers: str, count: int) -> list[bytes]:
    new_consumer: Any = AIOKafkaConsumer
    connected = new_consumer("kept", bootstrap_servers=servers, auto_offset_reset="earliest")
    async with connected as consumer:
        return [(await consumer.getone()).value or b"" for _ in range(count)]


async def administer(servers: str) -> Any:
    new_topic: Any = NewTopic
    topic = new_topic(name="kept", num_partitions=1, replication_factor=1)
    admin: Any = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        await admin.create_topics([topic])
        return (await admin.describe_cluster())["cluster_id"]
    finally:
        await admin.close()


async def test_acknowledged_records_survive_a_restart_and_a_kill(own_kafka: Kafka) -> None:
    """Stop, start, SIGKILL, start: everything acknowledged is still there, and it is the same cluster."""
    cluster = await administer(own_kafka.servers)
    await write(own_kafka.servers, [b"one", b"two"])
    await asyncio.to_thread(own_kafka.stop)
    await asyncio.to_thread(own_kafka.start)
    await write(own_kafka.servers, [b"three"])
    await asyncio.to_thread(own_kafka.kill)
    assert not await asyncio.to_thread(own_kafka.healthy)
    await asyncio.to_thread(own_kafka.start)
    assert await read(own_kafka.servers, 3) == [b"one", b"two", b"three"]
    assert await administer(own_kafka.servers) == cluster


def test_starting_a_broker_that_runs_changes_nothing(own_kafka: Kafka) -> None:
    """`start` is idempotent: same process."""
    pid = own_kafka.daemon.pid()
    own_kafka.start()
    assert own_kafka.daemon.pid() == pid


def test_a_taken_port_is_said_before_anything_starts(own_kafka: Kafka, tmp_path: Path) -> None:
    """A second broker on the port of the first is refused with the name of the process that has it."""
    second = Kafka(StackHome(tmp_path / "second"), own_kafka.cache, port=own_kafka.port, controller_port=own_kafka.controller_port)
    with pytest.raises(PortTaken, match=f"port {own_kafka.port}.*pid {own_kafka.daemon.pid()}.*TUTTI_KAFKA_PORT"):
        second.start()
    assert second.daemon.pid() is None
