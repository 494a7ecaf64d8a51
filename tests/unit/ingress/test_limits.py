"""Bounds on bodies hold, cost little, and let every ordinary body through."""

from __future__ import annotations

import contextlib
import json
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingress.limits import check_body_size, check_depth, check_inline_size
from shared.errors import TooLarge

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=40,
)


def depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max((depth(inner) for inner in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((depth(inner) for inner in value), default=0)
    return 0


@given(json_values, st.integers(1, 6))
def test_depth_is_judged_as_a_parser_would(value: object, limit: int) -> None:
    """Refused exactly when the parsed value nests deeper than the limit, whatever strings contain."""
    body = json.dumps(value).encode()
    if depth(value) > limit:
        with pytest.raises(TooLarge):
            check_depth(body, limit)
    else:
        check_depth(body, limit)


def test_brackets_and_quotes_inside_strings_do_not_count() -> None:
    """Code in a prompt is not nesting."""
    check_depth(json.dumps({"prompt": '[{"\\' * 500}).encode())


@pytest.mark.parametrize("body", [b'"' + b'\\"' * 2_000_000, b'"' * 4_000_000, b"[" * 4_000_000, b"[]" * 2_000_000, b'{"a":' * 1_000_000])
def test_hostile_bodies_cost_linear_time(body: bytes) -> None:
    """Four megabytes of quotes or brackets are judged within a second of processor time."""
    began = process_time()
    with contextlib.suppress(TooLarge):
        check_depth(body)
    assert process_time() - began < 1.0


def test_sizes_at_the_bound_pass_and_one_more_does_not() -> None:
    """The bound itself is allowed."""
    check_body_size(10, 10)
    check_inline_size(64 * 1024)
    with pytest.raises(TooLarge):
        check_body_size(11, 10)
    with pytest.raises(TooLarge, match="not supported yet"):
        check_inline_size(64 * 1024 + 1)
