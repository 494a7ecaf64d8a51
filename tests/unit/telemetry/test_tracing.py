"""W3C trace context: one trace from the caller to the model call, a new span at each hop."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.contracts import headers
from shared.telemetry import tracing


@settings(max_examples=25)
@given(st.integers())
def test_a_new_trace_is_well_formed(seed: int) -> None:
    """Our own reader accepts it."""
    parent = tracing.new(Random(seed))
    assert headers.Envelope([("traceparent", parent.encode())]).traceparent() == parent


@settings(max_examples=25)
@given(st.integers())
def test_a_child_keeps_the_trace_and_flags_and_changes_the_span(seed: int) -> None:
    """Also when the caller did not sample."""
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
    child = tracing.child(parent, Random(seed))
    assert headers.Envelope([("traceparent", child.encode())]).traceparent() == child
    assert tracing.trace_id(child) == tracing.trace_id(parent) == "0af7651916cd43dd8448eb211c80319c"
    assert child.endswith("-00")
    assert child[36:52] != parent[36:52]


def test_without_a_parent_a_trace_begins() -> None:
    """Every job has one."""
    assert tracing.trace_id(tracing.child(None, Random(1))) is not None
    assert tracing.trace_id(None) is None
