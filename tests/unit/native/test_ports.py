"""Ports: free or taken, and by whom."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from random import Random

import pytest

from infra.native import ports
from infra.native.errors import PortTaken
from tests.support.native import part_of


def test_a_taken_port_is_named_with_its_process_and_the_setting_to_change() -> None:
    """The error tells who has the port and what to set."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        assert not ports.is_free(port)
        with pytest.raises(PortTaken) as caught:
            ports.require_free(port, "Kafka", "TUTTI_KAFKA_PORT")
    for word in (str(port), "Kafka", "TUTTI_KAFKA_PORT", f"pid {os.getpid()}"):
        assert word in caught.value.message


def test_a_free_port_is_accepted() -> None:
    """No error for a port that nobody has."""
    port = ports.free_ports(1)[0]
    ports.require_free(port, "Kafka", "TUTTI_KAFKA_PORT")
    assert ports.owner(port) is None


def test_free_ports_are_distinct_and_outside_the_range_of_outgoing_connections() -> None:
    """So that no outgoing connection takes one before its server starts."""
    found = ports.free_ports(20, Random(7))
    assert len(set(found)) == 20
    assert all(20_000 <= port < 32_000 for port in found)


@pytest.mark.parametrize("count", [1, 2, 3, 16])
def test_test_processes_beside_each_other_look_in_parts_that_do_not_meet(count: int) -> None:
    """Also the one that replaces a crashed process finds ports."""
    parts = [part_of(range(20_000, 32_000), number, count) for number in range(count)]
    assert len({port for part in parts for port in part}) == sum(map(len, parts)) >= 12_000 - count
    assert part_of(range(20_000, 32_000), count, count) == parts[0]
