"""What the sink is asked over HTTP, without Kafka and MongoDB: who may see what, and what a wrong question gets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import httpx
import pytest

from services.sink.mongo import NoStore
from services.sink.port import AUDIT, TALKS, USAGE, Store
from services.sink.query_api import build_api
from shared.clock import ManualClock
from tests.support.keys import access_with
from tests.support.sink_store import MemoryStore
from tests.unit.sink.stored import TENANTS, stored

OWN = ("/v1/usage", "/v1/usage/jobs", "/v1/usage/jobs/j1", "/v1/top", "/v1/audit?home=h.0", "/v1/logs", "/v1/conversations")
ADMINS = ("/v1/nodes/history", "/v1/dead-letters", "/v1/acts")
PATHS = (*OWN, *ADMINS)


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
        for path in OWN:
            assert {row.get("tenant", "acme") for row in await rows(acme, path)} == {"acme"}, path
        assert len(await rows(acme, "/v1/audit?home=h.0")) == 3
        assert (await acme.get("/v1/usage/jobs/globex%2Fj1")).status_code == 404
        for path in ADMINS:
            assert (await acme.get(path)).status_code == 403
        for path in OWN:
            other = await acme.get(f"{path}{'&' if '?' in path else '?'}tenant=globex")
            assert other.status_code == 403, path


async def walked(client: httpx.AsyncClient, path: str) -> list[dict[str, Any]]:
    """All pages of it."""
    found: list[dict[str, Any]] = []
    before = ""
    for _ in range(1_000):
        answer = (await client.get(f"{path}{before}")).json()
        found += answer["rows"]
        if answer["next"] is None:
            return found
        before = f"&before={answer['next']}"
    raise AssertionError("no end")


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 50])
async def test_pages_hold_each_row_once_whatever_has_one_instant(limit: int) -> None:
    """Newest first; jobs of one millisecond are neither left out nor told twice."""
    store, random = MemoryStore(), Random(limit)
    for n in range(40):
        row = {"job": f"j{n}", "tenant": random.choice(TENANTS), "home": "h.0", "life": n, "at": 1_700_000_000.123 + n // 9}
        store.documents[USAGE][f"j{n}@h.0.{n}"] = row
    for key, tenant in (("root", None), ("acme", "acme")):
        mine = sorted(row["job"] for row in store.documents[USAGE].values() if tenant in (None, row["tenant"]))
        async with asking(store, key) as client:
            found = await walked(client, f"/v1/usage/jobs?limit={limit}")
        assert sorted(row["job"] for row in found) == mine
        assert [row["at"] for row in found] == sorted((row["at"] for row in found), reverse=True)


@pytest.mark.parametrize("limit", [1, 5, 100])
async def test_the_log_holds_each_event_once(limit: int) -> None:
    """Newest first, over homes, however many blocks a page would need; a tenant sees its own."""
    store, random = MemoryStore(), Random(limit)
    for home in ("h.0", "h.1"):
        offset = 0
        for block in range(70):
            entries: dict[str, dict[str, Any]] = {}
            for _ in range(random.randint(1, 5)):
                at = 1_000 + offset + (offset % 3 == 0)
                entries[str(offset)] = {"offset": offset, "at_ms": at, "type": "x", "tenant": random.choice(TENANTS), "chain": "c"}
                offset += 1
            times = [entry["at_ms"] for entry in entries.values()]
            store.documents[AUDIT][f"{home}.{block}"] = {
                "home": home, "block": block, "entries": entries, "from_ms": min(times), "to_ms": max(times),
            }  # fmt: skip
    every = [(row["home"], e["offset"], e["tenant"]) for row in store.documents[AUDIT].values() for e in row["entries"].values()]
    for key, tenant in (("root", None), ("acme", "acme")):
        async with asking(store, key) as client:
            found = await walked(client, f"/v1/logs?limit={limit}")
            assert [row["at_ms"] for row in found] == sorted((row["at_ms"] for row in found), reverse=True)
            assert sorted((row["home"], row["offset"], row["tenant"]) for row in found) == sorted(
                one for one in every if tenant in (None, one[2])
            )
            late = await walked(client, f"/v1/logs?limit={limit}&since=1.1")
            assert {row["offset"] for row in late} == {row["offset"] for row in found if row["at_ms"] >= 1_100}


async def test_conversations_are_told_with_what_they_used() -> None:
    """Those that were deleted are not; of each its own."""
    store = stored()
    store.documents[TALKS]["h.0/acme/gone"] = {
        "home": "h.0", "tenant": "acme", "conversation": "gone", "at": 1.0, "state": "0" * 19 + '{"turns":3,"gone":true,"waiting":0}',
    }  # fmt: skip
    async with asking(store) as root:
        found = await walked(root, "/v1/conversations?limit=1")
        assert [(row["tenant"], row["turns"], row["prompt_tokens"]) for row in found] == [("acme", 3, 10), ("globex", 3, 20)]
        assert [(row["conversation"], row["jobs"]) for row in await rows(root, "/v1/usage?by=conversation")] == [("talk", 6)]


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
        ("/v1/usage?by=model,status", "words of one of these only"),
        ("/v1/usage?by=conversation,key", "words of one of these only"),
        ("/v1/usage?from=yesterday", "from"),
        ("/v1/usage?to=2026-02-30", "to"),
        ("/v1/usage?odd=1", "odd"),
        ("/v1/usage/jobs?limit=1001", "limit"),
        ("/v1/usage/jobs?since=-1", "since"),
        ("/v1/usage/jobs?status=odd", "status"),
        ("/v1/top?by=job", "by"),
        ("/v1/top?minutes=0", "minutes"),
        ("/v1/usage/jobs?before=x", "before"),
        ("/v1/conversations?before=-1,a", "before"),
        ("/v1/logs?before=x", "before"),
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
