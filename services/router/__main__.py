"""`python -m services.router`: one router in a process of its own."""

from __future__ import annotations

from services.router.app import build
from shared.service.process import run_process

raise SystemExit(run_process([("router", build)]))
