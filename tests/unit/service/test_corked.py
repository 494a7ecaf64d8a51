"""The corked transport: one write a turn, nothing lost, order kept."""

from __future__ import annotations

import asyncio
from typing import Any

from shared.service.bounded import CorkedTransport


class Recording:
    """What a transport was told."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.closing = False

    def write(self, data: bytes) -> None:
        self.calls.append(data)

    def close(self) -> None:
        self.closing = True
        self.calls.append("close")

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> str:
        return f"extra {name}"


def corked() -> tuple[CorkedTransport, Recording]:
    inner = Recording()
    return CorkedTransport(inner, asyncio.get_running_loop()), inner  # type: ignore[arg-type]


async def turn() -> None:
    """Let what was scheduled for this turn run."""
    done = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(done.set_result, None)
    await done


async def test_writes_of_one_turn_are_one_write() -> None:
    """Head and body travel together; the next turn's data are a write of their own."""
    transport, inner = corked()
    transport.write(b"head ")
    transport.write(b"body")
    assert inner.calls == []
    await turn()
    transport.write(b"next")
    await turn()
    assert inner.calls == [b"head body", b"next"]


async def test_close_writes_what_is_held_first() -> None:
    """Nothing is lost, and nothing is written to a closed transport later."""
    transport, inner = corked()
    transport.write(b"last")
    transport.close()
    await turn()
    assert inner.calls == [b"last", "close"]


async def test_what_the_peer_cut_off_is_dropped() -> None:
    """A transport that closed meanwhile gets no more writes."""
    transport, inner = corked()
    transport.write(b"late")
    inner.closing = True
    await turn()
    assert inner.calls == []


async def test_everything_else_is_the_transports_own() -> None:
    """uvicorn asks for addresses and pauses reading through it."""
    transport, _ = corked()
    assert transport.get_extra_info("peername") == "extra peername"
