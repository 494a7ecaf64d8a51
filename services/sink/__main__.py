"""`python -m services.sink`: one sink in a process of its own."""

from __future__ import annotations

from services.sink.app import build
from shared.service import main

raise SystemExit(main([("sink", build)]))
