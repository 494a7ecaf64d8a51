"""A store as tests of questions find it: of two tenants a job, a conversation, sums, links of the chain; a node, a letter."""

from __future__ import annotations

from datetime import UTC, datetime

from services.sink.port import ACTS, AUDIT, LETTERS, NODES, TALKS, TOTALS, USAGE
from shared.clock import ManualClock
from tests.support.sink_store import MemoryStore

TENANTS = ("acme", "globex")


def stored() -> MemoryStore:
    store, now = MemoryStore(), ManualClock().wall()
    day = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")
    for n, tenant in enumerate(TENANTS):
        row = {"job": f"{tenant}/j1", "tenant": tenant, "home": "h.0", "life": n, "at": now, "status": "succeeded", "prompt_tokens": 5}
        store.documents[USAGE][f"{tenant}/j1"] = row
        for home in ("h.0", "h.1"):
            store.documents[TOTALS][f"{tenant}{home}"] = {
                "of": "jobs", "day": day, "tenant": tenant, "home": home, "jobs": 2, "cost_micros": 1_500_000, "status": "succeeded",
            }  # fmt: skip
        store.documents[TALKS][f"h.0/{tenant}/talk"] = {
            "home": "h.0", "tenant": tenant, "conversation": "talk", "at": now - n,
            "state": f"{n:019d}" + '{"turns":3,"gone":false,"waiting":0}',
        }  # fmt: skip
        store.documents[TOTALS][f"{tenant}talk"] = {
            "of": "talks", "day": day, "tenant": tenant, "home": "h.0", "conversation": "talk", "jobs": 3, "prompt_tokens": 10 * (n + 1),
            "completion_tokens": 1, "wasted_tokens": 0, "cost_micros": 0,
        }  # fmt: skip
    entries = {str(n): {"offset": n, "tenant": TENANTS[n % 2], "type": "x", "chain": "c", "at_ms": 1_000 + n} for n in range(6)}
    store.documents[AUDIT]["h.0.0"] = {"home": "h.0", "block": 0, "entries": entries, "from_ms": 1_000, "to_ms": 1_005}
    store.documents[NODES]["n"] = {"node": "n1", "to_ms": 5}
    store.documents[LETTERS]["l"] = {"topic": "jobs.batch", "at": 1.0}
    for n, kind in enumerate(("key", "tenant")):
        store.documents[ACTS][kind] = {"by": "root", "did": "declare", "kind": kind, "name": "x", "tenant": TENANTS[n], "at": float(n)}
    return store
