"""MCP tools against a real server of the official library: over its pipes, and over HTTP."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from services.worker.backends.base import ModelCallFailed
from services.worker.tools import mcp_servers
from services.worker.tools.calling import ToolCall
from services.worker.tools.declared import McpServer, McpTool
from services.worker.tools.mcp_servers import McpCall, McpSession, content_text, listed
from shared.clock import LoopClock
from shared.contracts.failure import FailureKind as K
from tests.support import mcp_server
from tests.support.ingress_world import until

pytestmark = pytest.mark.timeout(60)


def stdio(journal: Path | None = None, **env: str) -> McpServer:
    arguments = [mcp_server.__file__, *([str(journal)] if journal else [])]
    return McpServer(command=(sys.executable, *arguments), env={"PYTHONPATH": ":".join(sys.path), **env})


@asynccontextmanager
async def http() -> AsyncIterator[McpServer]:
    """The same server at an address of this machine."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(mcp_server.made().streamable_http_app(), log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield McpServer(url=f"http://127.0.0.1:{listening.getsockname()[1]}/mcp")
    finally:
        server.should_exit = True
        await serving


@asynccontextmanager
async def session(server: McpServer) -> AsyncIterator[McpSession]:
    made = McpSession("strange", server, 20.0)
    try:
        yield made
    finally:
        await made.close()


def call(at: McpSession, name: str, *, seconds: float = 20.0, step: str = "s", **arguments: Any) -> Any:
    return McpCall(at, McpTool(kind="mcp", server="strange", name=name, seconds=seconds), name).call(ToolCall(arguments, step))


async def failure(calling: Any) -> ModelCallFailed:
    with pytest.raises(ModelCallFailed) as caught:
        await calling
    return caught.value


async def test_a_program_is_a_server() -> None:
    """Calls, tool errors as results, the step's id beside the arguments, and nothing of our environment but what is usual."""
    async with session(stdio(EXTRA="x")) as at:
        assert await call(at, "add", a=2, b=3) == "5"
        assert (await call(at, "fail")).startswith("error: ")
        assert (await call(at, "add", a="two")).startswith("error: ")
        assert await call(at, "step", step="5f1e") == "5f1e"
        assert await asyncio.gather(*(call(at, "add", a=n, b=n) for n in range(5))) == ["0", "2", "4", "6", "8"]
        seen = await call(at, "environment")
        assert "EXTRA" in seen
        assert "PYTEST_CURRENT_TEST" not in seen


async def test_an_address_is_a_server() -> None:
    """Streamable HTTP."""
    async with http() as server:
        async with session(server) as at:
            assert await call(at, "add", a=2, b=3) == "5"
        assert set(await listed(server)) == {"add", "order", "fail", "wait", "die", "step", "environment"}


async def test_what_a_server_says_of_its_tools_can_be_declared() -> None:
    """Name, meaning and parameters."""
    found = await listed(stdio())
    assert found["add"].about == "Adds two whole numbers."
    assert found["add"].parameters["required"] == ["a", "b"]
    assert not found["add"].idempotent, "a stranger's word would not do"


async def test_a_server_that_is_not_there_has_begun_nothing() -> None:
    """The next call looks again."""
    async with session(McpServer(command=("/no/such/program",))) as at:
        for _ in range(2):
            assert (await failure(call(at, "add", a=1, b=1))).kind is K.NODE_UNREACHABLE


async def test_a_server_that_dies_may_have_begun_and_is_started_again() -> None:
    """The call fails, the next one has a new session."""
    async with session(stdio()) as at:
        assert await call(at, "add", a=1, b=1) == "2"
        assert (await failure(call(at, "die"))).kind is K.MODEL_ERROR
        assert await call(at, "add", a=1, b=2) == "3"


async def test_a_tool_has_so_much_time(tmp_path: Path) -> None:
    """The others of its server go on."""
    async with session(stdio(tmp_path / "journal")) as at:
        slow = McpCall(at, McpTool(kind="mcp", server="strange", name="wait", seconds=0.3), "wait")
        assert (await failure(slow.call(ToolCall({"seconds": 30}, "s")))).kind is K.MODEL_TIMEOUT
        assert await call(at, "add", a=1, b=1) == "2"


async def test_a_call_that_is_left_leaves_the_session_as_it_is(tmp_path: Path) -> None:
    """A job that is cancelled: its server goes on with the others' calls, and with the next."""
    journal = tmp_path / "journal"
    async with session(stdio(journal)) as at:
        left = asyncio.create_task(McpCall(at, McpTool(kind="mcp", server="strange"), "wait").call(ToolCall({"seconds": 30}, "s")))
        await until(journal.exists, "the call begins", 20)
        left.cancel()
        (ended,) = await asyncio.gather(left, return_exceptions=True)
        assert isinstance(ended, BaseException)
        assert await call(at, "add", a=1, b=1) == "2"


async def test_a_session_leaves_no_program_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one that broke and is still being left when the next begins, nor one that never answered: who waits for it is told."""
    here: list[McpServer] = []

    @asynccontextmanager
    async def connected(server: McpServer, _: float) -> AsyncIterator[str]:
        here.append(server)
        try:
            if len(here) == 3:
                await asyncio.Event().wait()
            yield "client"
        finally:
            await LoopClock().sleep(0.05)
            here.remove(server)

    monkeypatch.setattr(mcp_servers, "connected", connected)
    monkeypatch.setattr(mcp_servers, "CLOSE_SECONDS", 0.2)
    at = McpSession("strange", stdio(), 20.0)
    for _ in range(2):
        assert await at.client()
        at.broken()
    waiting = asyncio.create_task(at.client())
    await LoopClock().sleep(0)
    await LoopClock().sleep(0)
    assert len(here) == 3
    await at.close()
    assert here == []
    assert (await failure(waiting)).kind is K.NODE_UNREACHABLE


def test_of_what_is_no_text_its_kind_is_told() -> None:
    """A structured result stands where there is no other."""

    class Block:
        def __init__(self, kind: str, text: str = "") -> None:
            self.type, self.text = kind, text

    assert content_text([Block("text", "a"), Block("image"), Block("text", "b")], None) == "a\n(image left out)\nb"
    assert content_text([], {"a": 1}) == '{"a":1}'
    assert content_text([], None) == ""
