"""One request under one key or id is one job with one result: repeated, concurrently, at another instance, after a restart.

Here without a store: the planner's memory (played by the fake planner) decides. With Redis: tests/integration/test_ingress_idempotency.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from services.ingress.admission.idempotency import job_id_of
from shared.clock import SystemClock
from shared.contracts.job import Job
from tests.support.fake_planner import Script
from tests.support.ingress_world import World, opening, running, until, world

CHAT, JOBS = "/v1/chat/completions", "/v1/jobs"
KEY = {"idempotency-key": "once"}


def echo(job: Job) -> Script:
    return Script(text=(job.prompt or job.messages[0].content if job.messages else job.prompt) or "")


def held(_job: Job) -> Script:
    return Script(hold=True)


def chat(text: str = "hi", **fields: Any) -> dict[str, Any]:
    return {"model": "tiny:1", "messages": [{"role": "user", "content": text}], **fields}


@asynccontextmanager
async def another(at: World, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """One more instance. `events_lookback=0`: it knows nothing of what was before."""
    ingress = opening(at, "test-2", **settings)
    async with running(ingress) as client:
        await until(lambda: bool(ingress.door.registry.catalogue.models), "nodes")
        yield client


async def test_a_repeated_key_is_the_same_job_and_the_same_answer() -> None:
    """Jobs and chat; the second time nothing is submitted, and the answer says that it is a repetition."""
    async with world(script=echo) as at:
        first = await at.client.post(f"{JOBS}?wait=5", json={"prompt": "a"}, headers=KEY)
        second = await at.client.post(f"{JOBS}?wait=5", json={"prompt": "a"}, headers=KEY)
        assert (first.status_code, second.status_code) == (200, 200)
        assert first.json()["id"] == job_id_of("default", "once")
        assert first.json()["result"] == second.json()["result"]
        assert "idempotent-replayed" not in first.headers
        assert second.headers["idempotent-replayed"] == "true"
        without_wait = await at.client.post(JOBS, json={"prompt": "a"}, headers=KEY)
        assert (without_wait.status_code, without_wait.json()["state"]) == (200, "settled")
        answers = [(await at.client.post(CHAT, json=chat(), headers={"idempotency-key": "two"})).json() for _ in range(3)]
        assert answers[0] == answers[1] == answers[2]
        assert at.planner.submissions == 2


async def test_another_body_under_the_key_is_a_conflict() -> None:
    """409 in both dialects; for a client's own id too. What is left to the defaults is no other body."""
    async with world(script=echo) as at:
        await at.client.post(f"{JOBS}?wait=5", json={"prompt": "a"}, headers=KEY)
        response = await at.client.post(JOBS, json={"prompt": "b"}, headers=KEY)
        assert (response.status_code, response.json()["error"]["code"]) == (409, "conflict")
        response = await at.client.post(CHAT, json=chat("a"), headers=KEY)
        assert (response.status_code, response.json()["error"]["code"]) == (409, "conflict")
        assert (await at.client.post(JOBS, json={"prompt": "a", "stream": False, "model": "auto"}, headers=KEY)).status_code == 200
        own = {"prompt": "a", "id": "mine"}
        await at.client.post(f"{JOBS}?wait=5", json=own)
        assert (await at.client.post(JOBS, json=own, headers={"x-tutti-deadline-seconds": "9"})).status_code == 200
        assert (await at.client.post(JOBS, json=own | {"prompt": "b"})).status_code == 409
        others = (await at.client.post(f"{JOBS}?wait=5", json=own | {"tenant": "other", "prompt": "b"})).json()
        assert (others["tenant"], others["result"]["answer"]["text"]) == ("other", "b"), "another tenant's id is another job's"


async def test_a_key_is_the_tenants_own() -> None:
    """Two tenants may use the same word."""
    async with world(script=echo) as at:
        texts = [
            (await at.client.post(f"{JOBS}?wait=5", json={"prompt": tenant}, headers=KEY | {"x-tutti-tenant": tenant})).json()
            for tenant in ("a", "b")
        ]
        assert [found["result"]["answer"]["text"] for found in texts] == ["a", "b"]
        assert texts[0]["id"] != texts[1]["id"]


async def test_a_key_and_an_id_are_one_too_many() -> None:
    """400: which of the two should count?"""
    async with world() as at:
        response = await at.client.post(JOBS, json={"prompt": "a", "id": "mine"}, headers=KEY)
        assert (response.status_code, response.json()["error"]["param"]) == (400, "idempotency-key")


async def test_concurrent_posts_of_one_key_have_one_answer() -> None:
    """Whoever comes first makes the job; the others, at two instances, wait for the same end."""
    async with world(script=held) as at, another(at) as second:
        calls = [
            asyncio.create_task(client.post(CHAT, json=chat(stream=stream), headers=KEY))
            for client in (at.client, second)
            for stream in (False, False)
        ]
        await until(lambda: at.planner.submissions >= 1, "submitted")
        job = job_id_of("default", "once")
        await until(lambda: len(at.ingress.door.waiters) == 2, "both wait")
        await at.planner.release(job)
        answers = [(await call).json() for call in calls]
        assert all(answer == answers[0] for answer in answers)
        assert list(at.planner.jobs) == [job]


