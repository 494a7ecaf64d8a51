"""`python -m services.sink`: one sink in a process of its own."""

from __future__ import annotations

from services.sink.app import build
from shared.service.process import run_process

raise SystemExit(run_process([("sink", build)]))
