"""A simulated Ollama for tests: as an object under virtual time, or behind HTTP on a free port of this machine."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Any

import uvicorn

from infra.lab import virtual_loop
from infra.lab.simulators.ollama.core import SimulatedOllama
from infra.lab.simulators.ollama.parameters import ModelParameters, Parameters
from infra.lab.simulators.ollama.server import application
from shared.clock import LoopClock, SystemClock

SMALL = ModelParameters(name="small", size_gb=1, bytes_per_context_token=0)
"""Loads in 1 s, reads 1,000 and writes 10 tokens/s on `STEADY`."""
PLAIN = SMALL.model_copy(update={"name": "plain", "capabilities": ("completion",)})
"""Neither tools nor thinking."""
OTHER = SMALL.model_copy(update={"name": "other"})
THIRD = SMALL.model_copy(update={"name": "third"})
LARGE = ModelParameters(name="large", size_gb=8, bytes_per_context_token=0)
THINKER = SMALL.model_copy(update={"name": "thinker", "capabilities": ("completion", "tools", "thinking")})
EMBEDDER = ModelParameters(name="embedder", size_gb=0.1, capabilities=("embedding",), embedding_dimensions=64)

STEADY = Parameters(
    vram_gb=10,
    ram_gb=16,
    load_gb_per_second=1,
    cached_load_gb_per_second=1,
    load_fixed_seconds=0,
    decode_gb_per_second=10,
    prefill_gb_per_second=1_000,
    decode_sharing=0,
    prefill_interference=0,
    jitter=0,
    answer_tokens=(10, 10),
    models=(SMALL, PLAIN, OTHER, THIRD, LARGE, THINKER, EMBEDDER),
)
"""Round figures: 1 s a gigabyte to load, 0.1 s a token of a 1 GB model, nothing random."""


def chat(model: str = "small", text: str = "hi", **more: Any) -> dict[str, Any]:
    """A request for /api/chat."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def simulate(parameters: Parameters, scenario: Callable[[SimulatedOllama], Awaitable[Any]], seed: int = 1) -> Any:
    """Run `scenario` on a node under virtual time and return what it returns."""

    async def main() -> Any:
        node = SimulatedOllama(parameters, LoopClock(), Random(seed))
        try:
            return await scenario(node)
        finally:
            await node.close()

    return virtual_loop.run(main())


async def pass_time(seconds: float) -> None:
    """Let virtual time pass."""
    await LoopClock().sleep(seconds)


async def until(condition: Callable[[], bool]) -> None:
    """Poll in real time until `condition` holds; TimeoutError after five seconds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the condition is not ours to signal
            await asyncio.sleep(0.005)


async def collect(chunks: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """All chunks of a stream."""
    return [chunk async for chunk in chunks]


@asynccontextmanager
async def http_node(parameters: Parameters) -> AsyncIterator[tuple[str, SimulatedOllama]]:
    """A node behind HTTP: its base URL and the node itself."""
    node = SimulatedOllama(parameters, SystemClock(), Random(1))
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        application(node), log_level="critical", access_log=False, lifespan="off", ws="none", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await until(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", node
    finally:
        server.should_exit = True
        await node.close()
        with suppress(asyncio.CancelledError):
            await serving