async def test_concurrent_other_bodies_one_wins() -> None:
    """At two instances that know nothing of each other: one 200, one 409, for chat, streamed chat and jobs."""
    async with world(script=echo) as at, another(at) as second:
        for number, (path, make) in enumerate(
            [
                (CHAT, chat),
                (CHAT, lambda text: chat(text, stream=True)),
                (JOBS, lambda text: {"prompt": text}),
                (f"{JOBS}?wait=5", lambda text: {"prompt": text}),
            ]
        ):
            key = {"idempotency-key": f"race-{number}"}
            responses = await asyncio.gather(
                at.client.post(path, json=make("a"), headers=key), second.post(path, json=make("b"), headers=key)
            )
            statuses = sorted(response.status_code for response in responses)
            assert statuses[1] == 409, (path, statuses)
            assert statuses[0] in (200, 202)


async def test_a_restarted_instance_gets_the_result_from_the_planner() -> None:
    """Nothing is stored and nothing is read back: the planner's memory answers with the result, not with `queued`; or with a conflict."""
    async with world(script=echo) as at:
        own = {"prompt": "a", "id": "mine"}
        first = (await at.client.post(f"{JOBS}?wait=5", json=own)).json()
        completion = (await at.client.post(CHAT, json=chat(), headers=KEY)).json()
        async with another(at, events_lookback=0) as second:
            again = await second.post(JOBS, json=own)
            assert (again.status_code, again.json()["result"]) == (200, first["result"])
            assert (await second.get(f"{JOBS}/mine")).json()["state"] == "settled"
            assert (await second.post(JOBS, json=own | {"prompt": "b"})).status_code == 409
            assert (await second.post(CHAT, json=chat(), headers=KEY)).json() == completion
            assert (await second.post(CHAT, json=chat("other"), headers=KEY)).status_code == 409
            assert (await second.post(CHAT, json=chat("other", stream=True), headers=KEY)).status_code == 409
        assert len(at.planner.jobs) == 2


async def test_a_late_word_of_the_planner_still_counts() -> None:
    """Behind a backlog nobody waits for it; when it comes, the status is known here."""
    async with world(script=echo) as at:
        own = {"prompt": "a", "id": "mine"}
        await at.client.post(f"{JOBS}?wait=5", json=own)
        at.planner.busy = asyncio.Event()
        async with another(at, events_lookback=0, first_word_seconds=0.01) as second:
            again = await second.post(JOBS, json=own)
            assert (again.status_code, again.json()["state"]) == (202, "queued")
            at.planner.busy.set()
            for _ in range(500):
                if (await second.get(f"{JOBS}/mine")).json()["state"] == "settled":
                    return
                await SystemClock().sleep(0.01)
            raise AssertionError("never told")


async def test_a_running_job_is_joined_not_submitted_again() -> None:
    """`?wait=` and chat wait for its end; without waiting its state is told."""
    async with world(script=held) as at:
        job = (await at.client.post(JOBS, json={"prompt": "a"}, headers=KEY)).json()["id"]
        await until(lambda: (found := at.ingress.door.journal.status(job)) is not None and found.state == "running", "running")
        again = await at.client.post(JOBS, json={"prompt": "a"}, headers=KEY)
        assert (again.status_code, again.json()["state"]) == (202, "running")
        waiting = asyncio.create_task(at.client.post(f"{JOBS}?wait=5", json={"prompt": "a"}, headers=KEY))
        await until(lambda: len(at.ingress.door.followers) == 1, "waiting")
        await at.planner.release(job)
        assert (await waiting).json()["result"]["answer"]["text"] == "hello back"
        assert at.planner.submissions == 1


async def test_a_repeated_streamed_chat_has_the_whole_text() -> None:
    """Joined while it runs or after its end: all of the text, then the end mark."""
    async with world(script=lambda _job: Script(text="one two", chunks=("one ", "two"))) as at:
        texts = [(await at.client.post(CHAT, json=chat(stream=True), headers=KEY)).text for _ in range(2)]
        for text in texts:
            assert text.count("[DONE]") == 1
            assert "one " in text
            assert "two" in text
        assert at.planner.submissions == 1


async def test_a_keyed_call_is_not_cancelled_when_its_client_goes() -> None:
    """He will come again with the key: the job is still there."""
    async with world(script=held) as at:
        call = asyncio.create_task(at.client.post(CHAT, json=chat(), headers=KEY))
        job = job_id_of("default", "once")
        await until(lambda: job in at.planner.jobs, "the job")
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await until(lambda: len(at.ingress.door.waiters) == 0, "gone")
        again = asyncio.create_task(at.client.post(CHAT, json=chat(), headers=KEY))
        await until(lambda: len(at.ingress.door.waiters) == 1, "back")
        await at.planner.release(job)
        assert (await again).status_code == 200
        assert not at.planner.cancels
        assert len(at.ingress.door.waiters.ends) == 0


@pytest.mark.parametrize("key", ["", "x" * 256, "two words", "käse"])
async def test_a_key_that_is_none_is_refused(key: str) -> None:
    """400 that names the header."""
    async with world() as at:
        response = await at.client.post(JOBS, json={"prompt": "a"}, headers=[(b"idempotency-key", key.encode())])
        assert (response.status_code, response.json()["error"]["param"]) == (400, "idempotency-key")
