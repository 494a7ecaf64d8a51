"""Promise: a tenant's limit of calls a day holds over all homes, also when the planner is killed in the middle.

What: an administrator declares 20 calls a day over REST; 60 callers' jobs of that tenant and 20 of another are submitted; the planner gets
SIGKILL and starts again. Exactly 20 of the tenant's jobs succeed at most, none is lost, and the other tenant notices nothing.
How: real Kafka, real processes, a simulated node.

    PUT /v1/tenants/small ─► registry ─► planner (each home asks the owner of the account for shares over outcomes)
"""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from shared.clock import SystemClock
from tests.support.native import StartCluster

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(150)]

CALLS, JOBS, OTHERS = 20, 60, 20


async def _submit(session: aiohttp.ClientSession, url: str, tenant: str) -> str:
    async with session.post(f"{url}/v1/jobs", json={"prompt": "q", "tenant": tenant}) as response:
        assert response.status == 202, await response.text()
        return str((await response.json())["id"])


async def _ended(session: aiohttp.ClientSession, url: str, job: str) -> dict[str, Any]:
    async with asyncio.timeout(90):
        while True:
            async with session.get(f"{url}/v1/jobs/{job}") as response:
                status: dict[str, Any] = await response.json()
            if status.get("result"):
                return dict(status["result"])
            await SystemClock().sleep(0.1)


@pytest.mark.faults
async def test_a_tenants_limit_holds_through_a_kill(cluster: StartCluster) -> None:
    """At most the limit succeeds, exactly so many calls are accepted, the rest fails typed."""
    one = await asyncio.to_thread(cluster, "budgets", simulator=("--profile", "instant"))
    async with aiohttp.ClientSession() as session:
        async with session.put(f"{one.url}/v1/tenants/small", json={"calls": CALLS}) as response:
            assert response.status == 200, await response.text()
        await SystemClock().sleep(1.0)
        mine = [await _submit(session, one.url, "small") for _ in range(JOBS // 2)]
        process = one.services["planner"]
        process.daemon.kill()
        process.start()
        mine += [await _submit(session, one.url, "small") for _ in range(JOBS // 2)]
        others = [await _submit(session, one.url, "other") for _ in range(OTHERS)]
        results = await asyncio.gather(*(_ended(session, one.url, job) for job in mine))
        assert all(r["status"] == "succeeded" for r in await asyncio.gather(*(_ended(session, one.url, job) for job in others)))
        succeeded = [r for r in results if r["status"] == "succeeded"]
        assert 0 < len(succeeded) <= CALLS
        assert {r["failure"]["kind"] for r in results if r["status"] != "succeeded"} == {"limit"}
        async with session.get(f"{one.url}/v1/tenants/small") as response:
            assert (await response.json())["today"]["granted"]["calls"] <= CALLS
        print(f"{len(succeeded)} of {JOBS} jobs succeeded within {CALLS} calls")
