"""Labels of metrics are bounded."""

from __future__ import annotations

from services.sink.gauges import LabelValues


def test_the_first_values_are_told_apart_and_all_others_are_one() -> None:
    """However many tenants there are."""
    label = LabelValues(2)
    assert [label(value) for value in ("a", "b", "c", "a", "d", "b")] == ["a", "b", "other", "a", "other", "b"]
