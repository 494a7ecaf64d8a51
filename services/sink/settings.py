"""Settings of the sink: `TUTTI_SINK__<NAME>`."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AliasChoices, Field, field_validator
from pydantic_settings import BaseSettings

from shared.contracts.base import Label, Ordinal, PositiveSeconds, Sentence
from shared.settings import of_service


class SinkSettings(BaseSettings):
    """What a sink may be told."""

    model_config = of_service("sink")

    store: Sentence = ""
    """mongodb://..., a server or what speaks its protocol. Empty: nothing is stored, only metrics are counted."""
    database: Label = Field(default="tutti", pattern=r"^[A-Za-z0-9_-]{1,38}$")
    """Its name in the store; two clusters on one server need two."""
    keys_file: Sentence = Field(default="", validation_alias=AliasChoices("TUTTI_SINK__KEYS_FILE", "TUTTI_INGRESS__KEYS_FILE"))
    """API keys (`shared/access.py`), the ingress's own file unless another is named."""
    batch_records: Ordinal = 1_000
    """Of one home in one write: a job of so many records is one upsert."""
    held_bytes: Ordinal = 1_048_576
    """Read ahead of each partition; above this it is paused."""
    commit_seconds: PositiveSeconds = 1.0
    """Between two commits of positions: what is counted again after a crash changes nothing."""
    store_timeout_seconds: PositiveSeconds = 10.0
    """Of one call; a store that is slower counts as away, and is asked again."""
    usage_days: Ordinal = Field(default=400, le=36_500)
    """How long a job's row is kept; as long as any month's bill may be asked for again."""
    totals_days: Ordinal = Field(default=3_650, le=36_500)
    """How long a day's totals are kept: ten years."""
    audit_days: Ordinal = Field(default=400, le=36_500)
    """How long an event stands in the audit."""
    acts_days: Ordinal = Field(default=400, le=36_500)
    """What administrators did."""
    dead_letter_days: Ordinal = Field(default=90, le=36_500)
    """How long a dead letter can be found."""
    node_days: Ordinal = Field(default=90, le=36_500)
    """How long it is known what a node said of itself."""
    labels: Ordinal = Field(default=100, le=10_000)
    """Different tenants, models, agents, patterns, nodes that metrics tell apart, each; all further ones are `other`."""
    known_jobs: Ordinal = 20_000
    """Of a home, remembered in memory; others are looked up in the store."""
    traces: Sentence = ""
    """Where spans of ended jobs go: http://collector:4318/v1/traces (OTLP; extra `otel`, and a store). More by OTEL_EXPORTER_OTLP_*."""
    traced_share: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Of the traces that their callers have recorded."""
    trace_timeout_seconds: PositiveSeconds = 5.0
    """Of one sending, repeats included; then its jobs are left out."""
    queries: Ordinal = 8
    """Answered at once; more wait."""
    ingress_url: Sentence = "http://127.0.0.1:8080"
    """Where browsers find the ingress: the page's playground and its reviews call it. That must allow the page's origin
    (TUTTI_INGRESS__ORIGINS). Empty: the page does without."""
    page_jobs: Ordinal = Field(default=10_000, le=50_000)
    """Newest jobs that the page holds, here and in each browser."""
    page_lookback: Ordinal = 12_000
    """Events of each home that are read again when somebody begins to look; further back, to the planners' watermark, if need be."""
    page_seconds: PositiveSeconds = 0.5
    """A viewer is told at most this often."""
    page_viewers: Ordinal = 32
    """Pages that are told at once; more are refused (503)."""
    page_stream_seconds: PositiveSeconds = 3_600.0
    """A stream ends after this; its page goes on from where it was."""
    page_idle_seconds: PositiveSeconds = 60.0
    """So long after the last viewer has left, reading ends."""

    @field_validator("ingress_url")
    @classmethod
    def _is_an_origin(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://[A-Za-z0-9.\-\[\]:]{1,253}", value):
            raise ValueError("an origin is http://host:port or https://host, without a path")
        return value
