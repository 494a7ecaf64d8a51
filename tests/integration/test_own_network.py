"""What goes over a network by broadcast and multicast, on networks that the test makes: announcements of clusters, packets that wake."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from infra.native.join import mdns
from infra.native.join.invitation import Invitation
from infra.native.join.mdns import Announcement
from shared.partitions import TopicSettings
from shared.placement.waking import magic_packet
from tests.support.namespaces import EVERYBODY, A, Machines, machines

OFFICE = Invitation(name="office", servers=f"{A}:19094", topics=TopicSettings(prefix="prod.", home_partitions=12))
LOOPBACK = ["127.0.0.1"]


@contextmanager
def announced(cluster: Invitation) -> Iterator[None]:
    announcement = Announcement(cluster, LOOPBACK)
    announcement.begin()
    try:
        yield
    finally:
        announcement.end()


def found(*clusters: Invitation) -> bool:
    """These and no others, within some looks: an answer of a second ago is not given again, and a busy machine answers late."""
    return any(mdns.find(1.5, LOOPBACK) == [*clusters] for _ in range(6))


def test_clusters_are_found_over_loopback_and_gone_when_they_say_so() -> None:
    """One of two that are announced, then the other; nobody is found where nobody is."""
    lab = Invitation(name="lab", servers="127.0.0.1:19092")
    with announced(lab):
        with announced(OFFICE):
            assert found(lab, OFFICE)
        assert found(lab)
    assert mdns.find(1.0, LOOPBACK) == []


FIND = """
from infra.native.join import mdns
found = mdns.find(2.0)
print(len(found), *[cluster.model_dump_json() for cluster in found])
"""
LISTEN = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
    listener.bind(("", 9))
    print("listening", flush=True)
    listener.settimeout(20)
    for _ in range(3):
        print(listener.recv(2000).hex(), flush=True)
"""


@pytest.fixture
def two() -> Iterator[Machines]:
    with machines() as made:
        yield made


def test_another_machine_finds_a_cluster(two: Machines) -> None:
    """As `tutti up --announce` announces it, on all interfaces: from one machine to the other, over a cable of their own."""
    there = two.start("a", "-m", "infra.native.join.mdns", OFFICE.model_dump_json(exclude_defaults=True), "")
    try:
        assert there.stdout is not None
        assert there.stdout.readline() == "announced\n", there.stderr.read() if there.stderr else ""
        count, found = two.run("b", "-c", FIND).split(maxsplit=1)
        assert count == "1"
        assert Invitation.model_validate(json.loads(found)) == OFFICE
    finally:
        there.terminate()
        there.communicate(timeout=20)


def test_a_broadcast_wakes_another_machines_interface(two: Machines) -> None:
    """Each packet of the burst arrives as it is: what an interface waits for."""
    packet = magic_packet("01:23:45:67:89:ab")
    sleeping = two.start("b", "-c", LISTEN)
    try:
        assert sleeping.stdout is not None
        assert sleeping.stdout.readline() == "listening\n"
        send = f"from services.router.wake_calls import broadcast; broadcast(bytes.fromhex('{packet.hex()}'), [('{EVERYBODY}', 9)])"
        two.run("a", "-c", send)
        assert [sleeping.stdout.readline().strip() for _ in range(3)] == [packet.hex()] * 3
    finally:
        sleeping.terminate()
        sleeping.communicate(timeout=20)
