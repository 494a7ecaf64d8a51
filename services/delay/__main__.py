"""`python -m services.delay`: one delay service in a process of its own."""

from __future__ import annotations

from services.delay.app import build
from shared.service.process import run_process

raise SystemExit(run_process([("delay", build)]))
