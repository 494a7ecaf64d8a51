"""Settings of the delay service: `TUTTI_DELAY__<NAME>`."""

from __future__ import annotations

from pydantic import BaseModel, PositiveFloat, PositiveInt

from shared.settings import ClusterSettings


class DelayPolicy(BaseModel):
    """What a delay service may be told."""

    held_records: PositiveInt = 2048
    held_bytes: PositiveInt = 524_288
    """Held in memory per partition; above this the partition is paused. Inside a tier the rest of it is due later."""
    commit_seconds: PositiveFloat = 0.1
    send_records: PositiveInt = 512
    """Sent on together."""
    send_retry_seconds: PositiveFloat = 0.5
    """Pause after Kafka did not take what was sent."""


class DelaySettings(ClusterSettings):
    """Settings of a delay service's process."""

    delay: DelayPolicy = DelayPolicy()
