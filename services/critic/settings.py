"""Settings of the critic: `TUTTI_CRITIC__<NAME>`."""

from __future__ import annotations

from pydantic_settings import BaseSettings

from shared.contracts.base import Ordinal, PositiveSeconds
from shared.settings import of_service


class CriticSettings(BaseSettings):
    """What a critic may be told."""

    model_config = of_service("critic")

    open_critiques: Ordinal = 64
    """Of one partition, begun and not answered: those that wait for a blob hold up no others."""
    held_records: Ordinal = 512
    """Read ahead of each partition; whichever of the two is reached first."""
    held_bytes: Ordinal = 1_048_576
    """The same in bytes; above it the partition is paused."""
    commit_seconds: PositiveSeconds = 0.25
    """Between two commits of positions: what is judged again after a crash, for nothing."""
