"""Fixtures for all tests. Real components come from tests/support/native.py, how often a property is tried from its Hypothesis profile.

| profile | examples | for |
|---|---|---|
| `check` | 25 | `make check`: every run draws others, so runs add up |
| `thorough` | 1,000 | `make test-chaos` |

TUTTI_EXAMPLES names another one. A failure prints the smallest example and the line that repeats it.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from shared.contracts.base import Contract

pytest_plugins = ["tests.support.native", "tests.support.browser"]

for _name, _examples in (("check", 25), ("thorough", 1_000)):
    # No deadline and no complaint of slow drawing: on a busy machine both would only measure the machine.
    settings.register_profile(_name, max_examples=_examples, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile(os.environ.get("TUTTI_EXAMPLES") or "check")

Contract.checks_valid = True
_SHORT = {Path(__file__).parent / folder for folder in ("unit", "contract")}
"""Tests that allocate little: what one leaves is young at its end."""


def pytest_collection_finish() -> None:
    """Modules and collected tests stay: collecting garbage need not look at them each time. Nor need it begin within most short tests:
    then what one has left is young at its end, and a look at the young generations finds it; a look at all took a seventh of their time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


@pytest.fixture(autouse=True)
def leaves_nothing_open(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test leaves open (a socket, a file, a coroutine) fails that test: else it fails whichever test garbage is collected in.

    All is looked at where a test allocates so much that some of that is old by then.
    """
    yield
    gc.collect(1 if _SHORT.intersection(request.path.parents) else 2)


@pytest.fixture
def quiet() -> Iterator[None]:
    """Faults make services complain as they should; what they log would hide the report."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
