"""The cache: what a caller may ask of it, and what planners and caches say to each other.

A *lookup* goes to the cache instead of a step's first attempt, a *fill* after the acknowledgement of an answer. Both carry the step's
*fingerprint* as their key (`services/planner/state/caching.py`): equal ones meet in one partition.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter

from shared.contracts.base import (
    Contract,
    JobId,
    Label,
    ModelName,
    Ordinal,
    Partition,
    PriorityClass,
    Seconds,
    StepId,
    Tenant,
    Text,
    adapter,
)
from shared.contracts.chat import Answer
from shared.contracts.usage import Usage

FINGERPRINT = r"[0-9a-f]{64}"
Fingerprint = Annotated[str, StringConstraints(pattern=f"^{FINGERPRINT}$", max_length=64)]
"""BLAKE2b of everything that decides an answer, hex; also the entry's id."""
Mode = Literal["off", "exact", "semantic", "exact_then_semantic"]
Scope = Literal["session", "user", "tenant", "global"]
"""Who shares entries: one conversation, one user (`metadata.user`), the tenant, or all whose tenants are allowed to. In the fingerprint."""
Threshold = Annotated[float, Field(ge=0, le=1)]
LONGEST_SECONDS = 30 * 86_400.0
Lifetime = Annotated[float, Field(gt=0, le=LONGEST_SECONDS)]
Marks = Annotated[tuple[Label, ...], Field(max_length=16)]


class CacheControl(Contract):
    """What a job asks of the cache. A field left out is the tenant's, then the cluster's."""

    model_config = ConfigDict(extra="forbid")

    mode: Mode | None = None
    """Left out: as the tenant has it, else off."""
    no_cache: bool = False
    """Ask a model, and keep what it says."""
    no_store: bool = False
    """Keep nothing of this job."""
    max_age: Seconds | None = None
    """Nothing older."""
    ttl: Lifetime | None = None
    """How long what is kept of this job may be served. Never longer than the tenant's, or the cluster's."""
    scope: Scope = "tenant"
    threshold: Threshold | None = None
    """Similarity that a semantic hit must have: only ever raises what the cluster asks for."""
    creative: bool = False
    """Also answers that were drawn by chance (a temperature above 0 without a seed)."""
    tags: Marks = ()
    documents: Marks = ()
    """What the answer rests on. By both, entries can be purged."""


class TenantCache(Contract):
    """What an administrator allows a tenant's jobs, and has them do that say nothing themselves."""

    model_config = ConfigDict(extra="forbid")

    allowed: bool = True
    """Whether its jobs may use the cache at all: where not, nothing of them is kept, whatever they ask."""
    mode: Mode = "off"
    """Of jobs that do not say."""
    scope: Literal["tenant", "global"] = "tenant"
    """The widest. `global`: its answers may be served to other tenants that are allowed the same."""
    ttl: Lifetime | None = None
    threshold: Threshold | None = None


class _OfEntry(Contract):
    key: Fingerprint
    tenant: Tenant
    job: JobId
    step: StepId


class Meaning(Contract):
    """What a semantic lookup compares. `partition`: the fingerprint of all that decides the answer but the question; entries of another
    one are never looked at, so a scope cannot be left.
    """

    partition: Fingerprint
    question: Text
    threshold: Threshold | None = None


class CacheLookup(_OfEntry):
    """Is there an answer to this step? The cache says so on `outcomes` at `home`: StepSucceeded, or CacheMissed."""

    type: Literal["cache_lookup"] = "cache_lookup"
    attempt: Ordinal
    home: Partition
    priority_class: PriorityClass
    exact: bool = True
    meaning: Meaning | None = None
    max_age: Seconds | None = None


class CacheFill(_OfEntry):
    """An answer that a step's history has accepted: complete, inline, of no tool."""

    type: Literal["cache_fill"] = "cache_fill"
    answer: Answer
    usage: Usage
    ttl: Lifetime
    model: ModelName
    tags: Marks = ()
    documents: Marks = ()
    meaning: Meaning | None = None


class CacheAbandoned(_OfEntry):
    """The step that was to answer this ends without an answer that can be kept: who waits for it need not."""

    type: Literal["cache_abandoned"] = "cache_abandoned"


FromPlanner = Annotated[CacheFill | CacheAbandoned, Field(discriminator="type")]
FILL: TypeAdapter[CacheFill | CacheAbandoned] = adapter(FromPlanner)
