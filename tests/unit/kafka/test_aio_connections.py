"""What is written to a connection that has been closed is a lost connection, whatever the event loop calls it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import conn
from aiokafka import errors as kafka
from aiokafka.protocol.metadata import MetadataRequest

from shared.clock import SystemClock
from shared.kafka.client.aio import AioLog
from shared.kafka.client.aio_connections import Connection


class Closed:
    """As uvloop's, of a socket that the broker has closed."""

    closed = False

    def write(self, _: bytes) -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True reading=False>; the handler is closed")

    def close(self) -> None:
        self.closed = True


async def _sent() -> Closed:
    connection: Any = Connection("127.0.0.1", 9)
    connection._writer = writer = Closed()
    connection._reader, connection._read_task = asyncio.StreamReader(), asyncio.get_running_loop().create_future()
    connection._versions = {3: (0, 5)}
    with pytest.raises(kafka.KafkaConnectionError):
        connection.send(MetadataRequest([]))
    return writer


def test_a_closed_connection_is_a_lost_one() -> None:
    assert asyncio.run(_sent()).closed


def test_clients_have_these_connections() -> None:
    AioLog("127.0.0.1:1", SystemClock())
    assert conn.AIOKafkaConnection is Connection
