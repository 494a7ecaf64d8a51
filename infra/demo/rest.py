"""The REST half: a chat completion, printed as it arrives."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from infra.native.errors import StartFailed
from infra.native.waiting import now, seconds_since


@dataclass(frozen=True, slots=True)
class Streamed:
    """What came of it; durations in seconds."""

    text: str
    first_token_seconds: float
    seconds: float


async def ask(url: str, question: str, show: Callable[[str], None], *, timeout_seconds: float = 120.0) -> Streamed:
    """Stream one answer from the ingress at `url`; `show` gets each piece. Raises StartFailed with the server's word on an error."""
    body = {"model": "auto", "stream": True, "messages": [{"role": "user", "content": question}]}
    start, first, pieces = now(), None, []
    limit = aiohttp.ClientTimeout(total=timeout_seconds)
    async with aiohttp.ClientSession(timeout=limit) as session, session.post(f"{url}/v1/chat/completions", json=body) as response:
        if response.status != 200:
            raise StartFailed(f"the ingress answered {response.status}: {(await response.text())[:500]}")
        async for event in _events(response):
            piece = _piece(event)
            if piece:
                first = seconds_since(start) if first is None else first
                pieces.append(piece)
                show(piece)
    if first is None:
        raise StartFailed("the stream ended without any text")
    return Streamed("".join(pieces), first, seconds_since(start))


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    async for line in response.content:
        if line.startswith(b"data: {"):
            yield json.loads(line[6:])


def _piece(event: dict[str, Any]) -> str:
    """The text of a chunk; empty for the first and the last. An error event ends the demo."""
    if "error" in event:
        raise StartFailed(f"the stream ended with an error: {json.dumps(event['error'])[:500]}")
    choices = event.get("choices") or [{}]
    return str(choices[0].get("delta", {}).get("content") or "")
