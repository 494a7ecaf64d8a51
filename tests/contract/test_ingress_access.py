"""API keys and rate limits as a client sees them: the whole ingress on the in-memory log with a fake planner."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from shared.clock import SystemClock
from shared.contracts.job import Job
from shared.errors import ConfigurationError
from tests.support.fake_planner import USAGE, Script
from tests.support.ingress_world import World, opening, until, world

CHAT, JOBS = "/v1/chat/completions", "/v1/jobs"
BODY = {"model": "tiny:1", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50}


def key(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "digest": sha256(name.encode()).hexdigest(), "tenant": name, **fields}


def bearer(name: str, **more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {name}", **more}


@asynccontextmanager
async def keyed(path: Path, *keys: dict[str, Any], script: Any = None, **settings: Any) -> AsyncIterator[World]:
    file = path / "keys.json"
    file.write_text(json.dumps({"keys": keys}))
    async with world(script=script, settings={"keys_file": str(file), **settings}) as at:
        yield at


async def test_every_path_that_tells_or_does_something_needs_a_key(tmp_path: Path) -> None:
    """401 in the dialect of the path; health, metrics and the documentation are open."""
    async with keyed(tmp_path, key("a")) as at:
        calls = [("POST", CHAT), ("POST", JOBS), ("GET", f"{JOBS}/x"), ("DELETE", f"{JOBS}/x"), ("GET", f"{JOBS}/x/events")]
        for method, path in [*calls, ("GET", "/v1/models"), ("GET", "/v1/models/tiny:1")]:
            response = await at.client.request(method, path, json={})
            assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key"), path
            assert (await at.client.request(method, path, json={}, headers=bearer("wrong"))).status_code == 401
        assert (await at.client.post(CHAT, json=BODY)).json()["error"]["type"] == "authentication_error"
        assert (await at.client.get("/openapi.json")).status_code == 200
        assert (await at.client.post(CHAT, json=BODY, headers=bearer("a"))).status_code == 200
        assert (await at.client.get("/v1/models", headers={"x-api-key": "a"})).status_code == 200


async def test_a_job_tells_the_name_of_its_key(tmp_path: Path) -> None:
    """And nothing of the key: by every way in."""
    async with keyed(tmp_path, key("a")) as at:
        answered = await at.client.post(CHAT, json=BODY, headers=bearer("a"))
        queued = await at.client.post(JOBS, json={"prompt": "hi"}, headers=bearer("a"))
        for job in (answered.headers["x-tutti-job"], queued.json()["id"]):
            await until(lambda job=job: job in at.planner.jobs, "the job is there")  # type: ignore[misc]
            assert at.planner.jobs[job].headers["key-name"] == b"a"


async def test_a_tenant_sees_its_own_jobs_only(tmp_path: Path) -> None:
    """Another tenant's job is not found: neither read, nor followed, nor cancelled. An admin sees all."""
    async with keyed(tmp_path, key("a"), key("b"), key("root", admin=True), script=lambda _job: Script(hold=True)) as at:
        job = (await at.client.post(JOBS, json={"prompt": "x"}, headers=bearer("a"))).json()["id"]
        await until(lambda: job in at.planner.jobs, "the job")
        assert at.planner.jobs[job].job.tenant == "a"
        for path in (f"{JOBS}/{job}", f"{JOBS}/{job}/events"):
            assert (await at.client.get(path, headers=bearer("b"))).status_code == 404
        assert (await at.client.delete(f"{JOBS}/{job}", headers=bearer("b"))).status_code == 404
        assert not at.planner.cancels
        for name in ("a", "root"):
            assert (await at.client.get(f"{JOBS}/{job}", headers=bearer(name))).status_code == 200
        assert (await at.client.delete(f"{JOBS}/{job}", headers=bearer("root"))).status_code == 202


