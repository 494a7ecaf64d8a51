"""Fixtures for all tests. Real components come from tests/support/native.py."""

from __future__ import annotations

pytest_plugins = ["tests.support.native"]
