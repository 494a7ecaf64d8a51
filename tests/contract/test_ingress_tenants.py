"""`/v1/tenants` as administrators and tenants see it: the whole ingress on the in-memory log."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from shared.contracts.budget import Amounts, Share, TenantAccount, TenantLimits
from shared.contracts.event import PlannerStarted
from shared.contracts.headers import envelope
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.port import Message, TopicPartition
from tests.contract.test_ingress_access import bearer, key, keyed
from tests.support.ingress_world import World, until, world

ACME = "/v1/tenants/acme"


async def shown(at: World, present: bool = True) -> None:
    """What was written is read back."""
    await until(lambda: ("acme" in at.ingress.door.tenants.limits) is present, "the registry is read back")


async def test_limits_are_declared_shown_and_removed() -> None:
    """The registry holds what was put, under the tenant's key; removing leaves a tombstone."""
    async with world() as at:
        assert (await at.client.get(ACME)).status_code == 404
        answer = await at.client.put(ACME, json={"calls": 100, "cost": 1.5, "job": {"calls": 5}})
        assert (answer.status_code, answer.json()["limits"]["calls"]) == (200, 100)
        await shown(at)
        assert (await at.client.get(ACME)).json()["limits"] == {"calls": 100, "cost": 1.5, "soft": 0.8, "job": {"calls": 5}, "policies": []}
        assert [tenant["id"] for tenant in (await at.client.get("/v1/tenants")).json()["tenants"]] == ["acme"]
        assert isinstance(at.log, MemoryLog)
        [record] = at.log.existing(TopicPartition(at.topics.registry, 0)).records
        assert (record.key, TenantLimits.model_validate_json(record.value or b"").cost) == (b"tenant/acme", 1.5)
        assert (await at.client.delete(ACME)).status_code == 204
        await shown(at, present=False)


_UNCHECKED = {"direction": "answer", "checks": {"json_schema": {"pattern": "x"}}}


async def test_what_is_not_valid_is_refused() -> None:
    """Unknown and negative limits, names that are none."""
    async with world() as at:
        wrong: list[Any] = [
            {"call": 1},
            {"calls": -1},
            {"policies": [{"direction": "input", "checks": {}}]},
            {"policies": [_UNCHECKED]},
            {"soft": 0},
            {"job": {"depth": 0}},
            [],
        ]
        for body in wrong:
            assert (await at.client.put(ACME, json=body)).status_code == 400
        assert (await at.client.put("/v1/tenants/a%20b", json={})).status_code == 400
        assert at.ingress.door.tenants.limits == {}


async def test_only_administrators_declare(tmp_path: Path) -> None:
    """A tenant's key sees its own limits and nobody else's."""
    async with keyed(tmp_path, key("acme"), key("other"), key("root", admin=True)) as at:
        assert (await at.client.put(ACME, json={"calls": 1}, headers=bearer("acme"))).status_code == 403
        assert (await at.client.put(ACME, json={"calls": 1})).status_code == 401
        assert (await at.client.put(ACME, json={"calls": 1}, headers=bearer("root"))).status_code == 200
        await shown(at)
        assert (await at.client.get(ACME, headers=bearer("acme"))).status_code == 200
        assert (await at.client.get(ACME, headers=bearer("other"))).status_code == 403
        assert (await at.client.get("/v1/tenants", headers=bearer("acme"))).status_code == 403
        assert (await at.client.delete(ACME, headers=bearer("acme"))).status_code == 403


async def test_todays_spending_is_shown() -> None:
    """Folded from the owner's account, which is no job's event and makes no job."""
    async with world() as at:
        await at.client.put(ACME, json={"calls": 100})
        await shown(at)
        today = int(at.ingress.door.clock.wall() // 86_400)
        producer = await at.log.producer(client_id="owner")
        start = PlannerStarted(nonce="n", planner="p")
        epoch = (await producer.send(Message(at.topics.job_events, start.to_bytes(), None, 1, envelope(start.type)))).offset
        share = Share(home=0, serial=1, total=Amounts(calls=12, micros=500_000), used=Amounts(calls=7))
        account = TenantAccount(epoch=epoch, tenant="acme", day=today, at=0.0, shares=(share,))
        name = f"#account/acme/{today}".encode()
        await producer.send(Message(at.topics.job_events, account.to_bytes(), name, 1, envelope(account.type)))
        tenants = at.ingress.door.tenants
        await until(lambda: tenants.spending("acme", today).granted["calls"] == 12, "the account is read")
        assert (await at.client.get(ACME)).json()["today"] == {
            "day": today,
            "granted": {"calls": 12.0, "tokens": 0.0, "cost": 0.5},
            "used": {"calls": 7.0, "tokens": 0.0, "cost": 0.0},
        }
        assert name.decode() not in at.ingress.door.journal
        await asyncio.gather(producer.close())