async def test_a_key_may_not_act_for_others_nor_beyond_its_classes(tmp_path: Path) -> None:
    """403, whether body or header asks."""
    async with keyed(tmp_path, key("a", classes=["batch"])) as at:
        refused = [
            await at.client.post(JOBS, json={"prompt": "x", "class": "batch", "tenant": "b"}, headers=bearer("a")),
            await at.client.post(JOBS, json={"prompt": "x", "class": "batch"}, headers=bearer("a", **{"x-tutti-tenant": "b"})),
            await at.client.post(JOBS, json={"prompt": "x", "class": "standard"}, headers=bearer("a")),
            await at.client.post(CHAT, json=BODY, headers=bearer("a", **{"x-tutti-class": "interactive"})),
        ]
        assert [(found.status_code, found.json()["error"]["code"]) for found in refused] == [
            (403, "tenant_not_allowed"),
            (403, "tenant_not_allowed"),
            (403, "class_not_allowed"),
            (403, "class_not_allowed"),
        ]
        accepted = await at.client.post(CHAT, json=BODY, headers=bearer("a", **{"x-tutti-class": "batch"}))
        assert accepted.status_code == 200
        assert len(at.planner.jobs) == 1


async def test_requests_beyond_the_limit(tmp_path: Path) -> None:
    """Chat and jobs draw on one bucket; 429 says when; another key is not concerned."""
    async with keyed(tmp_path, key("a", requests_per_minute=1, request_burst=2), key("b")) as at:
        first = await at.client.post(CHAT, json=BODY, headers=bearer("a"))
        assert (first.headers["x-ratelimit-limit-requests"], first.headers["x-ratelimit-remaining-requests"]) == ("2", "1")
        second = await at.client.post(JOBS, json={"prompt": "x"}, headers=bearer("a"))
        assert (second.status_code, second.headers["x-ratelimit-remaining-requests"]) == (202, "0")
        for path, body in ((CHAT, BODY), (CHAT, BODY | {"stream": True}), (JOBS, {"prompt": "x"})):
            refused = await at.client.post(path, json=body, headers=bearer("a"))
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
            assert 55 <= int(refused.headers["retry-after"]) <= 60
            assert int(refused.headers["retry-after-ms"]) <= 60_000
            assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert (await at.client.post(CHAT, json=BODY, headers=bearer("b"))).status_code == 200
        assert len(at.planner.jobs) == 3


async def test_tokens_are_charged_by_estimate_and_settled_by_use(tmp_path: Path) -> None:
    """51 are estimated and 8 used: after the end 43 are back. A repetition under the same key costs none."""
    async with keyed(tmp_path, key("a", tokens_per_minute=0.01, token_burst=100)) as at:
        once = bearer("a", **{"idempotency-key": "once"})
        first = await at.client.post(CHAT, json=BODY, headers=once)
        assert first.headers["x-ratelimit-remaining-tokens"] == "49"
        shared: list[str] = []

        async def left() -> str:
            again = await at.client.post(CHAT, json=BODY, headers=once)
            return str(again.headers["x-ratelimit-remaining-tokens"])

        expected = str(100 - USAGE.prompt_tokens - USAGE.completion_tokens)
        for _ in range(200):
            shared.append(await left())
            if shared[-1] == expected:
                break
            await SystemClock().sleep(0.01)
        assert shared[-1] == expected
        refused = await at.client.post(CHAT, json=BODY | {"max_tokens": 1_000}, headers=bearer("a"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "larger_than_limit")


async def test_what_is_refused_later_costs_no_tokens(tmp_path: Path) -> None:
    """A job that is never queued used nothing."""

    def echo(job: Job) -> Script:
        return Script(text="x")

    async with keyed(tmp_path, key("a", tokens_per_minute=0.01, token_burst=100), script=echo) as at:
        body = {"prompt": "x", "model": "gpt-9", "options": {"max_tokens": 90}}
        for _ in range(3):
            assert (await at.client.post(JOBS, json=body, headers=bearer("a"))).status_code == 404
            await until(lambda: not at.ingress.door.meter._differences, "written")


async def test_a_wrong_keys_file_stops_the_process_before_it_serves() -> None:
    """Never open by accident."""
    with pytest.raises(ConfigurationError):
        opening(World(), keys_file="not-there.toml")
