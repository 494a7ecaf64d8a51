"""`python -m services.planner`."""

from __future__ import annotations

from services.planner.app import build
from shared.service.process import run_process

raise SystemExit(run_process([("planner", build)]))
