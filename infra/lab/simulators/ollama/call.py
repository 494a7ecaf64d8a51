"""Between the node, which computes, and the client, who reads. The node goes on by itself:
a client that leaves is noticed only when it looks.

So a call behaves the same whether its client is an HTTP connection or a coroutine in the same process.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

Chunk = dict[str, Any]


class Call:
    """One request. Filled by the node's task, read by one client. Bounded by the answer, which is bounded."""

    def __init__(self) -> None:
        self.gone = False
        """The client has left."""
        self.waiting = True
        """Not yet on a slot: leaving ends the request at once."""
        self.streamed = False
        """The answer is a stream of lines, not one object. Known when the first chunk is there."""
        self.task: asyncio.Task[None] | None = None
        self._chunks: deque[Chunk] = deque()
        self._error: BaseException | None = None
        self.ended = False
        self.complete = False
        self._wakened: asyncio.Future[None] | None = None

    def put(self, chunk: Chunk, *, last: bool = False) -> None:
        """The node emits a chunk; after the last one the client owes it nothing."""
        self._chunks.append(chunk)
        self.complete = self.complete or last
        self._wake()

    def end(self, error: BaseException | None = None) -> None:
        """The node has nothing more to say; `error` is raised to the client after the chunks before it."""
        self.ended, self._error = True, error
        self._wake()

    def leave(self) -> None:
        """The client goes away. Idempotent; after the last chunk it is no departure."""
        if self.complete or self.ended:
            return
        self.gone = True
        if self.waiting and self.task is not None:
            self.task.cancel()

    async def ready(self) -> list[Chunk]:
        """All chunks that are there, waiting for the first; empty at the end. Raises OllamaError or ConnectionDropped."""
        while not self._chunks and not self.ended:
            self._wakened = asyncio.get_running_loop().create_future()
            await self._wakened
        if self._chunks:
            chunks = list(self._chunks)
            self._chunks.clear()
            return chunks
        if self._error is not None:
            raise self._error
        return []

    def _wake(self) -> None:
        if self._wakened is not None and not self._wakened.done():
            self._wakened.set_result(None)
