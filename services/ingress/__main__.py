"""`python -m services.ingress`."""

from __future__ import annotations

from services.ingress.app import build
from shared.service.process import run_process

raise SystemExit(run_process([("ingress", build)]))
