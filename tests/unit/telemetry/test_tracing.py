"""W3C trace context: one trace from the caller to the model call; who tells of a span names it alike."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.contracts import headers
from shared.telemetry import tracing

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


@settings(max_examples=25)
@given(st.integers())
def test_a_new_trace_is_well_formed(seed: int) -> None:
    """Our own reader accepts it, and its span is the job's own."""
    fresh = tracing.new(Random(seed))
    assert headers.Envelope([("traceparent", fresh.encode())]).traceparent() == fresh
    place = tracing.place_of(fresh, "j1", "jobs.standard/0/1")
    assert (place.trace, place.span, place.parent, place.sampled) == (fresh[3:35], fresh[36:52], None, True)
    assert place.traceparent() == fresh


def test_a_child_keeps_the_trace_and_flags_and_changes_the_span() -> None:
    """Also when the caller did not sample; the same child each time."""
    child = tracing.child(PARENT, "step", 1)
    assert headers.Envelope([("traceparent", child.encode())]).traceparent() == child == tracing.child(PARENT, "step", 1)
    assert tracing.trace_id(child) == tracing.trace_id(PARENT) == "0af7651916cd43dd8448eb211c80319c"
    assert child.endswith("-00")
    assert len({child[36:52], PARENT[36:52], tracing.child(PARENT, "step", 2)[36:52]}) == 3
    assert tracing.trace_id(None) is None


def test_a_callers_span_is_above_the_jobs() -> None:
    """Of two lives of an id each has its own; who is not recorded by his caller is told."""
    first, second = (tracing.place_of(PARENT, "j1", f"jobs.standard/0/{offset}") for offset in (1, 2))
    assert first.parent == second.parent == PARENT[36:52]
    assert first.trace == second.trace
    assert first.span != second.span
    assert not first.sampled


def test_a_job_without_a_trace_has_one() -> None:
    """By where it lay."""
    first, again, other = (tracing.place_of(None, "j1", f"jobs.standard/0/{offset}") for offset in (1, 1, 2))
    assert first == again
    assert first.trace != other.trace
    assert headers.Envelope([("traceparent", first.traceparent().encode())]).traceparent() is not None
