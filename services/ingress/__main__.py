"""`python -m services.ingress`."""

from __future__ import annotations

from services.ingress.app import build
from shared.service import main

raise SystemExit(main([("ingress", build)]))
