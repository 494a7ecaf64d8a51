"""Settings of the counter: `TUTTI_COUNTER__<NAME>`."""

from __future__ import annotations

from pydantic_settings import BaseSettings

from shared.contracts.base import PositiveSeconds
from shared.settings import of_service


class CounterSettings(BaseSettings):
    """What a counter may be told."""

    model_config = of_service("counter")

    commit_seconds: PositiveSeconds = 1.0
