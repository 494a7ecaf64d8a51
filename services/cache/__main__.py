"""`python -m services.cache`: one cache in a process of its own."""

from __future__ import annotations

from services.cache.app import build
from shared.service.process import run_process

raise SystemExit(run_process([("cache", build)]))
