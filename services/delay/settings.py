"""Settings of the delay service: `TUTTI_DELAY__<NAME>`."""

from __future__ import annotations

from pydantic_settings import BaseSettings

from shared.contracts.base import Ordinal, PositiveSeconds
from shared.settings import of_service


class DelaySettings(BaseSettings):
    """What a delay service may be told."""

    model_config = of_service("delay")

    held_records: Ordinal = 2048
    """Held in memory per partition; whichever of the two is reached first."""
    held_bytes: Ordinal = 524_288
    """The same in bytes; above it the partition is paused. Inside a tier the rest of it is due later."""
    commit_seconds: PositiveSeconds = 0.1
    """Between two commits of positions: what is read, and may be sent, again after a crash."""
    send_records: Ordinal = 512
    """Sent on in one go, before others have their turn."""
