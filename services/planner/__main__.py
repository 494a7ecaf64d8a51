"""`python -m services.planner`."""

from __future__ import annotations

from services.planner.app import build
from shared.service import main

raise SystemExit(main([("planner", build)]))
