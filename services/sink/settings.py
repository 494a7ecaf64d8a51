"""Settings of the sink: `TUTTI_SINK__<NAME>`."""

from __future__ import annotations

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings

from shared.contracts.base import Label, Ordinal, PositiveSeconds, Sentence
from shared.settings import of_service

DAY_SECONDS = 86_400.0


class SinkSettings(BaseSettings):
    """What a sink may be told."""

    model_config = of_service("sink")

    store: Sentence = ""
    """mongodb://..., a server or what speaks its protocol. Empty: nothing is stored, only metrics are counted."""
    database: Label = Field(default="tutti", pattern=r"^[A-Za-z0-9_-]{1,38}$")
    keys_file: Sentence = Field(default="", validation_alias=AliasChoices("TUTTI_SINK__KEYS_FILE", "TUTTI_INGRESS__KEYS_FILE"))
    """API keys (`shared/access.py`), the ingress's own file unless another is named."""
    batch_records: Ordinal = 1_000
    """Of one home in one write: a job of so many records is one upsert."""
    held_bytes: Ordinal = 1_048_576
    """Read ahead of each partition; above this it is paused."""
    commit_seconds: PositiveSeconds = 1.0
    store_timeout_seconds: PositiveSeconds = 10.0
    """Of one call; a store that is slower counts as away, and is asked again."""
    usage_days: Ordinal = Field(default=400, le=36_500)
    """How long a job's row is kept; as long as any month's bill may be asked for again."""
    totals_days: Ordinal = Field(default=3_650, le=36_500)
    audit_days: Ordinal = Field(default=400, le=36_500)
    acts_days: Ordinal = Field(default=400, le=36_500)
    """What administrators did."""
    dead_letter_days: Ordinal = Field(default=90, le=36_500)
    node_days: Ordinal = Field(default=90, le=36_500)
    labels: Ordinal = Field(default=100, le=10_000)
    """Different tenants, models, agents, patterns, nodes that metrics tell apart, each; all further ones are `other`."""
    known_jobs: Ordinal = 20_000
    """Of a home, remembered in memory; others are looked up in the store."""
    queries: Ordinal = 8
    """Answered at once; more wait."""
