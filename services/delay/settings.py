"""Settings of the delay service: `TUTTI_DELAY__<NAME>`."""

from __future__ import annotations

from pydantic_settings import BaseSettings

from shared.contracts.base import Ordinal, PositiveSeconds
from shared.settings import of_service


class DelaySettings(BaseSettings):
    """What a delay service may be told."""

    model_config = of_service("delay")

    held_records: Ordinal = 2048
    held_bytes: Ordinal = 524_288
    """Held in memory per partition; above this the partition is paused. Inside a tier the rest of it is due later."""
    commit_seconds: PositiveSeconds = 0.1
    send_records: Ordinal = 512
    """Sent on in one go, before others have their turn."""
