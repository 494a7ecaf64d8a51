"""Settings of the cache: `TUTTI_CACHE__<NAME>`."""

from __future__ import annotations

from typing import Literal

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings

from shared.contracts.base import ModelName, Ordinal, PositiveSeconds, Sentence
from shared.contracts.cache import Threshold
from shared.settings import of_service


class CacheSettings(BaseSettings):
    """What a cache may be told."""

    model_config = of_service("cache")

    store: Sentence = ""
    """redis://..., of an instance of its own that evicts. Empty: nothing is kept, equal steps still wait for one another."""
    keys_file: Sentence = Field(default="", validation_alias=AliasChoices("TUTTI_CACHE__KEYS_FILE", "TUTTI_INGRESS__KEYS_FILE"))
    """API keys (`shared/access.py`), the ingress's own file unless another is named."""
    store_connections: Ordinal = 8
    """Of this instance to the store."""
    store_timeout_seconds: PositiveSeconds = 0.015
    """Of one call; a planner waits 0.02 s. A store that is slower counts as away."""
    store_pause_seconds: PositiveSeconds = 1.0
    """A store that did not answer three times is asked again after this; until then every lookup is a miss at once."""
    flight_seconds: PositiveSeconds = 30.0
    """So long one step is believed to be about to get an answer, of which nothing is heard; then the next that asks is sent."""
    flights: Ordinal = 10_000
    """Different steps of a partition that may be waited for; of more each is sent."""
    followers: Ordinal = 256
    """Steps that wait for the same one; of more each is sent."""
    batch_records: Ordinal = 256
    """Of one partition, answered at once."""
    held_bytes: Ordinal = 1_048_576
    """Read ahead of each partition; above this it is paused."""
    commit_seconds: PositiveSeconds = 1.0
    """Between two commits of positions: what is looked up again after a crash."""
    embedder: Literal["", "cluster", "local"] = ""
    """Of questions: a node's model, or one in this process. Empty: no semantic lookups."""
    embedder_model: ModelName = "all-minilm"
    """Of `cluster`."""
    embedder_path: Sentence = ""
    """Of `local`: a folder that sentence-transformers reads."""
    threshold: Threshold = 0.87
    """Cosine from which on an entry of which nothing else is known answers a question. `tutti cache calibrate` measures it."""
    error_share: float = Field(default=0.01, gt=0, le=0.5)
    """Of those asked, how many may be answered wrong by an entry whose labels decide."""
    shadow_share: float = Field(default=0.01, ge=0, le=1)
    """Of semantic hits that are answered by a model all the same, to learn how many would have been false."""
    semantic_seconds: PositiveSeconds = 0.07
    """Of a lookup, from the question to the entry; a planner waits 0.08 s."""
    vectors: Ordinal = 10_000
    """Of one partition and embedder."""
