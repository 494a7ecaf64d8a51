"""`python -m services.critic`: one critic in a process of its own."""

from __future__ import annotations

from services.critic.app import build
from shared.service import main

raise SystemExit(main([("critic", build)]))
