"""`python -m services.worker`: one worker in a process of its own."""

from __future__ import annotations

from services.worker.app import build
from shared.service import main

raise SystemExit(main([("worker", build)]))
