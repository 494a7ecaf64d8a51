"""`python -m services.critic`: one critic in a process of its own."""

from __future__ import annotations

from services.critic.app import build
from shared.service.process import run_process

raise SystemExit(run_process([("critic", build)]))
