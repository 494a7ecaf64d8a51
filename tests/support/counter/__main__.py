"""`python -m tests.support.counter`."""

from __future__ import annotations

from shared.service import main
from tests.support.counter.app import build

raise SystemExit(main([("counter", build)]))
