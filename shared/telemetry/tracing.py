"""W3C trace context (Recommendation of 2021-11-23): a `traceparent` runs from the caller to the model call."""

from __future__ import annotations

from random import Random


def new(random: Random) -> str:
    """A fresh, sampled traceparent."""
    return f"00-{random.getrandbits(128) or 1:032x}-{random.getrandbits(64) or 1:016x}-01"


def child(parent: str | None, random: Random) -> str:
    """The same trace with a span id of its own; a new trace when there is no parent."""
    if parent is None:
        return new(random)
    version_trace = parent[:36]
    return f"{version_trace}{random.getrandbits(64) or 1:016x}{parent[52:]}"


def trace_id(traceparent: str | None) -> str | None:
    """The 32 hex digits that logs carry as `trace`."""
    return traceparent[3:35] if traceparent else None
