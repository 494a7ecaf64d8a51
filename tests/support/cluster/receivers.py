"""Receivers of callbacks in a simulated cluster: what they take they remember; they refuse, are slow, and answers of theirs are lost."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from random import Random
from tempfile import gettempdir
from typing import Any

from services.ingress.callbacks.port import Heard
from services.ingress.settings import CallbackSettings

HOSTS = ("hooks-1.example", "hooks-2.example", "hooks-3.example")
TENANTS = ("red", "green", "blue")
_SLOW_SECONDS = 6.0


class Receivers:
    """All of a run. `fails`: the share of tries that a receiver does not take, or whose answer is lost."""

    def __init__(self, random: Random, fails: float) -> None:
        self._random, self.fails = random, fails
        self.got: defaultdict[str, list[tuple[str, Any]]] = defaultdict(list)
        """job → (webhook-id, body) of what was taken."""
        self.tries = 0

    async def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> Heard:
        self.tries += 1
        await asyncio.sleep(self._random.uniform(0.0, 0.3))
        chance = self._random.random()
        if chance < self.fails / 2:
            if self._random.random() < 0.3:
                await asyncio.sleep(_SLOW_SECONDS)
            return Heard(False, "status 500", gone=self._random.random() < 0.2)
        found = json.loads(body)
        self.got[found["data"]["url"].partition("/v1/jobs/")[2]].append((headers["webhook-id"], found))
        if chance < self.fails:
            return Heard(False, "no answer within 5 s")
        return Heard(True)

    async def close(self) -> None:
        """It has no connections."""


def settings() -> CallbackSettings:
    """Pauses short enough to end within a run."""
    file = Path(gettempdir()) / "tutti-simulated-secrets.json"
    text = json.dumps({tenant: {"default": "whsec_" + "a2tr" * 12} for tenant in TENANTS})
    if not file.exists() or file.read_text() != text:
        file.write_text(text)
    return CallbackSettings(
        secrets_file=str(file), hosts=".example", attempts=3, first_pause_seconds=1.0, longest_pause_seconds=4.0, patience_seconds=2.0
    )
