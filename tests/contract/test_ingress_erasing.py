"""A tenant is erased: first it is told what would go and what stays; then it goes, and nothing of anybody else's does."""

from __future__ import annotations

from typing import Any

from services.ingress.routes.erasure import OF_NO_TENANT
from shared.contracts.act import Act
from shared.contracts.erased import Erased
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.port import TopicPartition
from shared.topics import FAMILIES
from tests.contract.test_ingress_access import JOBS, bearer
from tests.support.ingress_world import World, until, world

ERASE = "/v1/tenants/acme/erase"


async def furnished(at: World) -> tuple[str, str]:
    """(an administrator's key, the tenant's): two tenants with all that can be declared."""
    root = (await at.client.post("/v1/keys", json={"name": "root", "role": "admin", "tenant": "ops"})).json()["key"]
    found = ""
    for tenant in ("acme", "globex"):
        made = await at.client.post("/v1/keys", json={"name": f"{tenant}-1", "tenant": tenant}, headers=bearer(root))
        found = found or made.json()["key"]
        await at.client.put(f"/v1/tenants/{tenant}", json={"calls": 5}, headers=bearer(root))
        schedule = {"cron": "0 3 * * *", "job": {"prompt": "x", "tenant": tenant}}
        assert (await at.client.put("/v1/schedules/nightly", json=schedule, headers=bearer(root))).status_code == 200
    await until(lambda: len(at.ingress.door.tenants.limits) == 2, "limits")
    return root, found


def counts(shown: dict[str, Any]) -> list[int | None]:
    return [row.get("count") for row in shown["goes"]]


async def test_what_goes_is_told_and_then_goes() -> None:
    async with world() as at:
        root, acme = await furnished(at)
        job = (await at.client.post(f"{JOBS}?wait=5", json={"prompt": "x"}, headers=bearer(acme))).json()["id"]
        theirs = (await at.client.post(f"{JOBS}?wait=5", json={"prompt": "x", "tenant": "globex"}, headers=bearer(root))).json()["id"]
        told = (await at.client.post(ERASE, headers=bearer(root))).json()
        assert (told["erased"], counts(told)) == (False, [1, 1, 1, 0, 0, 0, None, None, None])
        assert (await at.client.get(f"{JOBS}/{job}", headers=bearer(acme))).status_code == 200
        done = (await at.client.post(ERASE, json={"dry_run": False}, headers=bearer(root))).json()
        assert (done["erased"], counts(done)) == (True, [1, 1, 1, 0, 0, 0, None, None, None])
        assert (await at.client.get("/v1/models", headers=bearer(acme))).status_code == 401
        await until(lambda: "acme" not in at.ingress.door.tenants.limits and job not in at.ingress.door.journal, "erased")
        again = (await at.client.post(ERASE, json={"dry_run": False}, headers=bearer(root))).json()
        assert counts(again) == [0, 0, 0, 0, 0, 0, None, None, None]
        assert counts((await at.client.post("/v1/tenants/globex/erase", headers=bearer(root))).json()) == [
            1,
            1,
            1,
            0,
            0,
            0,
            None,
            None,
            None,
        ]
        assert (await at.client.get(f"{JOBS}/{theirs}", headers=bearer(root))).status_code == 200
        assert isinstance(at.log, MemoryLog)
        entries = at.log.existing(TopicPartition(at.topics.registry, 0)).records
        erased = [Erased.model_validate_json(record.value or b"") for record in entries if record.key == b"erased/acme"]
        assert [entry.by for entry in erased] == ["root", "root"]
        acts = [Act.model_validate_json(record.value or b"") for record in at.log.existing(TopicPartition(at.topics.acts, 0)).records]
        first = [(act.did, act.kind, act.name) for act in acts if act.tenant == "acme"][-5:-1]
        assert first == [
            ("erase", "tenant", "acme"),
            ("revoke", "key", "acme-1"),
            ("remove", "tenant", "acme"),
            ("remove", "schedule", "nightly"),
        ]


async def test_conversations_are_dropped_by_their_owners() -> None:
    async with world() as at:
        root, acme = await furnished(at)
        await at.client.put("/v1/conversations/talk", json={"facts": ["one"]}, headers=bearer(acme))
        await until(lambda: any(known.tenant == "acme" for known in at.ingress.door.events.conversations), "a conversation")
        assert counts((await at.client.post(ERASE, json={"dry_run": False}, headers=bearer(root))).json())[3] == 1
        await until(lambda: not any(known.tenant == "acme" for known in at.ingress.door.events.conversations), "dropped")


async def test_nobody_erases_his_own_key_or_without_the_right() -> None:
    async with world() as at:
        root, acme = await furnished(at)
        own = await at.client.post("/v1/tenants/ops/erase", json={"dry_run": False}, headers=bearer(root))
        assert (own.status_code, own.json()["error"]["code"]) == (409, "own_key")
        assert (await at.client.post(ERASE, headers=bearer(acme))).status_code == 403
        assert (await at.client.post(ERASE, json={"dry_run": "perhaps"}, headers=bearer(root))).status_code == 400
        assert (await at.client.post("/v1/tenants/a b/erase", headers=bearer(root))).status_code == 400
        assert set(at.ingress.door.access.declared) == {"root", "acme-1", "globex-1"}


def test_what_stays_names_every_topic_that_keeps_something_of_a_tenant() -> None:
    """A family is in the answer by its retention, or known to hold nothing of a tenant."""
    for family in FAMILIES:
        assert (family.pattern in OF_NO_TENANT) or family.retention_ms is not None, family.pattern
    assert {family.pattern for family in FAMILIES} >= OF_NO_TENANT
