"""W3C trace context (Recommendation of 2021-11-23): a `traceparent` runs from the caller to the model call.

Ids of spans are hashes of what they are of, so that whoever tells of a span (the worker to its endpoint, the sink to a collector, again
after a crash) names it alike, and nobody has to be told.
"""

from __future__ import annotations

from hashlib import blake2b
from random import Random
from typing import NamedTuple

_SEPARATOR = "\x1f"


class JobSpan(NamedTuple):
    """Where a job's own span lies: trace and span, the span above it (None: there is none), and whether its caller has it recorded."""

    trace: str
    span: str
    parent: str | None
    sampled: bool

    def traceparent(self) -> str:
        """For what is below it."""
        return f"00-{self.trace}-{self.span}-{int(self.sampled):02x}"


def new(random: Random) -> str:
    """A fresh, sampled traceparent. Its span is that of the job that it is given to: nobody else has one yet."""
    trace = f"{random.getrandbits(128) or 1:032x}"
    return f"00-{trace}-{span_id(trace)}-01"


def span_id(*names: str | int) -> str:
    """Of what these names say: 16 hex digits."""
    return blake2b(_SEPARATOR.join(map(str, names)).encode("utf-8", "replace"), digest_size=8).hexdigest()


def child(parent: str, *names: str | int) -> str:
    """The same trace, with the span that these names say."""
    return f"{parent[:36]}{span_id(trace_id(parent) or '', *names)}{parent[52:]}"


def trace_id(traceparent: str | None) -> str | None:
    """The 32 hex digits that logs carry as `trace`."""
    return traceparent[3:35] if traceparent else None


def place_of(traceparent: str | None, job: str, source: str) -> JobSpan:
    """A job's span. `source`: where its record lay, which tells apart the lives of one id."""
    if traceparent is None:  # of a producer without one, or of a schedule
        trace = blake2b(_SEPARATOR.join((job, source)).encode("utf-8", "replace"), digest_size=16).hexdigest()
        return JobSpan(trace, span_id(trace), None, sampled=True)
    trace, above, sampled = traceparent[3:35], traceparent[36:52], bool(int(traceparent[53:], 16) & 1)
    if above == span_id(trace):
        return JobSpan(trace, above, None, sampled)
    return JobSpan(trace, span_id(trace, job, source), above, sampled)
