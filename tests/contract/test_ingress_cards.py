"""Model cards as administrators declare them and clients see them: names in the lists of models, and what is taken under them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from services.ingress.status.shown import RawEvent
from services.ingress.status.status import fold
from tests.contract.test_ingress_chat import CHAT, body
from tests.contract.test_ingress_declarations import ready, refused
from tests.support.ingress_world import World, node, register, until

BIG: dict[str, Any] = {"model": "big:1", "synonyms": ["gpt-4o"], "fallbacks": ["tiny:1"], "tier": "large"}


async def declared(at: World, name: str = "smart", card: dict[str, Any] = BIG) -> httpx.Response:
    response = await at.client.put(f"/v1/cards/{name}", json=card)
    assert response.status_code == 200, response.text
    return response


async def listed(at: World) -> dict[str, bool]:
    found = (await at.client.get("/v1/models")).json()["data"]
    assert [each["name"] for each in (await at.client.get("/api/tags")).json()["models"]] == [each["id"] for each in found]
    return {each["id"]: each["available"] for each in found if "/" not in each["id"]}


async def test_a_card_lives_in_versions_as_all_that_is_declared() -> None:
    """Versions, aliases, history; a card that contradicts another one is refused, whoever declares it."""
    async with ready() as at:
        first = (await declared(at)).json()
        assert (first["name"], first["card"], first["built_in"]) == ("smart", BIG, False)
        await at.client.put("/v1/cards/smart/aliases/stable", json={"version": first["version"]})
        await declared(at, card={**BIG, "model": "big:2"})
        shown = (await at.client.get("/v1/cards/smart/versions")).json()
        assert (len(shown["versions"]), shown["aliases"]["latest"]["earlier"]) == (2, [first["version"]])
        twice = await at.client.put("/v1/cards/other", json={"model": "x:1", "synonyms": ["gpt-4o"]})
        assert "a name of card smart" in refused(twice, 400, "invalid_card")
        refused(await at.client.put("/v1/cards/other", json={"model": "x:1", "tier": "huge"}), 400, "invalid_input")
        assert (await at.client.delete("/v1/cards/smart")).status_code == 204
        refused(await at.client.get("/v1/cards/smart"), 404, "unknown_card")


async def test_lists_name_what_some_node_can_serve() -> None:
    """A card's names stand beside the nodes' models once one of its chain is there; a name of which nothing is there does not."""
    async with ready() as at:
        assert await listed(at) == {"auto": True, "tiny:1": True}
        await declared(at)
        await declared(at, "away", {"model": "away:1", "synonyms": ["gpt-5"]})
        await declared(at, "tiny", {"model": "tiny:1", "tier": "small"})
        assert await listed(at) == dict.fromkeys(("auto", "tiny:1", "smart", "gpt-4o", "tiny", "tier:small"), True)
        assert (await at.client.get("/v1/models/gpt-4o")).json()["available"] is True
        await declared(at, "tiny", {"model": "tiny:1", "tier": "small", "window": 4096})
        assert (await at.client.get("/v1/models/tiny")).json()["context_length"] == 4096
        tags = {each["name"]: each for each in (await at.client.get("/api/tags")).json()["models"]}
        assert tags["gpt-4o"]["digest"] != ""
        await register(at.log, at.topics, node("node-1", "tiny:1", reachable=False))
        await until(lambda: not at.ingress.door.registry.catalogue.live_models, "the node is away")
        assert (await listed(at))["gpt-4o"] is False


def test_a_status_says_what_its_names_stood_for() -> None:
    recorded = Path(__file__).parents[2] / "schemas" / "examples" / "v7" / "JobAccepted.models.json"
    status = fold("j", 0, None, [RawEvent(1, "job_accepted", recorded.read_bytes())])
    assert status.models == {"gpt-4o": ["qwen3:32b", "llama3.3:70b"]}
    assert b'"models":{"gpt-4o":["qwen3:32b"' in status.public()


async def test_a_name_of_a_card_is_taken_as_a_model_is() -> None:
    """By every way in; the planner says what it stands for, so the job keeps the name. Without a node for it it is unknown, as before."""
    async with ready() as at:
        refused(await at.client.post(CHAT, json=body(model="gpt-4o")), 404, "model_not_found")
        await declared(at)
        await declared(at, "tiny", {"model": "tiny:1", "tier": "small"})
        for name in ("gpt-4o", "smart", "smart@latest", "tier:small", "big:1"):
            answer = await at.client.post(CHAT, json=body(model=name))
            assert answer.status_code == 200, answer.text
            assert [*at.planner.jobs.values()][-1].job.model == name
            assert (await at.client.post("/v1/jobs", json={"prompt": "q", "model": name})).status_code == 202
        refused(await at.client.post(CHAT, json=body(model="tier:large")), 404, "model_not_found")
        refused(await at.client.post("/v1/jobs", json={"prompt": "q", "model": "tier:large"}), 404, "model_not_found")
        refused(await at.client.post("/v1/jobs", json={"prompt": "q", "model": "smart@never"}), 400, "unknown_card")


async def test_a_demand_says_what_it_takes_instead() -> None:
    """A tier that nobody has declared, or nobody serves, is refused only where nothing stands in; what is no demand is refused."""
    async with ready() as at:
        await declared(at, "tiny", {"model": "tiny:1", "tier": "small", "quality": {"code": 0.3}})
        job: dict[str, Any] = {"prompt": "q", "model": "tier:large", "fallback_models": ["tier:small"]}
        assert (await at.client.post("/v1/jobs", json=job)).status_code == 202
        refused(await at.client.post("/v1/jobs", json={**job, "fallback_models": []}), 400, "unknown_card")
        steps = [{"name": "a", "template": "{input}", "model": "tier:small", "needs": {"at_most": "batch"}, "fallback_models": ["auto"]}]
        chain: dict[str, Any] = {"prompt": "q", "pattern": "chain", "input": {"steps": steps}}
        assert (await at.client.post("/v1/jobs", json=chain)).status_code == 202
        steps[0] |= {"model": "tier:large", "fallback_models": ["tier:small"]}
        assert (await at.client.post("/v1/jobs", json=chain)).status_code == 202
        steps[0] |= {"model": "tiny:1", "fallback_models": ["gone:1"]}
        assert (await at.client.post("/v1/jobs", json=chain)).status_code == 202
        del steps[0]["model"]
        assert (await at.client.post("/v1/jobs", json=chain)).status_code == 202, "they stand in for the job's own"
        steps[0] |= {"model": "lost:1"}
        refused(await at.client.post("/v1/jobs", json=chain), 404, "model_not_found")
        steps[0]["model"] = "tiny:1"
        steps[0]["needs"] = {"at_most": "urgent"}
        refused(await at.client.post("/v1/jobs", json=chain), 400, "invalid_input")
        refused(await at.client.post("/v1/jobs", json={"prompt": "q", "needs": {"prefers": ["no tag"]}}), 400, "invalid_input")
        refused(await at.client.put("/v1/cards/x", json={"model": "x:1", "quality": {"poetry": 1}}), 400, "invalid_card")
