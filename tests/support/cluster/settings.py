"""Settings of a simulated cluster: small, and with timeouts short enough to fire within a run."""

from __future__ import annotations

from typing import Any

from services.cache.settings import CacheSettings
from services.delay.settings import DelaySettings
from services.ingress.settings import CallbackSettings, IngressSettings
from services.planner.settings import PlannerSettings
from services.router.settings import RouterSettings
from services.worker.owner.manners import OwnerSettings
from services.worker.settings import WorkerSettings
from shared.contracts.budget import TenantLimits
from shared.kafka.memory.memory_cluster import GroupTimings
from shared.topics import Topics, TopicSettings
from tests.support.cluster import receivers
from tests.support.cluster.faults import FaultMix

LEASE_SECONDS = 4.0
CLAIM_SECONDS = 2.5
SILENT_SECONDS = 4.0
SLOTS = {"worker-1": 2, "worker-2": 2, "worker-3": 16}
"""One node has places for all routers and planners, the others have not."""
PREFETCH = 2
GRACE_SECONDS = 6.0
TIMINGS = GroupTimings(session=6.0, heartbeat=1.0, rebalance=10.0)
HOMES = 3
PLANNERS = ("planner-1", "planner-2")
ROUTERS = ("router-1", "router-2")
WORKERS = ("worker-1", "worker-2", "worker-3")
DELAYS = ("delay-1",)
INGRESSES = ("ingress-1", "ingress-2")
CACHES = ("cache-1", "cache-2")
CACHE_CONTROLS: tuple[dict[str, Any], ...] = (
    {}, {}, {}, {"no_cache": True}, {"no_store": True}, {"max_age": 3}, {"scope": "global"}, {"ttl": 4},
)  # fmt: skip
"""What jobs say that ask the cache, besides that they do."""
LIMITED = {"calls": TenantLimits(calls=7), "tokens": TenantLimits(tokens=900), "few": TenantLimits(calls=40, concurrent_jobs=1)}
"""Tenants with limits, low enough to be reached in a run."""
MAIL, TOLD = "shy@example.com", "told@example.com"
"""The one stands in inputs of tenant `shy`, and no model of it may read that; the other in what a node answers to `nodes.LEAK`. No caller
of `shy` may see either."""
POLICED = {
    "shy": TenantLimits.model_validate({"policies": [
        {"direction": "input", "checks": {"personal_data": ["email"]}, "action": "redact"},
        {"direction": "answer", "checks": {"personal_data": ["email", "phone"]}, "action": "redact"},
        {"direction": "answer", "checks": {"secrets": True}, "action": "block"},
    ]}),
    "strict": TenantLimits.model_validate({"policies": [
        {"direction": "input", "checks": {"forbidden": ["never"]}, "action": "block"},
        {"direction": "answer", "checks": {"max_chars": 60}, "action": "retry", "times": 2},
    ]}),
    "lax": TenantLimits.model_validate({"policies": [{"direction": "answer", "checks": {"personal_data": ["email"]}, "action": "flag"}]}),
}  # fmt: skip
"""Tenants with policies; declared where there are critics."""
CRITIQUE_SECONDS = 10.0


def topics() -> Topics:
    return Topics(
        TopicSettings(
            home_partitions=HOMES, steps_partitions=2, work_partitions=4, replies_partitions=2, other_partitions=2, capabilities=("chat",)
        )
    )


def planner(mix: FaultMix) -> PlannerSettings:
    return PlannerSettings(
        lease_seconds=LEASE_SECONDS,
        node_lost_seconds=mix.node_lost_seconds,
        claim_timeout_seconds=CLAIM_SECONDS,
        backoff_base_seconds=0.1,
        backoff_cap_seconds=1.0,
        attempts=mix.attempts,
        resend_seconds=max(mix.day_seconds / 2, mix.no_node_seconds + 60.0),
        settled_memory_seconds=max(30.0, mix.day_seconds / 24),
        budget_wait_seconds=8.0,
        budget_idle_seconds=2.0,
        live_jobs=5 if mix.tight else 600,
        queue_records=8 if mix.tight else 1_000,
        conversation_tokens=120,
        batch_lines=8,
        batch_patience_seconds=60.0,
        critique_seconds=CRITIQUE_SECONDS,
        snapshot_distance=15 if mix.tight else 20_000,
        cache_follow_seconds=2.0,
    )


def cache() -> CacheSettings:
    return CacheSettings(flight_seconds=4.0, store_pause_seconds=0.5, flights=64)


def router(mix: FaultMix) -> RouterSettings:
    return RouterSettings(
        no_node_limit_seconds=mix.no_node_seconds,
        window=8 if mix.tight else 64,
        window_span=16 if mix.tight else 1024,
        buffered_records=8 if mix.tight else 1024,
    )


def worker(name: str, mix: FaultMix) -> WorkerSettings:
    return WorkerSettings(
        node=name,
        slots=SLOTS[name],
        prefetch_limit=PREFETCH,
        renew_seconds=1.0,
        earlier_silent_seconds=SILENT_SECONDS,
        register_seconds=10.0,
        probe_seconds=2.0,
        first_token_timeout_seconds=20.0,
        between_tokens_timeout_seconds=10.0,
        node_expiry_seconds=30.0,
        owner=OwnerSettings(away_seconds=60.0, look_seconds=0.5, finish_seconds=2.0, unload=False) if mix.owner else OwnerSettings(),
    )


def delay(mix: FaultMix) -> DelaySettings:
    return DelaySettings(held_records=4 if mix.tight else 2048)


def ingress(mix: FaultMix) -> IngressSettings:
    return IngressSettings(
        callbacks=receivers.settings() if mix.receivers else CallbackSettings(),
        deadline_seconds={"interactive": 600.0, "standard": 600.0, "batch": 600.0},
        accept_seconds=2.0,
        no_node_wait_seconds=1.0,
        events_pause_seconds=0.2,
        events_lookback=20,
        sweep_seconds=0.25,
    )
