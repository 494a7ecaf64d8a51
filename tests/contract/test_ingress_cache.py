"""What a caller may ask of the cache, in every dialect, and how he is told that an answer is the cache's."""

from __future__ import annotations

from typing import Any

import pytest

from shared.contracts.cache import CacheControl
from shared.contracts.chat import Answer, Served
from shared.contracts.usage import Usage
from tests.contract.test_ingress_chat import CHAT, body, events, streamed_text
from tests.support.fake_planner import Script
from tests.support.ingress_world import world

SERVED = Served(
    kind="semantic", entry="e" * 64, similarity=0.98765, age_seconds=12.3456, saved=Usage(calls=1, prompt_tokens=7, completion_tokens=9)
)
HIT = Script(answer=Answer(text="kept before", model="tiny:1", served=SERVED))
SPELLED = f"hit; kind=semantic; entry={'e' * 64}; age=12; similarity=0.9877"
OTHER: dict[str, Any] = {"jobs": {"prompt": "q", "model": "tiny:1"}, "chat": body()}
PATHS = {"jobs": "/v1/jobs?wait=10", "chat": CHAT}


@pytest.mark.parametrize(
    ("headers", "said", "expected"),
    [
        ({}, None, None),
        ({}, {"mode": "exact", "ttl": 60}, CacheControl(mode="exact", ttl=60)),
        ({"x-tutti-cache": "exact"}, None, CacheControl(mode="exact")),
        ({"x-tutti-cache": "Exact ; TTL=60;tag=a; tag=b ;"}, None, CacheControl(mode="exact", ttl=60, tags=("a", "b"))),
        ({"x-tutti-cache": "exact; document=d; creative"}, None, CacheControl(mode="exact", documents=("d",), creative=True)),
        ({"x-tutti-cache": "off"}, {"mode": "exact", "tags": ["a"]}, CacheControl(mode="off", tags=("a",))),
        ({"x-tutti-cache": "no-store; max-age=5"}, {"mode": "semantic"}, CacheControl(mode="semantic", no_store=True, max_age=5)),
        ({"x-tutti-cache": "semantic; threshold=0.9"}, None, CacheControl(mode="semantic", threshold=0.9)),
        ({"cache-control": "no-cache"}, {"mode": "exact"}, CacheControl(mode="exact", no_cache=True)),
        ({"cache-control": "max-age=3, private, no-store"}, None, CacheControl(max_age=3, no_store=True)),
        ({"cache-control": "max-age=9", "x-tutti-cache": "exact; max-age=4"}, None, CacheControl(mode="exact", max_age=4)),
        ({"cache-control": "max-age=soon, only-if-cached"}, None, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dialect", PATHS)
async def test_headers_and_bodies_say_what_is_asked(dialect: str, headers: dict[str, str], said: Any, expected: Any) -> None:
    """A header's word stands for the body's; of two headers the stricter one."""
    async with world() as at:
        more = {} if said is None else {"cache": said}
        response = await at.client.post(PATHS[dialect], json={**OTHER[dialect], **more}, headers=headers)
        assert response.status_code == 200, response.text
        [seen] = at.planner.jobs.values()
        assert seen.job.cache == expected


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"x-tutti-cache": "sometimes"}, None),
        ({"x-tutti-cache": "exact=1"}, None),
        ({"x-tutti-cache": "ttl=soon"}, None),
        ({"x-tutti-cache": "ttl=0"}, None),
        ({"x-tutti-cache": "threshold=2"}, None),
        ({"x-tutti-cache": "scope=all"}, None),
        ({"x-tutti-cache": "exact; scope=session"}, None),
        ({"x-tutti-cache": "exact; scope=user"}, None),
        ({"x-tutti-cache": "; ".join(f"tag={number}" for number in range(17))}, None),
        ({"x-tutti-cache": "x" * 5_000}, None),
        ({}, {"mode": "sometimes"}),
        ({}, {"mode": "exact", "scope": "session"}),
        ({}, {"mode": "exact", "unknown": 1}),
    ],
)
@pytest.mark.parametrize("dialect", PATHS)
async def test_what_cannot_be_meant_is_refused(dialect: str, headers: dict[str, str], said: Any) -> None:
    async with world() as at:
        more = {} if said is None else {"cache": said}
        response = await at.client.post(PATHS[dialect], json={**OTHER[dialect], **more}, headers=headers)
        assert response.status_code == 400
        assert response.json()["error"]["code"] in {"invalid_header", "invalid_input", "unknown_field"}
        assert not at.planner.jobs


async def test_who_a_user_is_the_dialects_own_field_says() -> None:
    async with world() as at:
        response = await at.client.post(CHAT, json=body(user="ann"), headers={"x-tutti-cache": "exact; scope=user"})
        assert response.status_code == 200
        [seen] = at.planner.jobs.values()
        assert (seen.job.cache, seen.job.metadata["user"]) == (CacheControl(mode="exact", scope="user"), "ann")


async def test_the_same_request_with_another_word_to_the_cache_is_the_same_request() -> None:
    async with world() as at:
        head = {"idempotency-key": "k"}
        first = await at.client.post(CHAT, json=body(), headers=head)
        again = await at.client.post(CHAT, json=body(), headers={**head, "x-tutti-cache": "exact; no-cache"})
        assert (first.status_code, again.status_code) == (200, 200)
        assert len(at.planner.jobs) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_hit_is_told_in_a_header_and_in_the_body(stream: bool) -> None:
    """Whoever asked; a stream has the same events as any, with the whole text."""
    async with world(script=lambda _: HIT) as at:
        response = await at.client.post(CHAT, json=body(stream=stream))
        assert response.headers["x-tutti-cache"] == SPELLED
        told = events(response.text) if stream else [response.json()]
        saved = {"prompt_tokens": 7, "completion_tokens": 9}
        shown = {"kind": "semantic", "entry": "e" * 64, "age_seconds": 12.346, "similarity": 0.9877, "saved": saved}
        assert [event["tutti"]["cache"] for event in told if isinstance(event, dict) and "tutti" in event] == [shown]
        if stream:
            assert streamed_text(response.text) == "kept before"
            assert told[-1] == "[DONE]"


async def test_a_miss_is_told_to_who_asked() -> None:
    async with world() as at:
        asked = await at.client.post(CHAT, json=body(), headers={"x-tutti-cache": "exact"})
        other = await at.client.post(CHAT, json=body())
        assert (asked.headers.get("x-tutti-cache"), other.headers.get("x-tutti-cache")) == ("miss", None)
        assert "cache" not in asked.json()["tutti"]


async def test_a_jobs_answer_tells_too() -> None:
    async with world(script=lambda _: HIT) as at:
        response = await at.client.post(PATHS["jobs"], json=OTHER["jobs"])
        assert response.headers["x-tutti-cache"] == SPELLED
        assert response.json()["result"]["answer"]["served"]["saved"]["completion_tokens"] == 9
