"""Bounds on the size of bodies: the bound itself passes."""

from __future__ import annotations

import pytest

from services.ingress.http.encodings import check_body_size, check_inline_size
from shared.errors import TooLarge


def test_sizes_at_the_bound_pass_and_one_more_does_not() -> None:
    """The bound itself is allowed."""
    check_body_size(10, 10)
    check_inline_size(64 * 1024)
    with pytest.raises(TooLarge):
        check_body_size(11, 10)
    with pytest.raises(TooLarge, match="at most 65536 fit"):
        check_inline_size(64 * 1024 + 1)
