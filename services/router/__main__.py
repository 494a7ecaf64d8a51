"""`python -m services.router`: one router in a process of its own."""

from __future__ import annotations

from services.router.app import build
from shared.service import main

raise SystemExit(main([("router", build)]))
