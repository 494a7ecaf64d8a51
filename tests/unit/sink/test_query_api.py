"""What the sink is asked over HTTP, without Kafka and MongoDB: who may see what, and what a wrong question gets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from services.sink.mongo import NoStore
from services.sink.port import ACTS, AUDIT, LETTERS, NODES, TOTALS, USAGE, Store
from services.sink.query_api import build_api
from shared.clock import ManualClock
from tests.support.keys import access_with
from tests.support.sink_store import MemoryStore

PATHS = (
    "/v1/usage",
    "/v1/usage/jobs",
    "/v1/usage/jobs/j1",
    "/v1/top",
    "/v1/audit?home=h.0",
    "/v1/nodes/history",
    "/v1/dead-letters",
    "/v1/acts",
)
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
    entries = {str(n): {"offset": n, "tenant": TENANTS[n % 2], "type": "x", "chain": "c"} for n in range(6)}
    store.documents[AUDIT]["h.0.0"] = {"home": "h.0", "block": 0, "entries": entries}
    store.documents[NODES]["n"] = {"node": "n1", "to_ms": 5}
    store.documents[LETTERS]["l"] = {"topic": "jobs.batch", "at": 1.0}
    for n, kind in enumerate(("key", "tenant")):
        store.documents[ACTS][kind] = {"by": "root", "did": "declare", "kind": kind, "name": "x", "tenant": TENANTS[n], "at": float(n)}
    return store


@asynccontextmanager
async def asking(store: Store, key: str = "root") -> AsyncIterator[httpx.AsyncClient]:
    clock = ManualClock()
    app = build_api(store, access_with(clock, root=None, acme="acme"), clock, queries=2)
    headers = {"x-api-key": key}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://sink", headers=headers) as client:
        yield client


async def rows(client: httpx.AsyncClient, path: str) -> list[dict[str, Any]]:
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["rows"]
    return found


async def test_an_administrator_sees_all_and_a_tenant_its_own() -> None:
    """Also by the id of another's job."""
    async with asking(stored()) as root:
        assert {row["tenant"]: (row["jobs"], row["cost"]) for row in await rows(root, "/v1/usage?by=tenant")} == dict.fromkeys(
            TENANTS, (4, 3.0)
        )
        assert len(await rows(root, "/v1/usage/jobs")) == 2
        assert [row["job"] for row in await rows(root, "/v1/usage/jobs/j1?tenant=globex")] == ["j1"]
        assert len(await rows(root, "/v1/audit?home=h.0&after=1&limit=3")) == 3
        assert await rows(root, "/v1/nodes/history?node=n1")
        assert await rows(root, "/v1/dead-letters")
        assert [row["kind"] for row in await rows(root, "/v1/acts")] == ["tenant", "key"]
        for only in ("kind=key", "tenant=acme", "before=1", "by=root&limit=1&before=0.5"):
            assert [row["kind"] for row in await rows(root, f"/v1/acts?{only}")] == ["key"], only
        assert await rows(root, "/v1/acts?by=nobody") == []
    async with asking(stored(), "acme") as acme:
        for path in PATHS[:5]:
            assert {row.get("tenant", "acme") for row in await rows(acme, path)} == {"acme"}, path
        assert len(await rows(acme, "/v1/audit?home=h.0")) == 3
        assert (await acme.get("/v1/usage/jobs/globex%2Fj1")).status_code == 404
        for path in PATHS[5:]:
            assert (await acme.get(path)).status_code == 403
        for path in PATHS[:5]:
            other = await acme.get(f"{path}{'&' if '?' in path else '?'}tenant=globex")
            assert other.status_code == 403, path


@pytest.mark.parametrize("path", PATHS)
async def test_without_a_key_nothing_is_said(path: str) -> None:
    """Of no route."""
    async with asking(stored(), "") as nobody:
        assert (await nobody.get(path)).status_code == 401


@pytest.mark.parametrize("path", PATHS)
async def test_a_store_that_is_away_is_503(path: str) -> None:
    """With when to come again; so it is where none is configured."""
    away = stored()
    away.away = True
    for store in (away, NoStore()):
        async with asking(store) as root:
            answer = await root.get(path)
            assert (answer.status_code, answer.json()["error"]["code"], answer.headers["retry-after"]) == (503, "store_away", "2")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/usage?by=colour", "cannot be grouped by colour"),
        ("/v1/usage?by=model,status", "one of both"),
        ("/v1/usage?from=yesterday", "from"),
        ("/v1/usage?to=2026-02-30", "to"),
        ("/v1/usage?odd=1", "odd"),
        ("/v1/usage/jobs?limit=1001", "limit"),
        ("/v1/usage/jobs?since=-1", "since"),
        ("/v1/usage/jobs?status=odd", "status"),
        ("/v1/top?by=job", "by"),
        ("/v1/top?minutes=0", "minutes"),
        ("/v1/audit?after=x", "after"),
        ("/v1/usage?tenant=../x", "tenant"),
    ],
)
async def test_a_wrong_question_is_refused_by_name(path: str, said: str) -> None:
    """400, with the field."""
    async with asking(stored()) as root:
        answer = await root.get(path)
        assert answer.status_code == 400, answer.text
        assert said in answer.json()["error"]["message"]


async def test_what_is_no_route_says_so() -> None:
    """In the one form of errors."""
    async with asking(stored()) as root:
        assert (await root.get("/v2")).json()["error"]["code"] == "not_found"
        assert (await root.post("/v1/usage")).status_code == 405
