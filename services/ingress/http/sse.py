"""Server-sent events (HTML Living Standard, section 9.2): bytes of one event, of a comment."""

from __future__ import annotations

import re

HEARTBEAT = b": keep-alive\n\n"
"""A comment: ignored by every client, keeps proxies from closing a silent stream."""
_ENDS_LINE = re.compile(r"[\r\n]+")
DONE = b"data: [DONE]\n\n"
"""OpenAI's end of stream."""
HEADERS: list[tuple[bytes, bytes]] = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


def comment(text: str) -> bytes:
    """For people who look at the stream. Whatever is in it stays one line: a client takes none of it for an event."""
    return b": " + _ENDS_LINE.sub(" ", text).encode() + b"\n\n"


def cursor(identifier: str) -> bytes:
    """What a client sends as Last-Event-ID when it reconnects, without an event."""
    return b"id: " + identifier.encode() + b"\n\n"


def data(payload: bytes) -> bytes:
    """An unnamed event. `payload` is JSON on one line."""
    return b"data: " + payload + b"\n\n"


def event(name: str, payload: bytes, identifier: str | None = None) -> bytes:
    """A named event; `identifier` comes back as Last-Event-ID when the client reconnects."""
    head = b"" if identifier is None else b"id: " + identifier.encode() + b"\n"
    return head + b"event: " + name.encode() + b"\ndata: " + payload + b"\n\n"
