"""`python -m tests.support.counter`."""

from __future__ import annotations

from shared.service.process import run_process
from tests.support.counter.app import build

raise SystemExit(run_process([("counter", build)]))
