"""MCP tools, through the official client (`pip install tutti-cluster[mcp]`): one session a server, over a program's pipes or over HTTP.

A server is a stranger: of its tools only those are called that the operator lists, its wishes for a model, for files or for input are not
granted (no such callback is given), and what it answers is data. What it says of a tool is read when the operator declares it; a server
that changes its words later changes nothing.

A session lives in a task of its own, begins with the first call, and ends when it breaks; the next call begins another.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from services.worker.backends.base import ModelCallFailed
from services.worker.tools.calling import ToolCall
from services.worker.tools.declared import McpServer, McpTool, token
from shared.contracts.agents import Tool
from shared.contracts.base import sentence
from shared.contracts.failure import FailureKind as K
from shared.errors import ConfigurationError
from shared.tasks import ended
from shared.telemetry import logs

if TYPE_CHECKING:
    from mcp import Client, MCPError

log = logs.get(__name__)

CONNECT_SECONDS = 20.0
"""A program may have to start."""
CLOSE_SECONDS = 8.0
_MOST_PAGES = 50
_CLOSED, _TIMEOUT, _OF_THE_CALL = -32000, -32001, (-32600, -32601, -32602)
"""Codes of JSON-RPC errors, as the client has them."""
_MISSING = "MCP tools need the official client: pip install 'tutti-cluster[mcp]'"


@asynccontextmanager
async def connected(server: McpServer, seconds: float) -> AsyncIterator[Client]:
    """A session with a server; `seconds`: of one request. Raises all that the client does; ConfigurationError where it is not installed."""
    try:
        import httpx2
        from mcp import Client, StdioServerParameters
        from mcp.client.stdio import stdio_client
        from mcp.client.streamable_http import streamable_http_client
    except ImportError:
        raise ConfigurationError(_MISSING) from None
    logging.getLogger("mcp").setLevel(logging.CRITICAL)  # it quotes what servers and callers say
    if server.command:
        command, *arguments = server.command
        at = StdioServerParameters(command=command, args=arguments, env=dict(server.env) or None)
        with Path(os.devnull).open("w", encoding="utf-8") as dropped:  # noqa: ASYNC230  (what it writes besides may quote its callers)
            async with Client(stdio_client(at, dropped), read_timeout_seconds=seconds, cache=None) as client:
                yield client
        return
    async with httpx2.AsyncClient(headers=token(server.token_env), timeout=httpx2.Timeout(seconds, connect=CONNECT_SECONDS)) as http:
        transport = streamable_http_client(server.url or "", http_client=http)
        async with Client(transport, read_timeout_seconds=seconds, cache=None) as client:
            yield client


async def listed(server: McpServer, seconds: float = CONNECT_SECONDS) -> dict[str, Tool]:
    """What the server says of its tools, by their names there. Raises as `connected`."""
    found: dict[str, Tool] = {}
    async with asyncio.timeout(2 * seconds), connected(server, seconds) as client:
        cursor = None
        for _ in range(_MOST_PAGES):
            page = await client.list_tools(cursor=cursor)
            for tool in page.tools:
                with suppress(ValueError):  # what no registry entry can say is not offered
                    found[tool.name] = Tool(about=sentence(tool.description or ""), parameters=tool.input_schema)
            cursor = page.next_cursor
            if cursor is None:
                break
    return found


class McpSession:
    """The session with one server. It begins when it is needed."""

    def __init__(self, name: str, server: McpServer, seconds: float) -> None:
        self._name, self._server, self._seconds = name, server, seconds
        self._client: asyncio.Future[Client] | None = None
        self._task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        """With those that are leaving a broken one."""
        self._over = asyncio.Event()

    async def client(self) -> Client:
        """Raises NODE_UNREACHABLE: nothing has been asked yet."""
        if self._task is None or self._task.done() or self._over.is_set():
            self._client, self._over = asyncio.get_running_loop().create_future(), asyncio.Event()
            self._task = asyncio.create_task(self._live(self._client, self._over))
            self._tasks.add(self._task)
            self._task.add_done_callback(self._tasks.discard)
        assert self._client is not None, "it is there with its task"
        try:
            return await asyncio.shield(self._client)
        except ConfigurationError as error:
            raise ModelCallFailed(K.UNSUPPORTED, error.message) from error
        except Exception as error:
            raise ModelCallFailed(K.NODE_UNREACHABLE, f"the MCP server {self._name} cannot be reached") from error

    async def _live(self, begun: asyncio.Future[Client], over: asyncio.Event) -> None:
        """The whole life in one task: the client's scopes are left by who entered them."""
        why: Exception = ConnectionError("the session was ended before it began")
        try:
            async with connected(self._server, self._seconds) as client:
                begun.set_result(client)
                await over.wait()
        except Exception as error:
            log.warning("mcp_session_ended", server=self._name, error=type(error).__name__)
            why = error
        finally:
            if not begun.done():
                begun.set_exception(why)
                begun.exception()  # it is told to who waits; where nobody does, that is no defect

    def broken(self) -> None:
        """The next call begins another."""
        self._over.set()

    async def close(self) -> None:
        """Ends the session, and the program where it is one."""
        self._over.set()
        if tasks := tuple(self._tasks):
            await asyncio.wait(tasks, timeout=CLOSE_SECONDS)
            await ended(*tasks)


class McpCall:
    """One tool of a server."""

    def __init__(self, session: McpSession, terms: McpTool, name: str) -> None:
        self._session, self._name, self._seconds = session, terms.name or name, terms.seconds

    async def call(self, call: ToolCall) -> str:
        from mcp import MCPError

        client = await self._session.client()
        try:
            meta: Any = {"tutti/step": call.step}
            result = await client.call_tool(self._name, call.arguments, read_timeout_seconds=self._seconds, meta=meta)
        except MCPError as error:
            raise self._failed(error) from error
        except ModelCallFailed:
            raise
        except Exception as error:  # the session's streams are closed: whatever the client makes of it
            self._session.broken()
            raise ModelCallFailed(K.MODEL_ERROR, f"the session with the MCP server broke: {type(error).__name__}") from error
        text = content_text(result.content, result.structured_content)
        return f"error: {text}" if result.is_error else text

    def _failed(self, error: MCPError) -> ModelCallFailed:
        """A protocol error: of the arguments, of the time, or of the session."""
        code = error.code
        if code in _OF_THE_CALL:
            return ModelCallFailed(K.BAD_REQUEST, "the MCP server refuses the call: its name or its arguments are wrong there")
        if code == _TIMEOUT:
            return ModelCallFailed(K.MODEL_TIMEOUT, f"the tool has not answered in {self._seconds:g} s")
        if code == _CLOSED:
            self._session.broken()
        return ModelCallFailed(K.MODEL_ERROR, f"the MCP server failed: code {code}")


def content_text(content: Any, structured: Any) -> str:
    """The texts of a result; of what is no text its kind; the structured form where there is no text."""
    parts = [block.text if block.type == "text" else f"({block.type} left out)" for block in content]
    if not parts and structured is not None:
        return to_json(structured).decode()
    return "\n".join(parts)
