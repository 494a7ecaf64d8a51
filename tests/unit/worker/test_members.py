"""One model over several machines: whole while all members answer, and what asks them does no harm."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

import pytest

from services.worker.backends.base import ModelCallFailed
from services.worker.backends.choice import backend_of
from services.worker.backends.members import MembersBackend, answers
from services.worker.settings import WorkerSettings
from shared.clock import SystemClock
from shared.contracts.failure import FailureKind
from tests.unit.worker.scripted_backend import ScriptedBackend


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """As a llama.cpp RPC server that serves somebody: it accepts nobody else, and lets two wait."""
    with socket.create_server(("127.0.0.1", 0), backlog=1) as server:
        yield server


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a look is a connection")
def test_a_look_takes_no_place_in_a_servers_line(listener: socket.socket) -> None:
    """Twenty looks, and its own client still comes through: connections that are made and closed fill the line at the second."""
    port = listener.getsockname()[1]
    assert all(answers(f"127.0.0.1:{port}") for _ in range(20))
    with socket.create_connection(("127.0.0.1", port), timeout=1.0) as client:
        listener.settimeout(1.0)
        accepted, address = listener.accept()
        accepted.close()
        assert address == client.getsockname()
    assert answers(f"localhost:{port}")


def test_who_does_not_listen_is_dead(listener: socket.socket) -> None:
    """Refused, unknown, or no address at all."""
    port = listener.getsockname()[1]
    listener.close()
    assert not answers(f"127.0.0.1:{port}")
    assert not answers("nowhere.invalid:50052")
    assert not answers("127.0.0.1:99999")


async def test_the_endpoint_is_there_while_all_members_are() -> None:
    """A dead one is named; its return ends it. Calls pass unchanged."""
    alive = {"a:1", "b:2"}
    backend = MembersBackend(ScriptedBackend(), ("a:1", "b:2"), alive.__contains__)
    assert (await backend.probe()).version == "0.34.0"
    alive.remove("b:2")
    with pytest.raises(ModelCallFailed, match="b:2 does not answer") as failed:
        await backend.probe()
    assert failed.value.kind is FailureKind.NODE_UNREACHABLE
    alive.add("b:2")
    assert (await backend.probe()).version == "0.34.0"
    assert len(await backend.models()) == 2


def test_the_setting_makes_it_so() -> None:
    """Of any backend."""
    plain, split = WorkerSettings(backend="openai"), WorkerSettings(backend="openai", members=("a:1",))
    assert not isinstance(backend_of(plain, SystemClock()), MembersBackend)
    assert isinstance(found := backend_of(split, SystemClock()), MembersBackend)
    assert found.kind == "openai"
