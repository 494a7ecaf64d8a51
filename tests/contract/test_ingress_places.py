"""Places in line over REST: at submission, in a status, beside a stream; nothing of others but a number; none when switched off."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.ingress.routes import calls, events
from shared.clock import SystemClock
from shared.contracts.job import Job
from tests.support.fake_planner import Script
from tests.support.ingress_world import World, until, world

pytestmark = pytest.mark.usefixtures("quick_places")


@pytest.fixture
def quick_places(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (calls, events):
        monkeypatch.setattr(module, "TOLD_SECONDS", 0.03)


def waits(job: Job) -> Script:
    return Script(hold=True, waits=True)


async def submit(at: World, **body: Any) -> Any:
    response = await at.client.post("/v1/jobs", json={"prompt": "hello", **body})
    assert response.status_code == 202, response.text
    return response


async def status_of(at: World, job: str) -> Any:
    return (await at.client.get(f"/v1/jobs/{job}")).json()


async def accepted(at: World, job: str) -> None:
    for _ in range(500):
        if (await status_of(at, job)).get("accepted_at"):
            return
        await SystemClock().sleep(0.01)
    raise AssertionError("not accepted")


async def test_who_asks_knows_his_place_until_he_is_served() -> None:
    async with world(script=waits) as at:
        await submit(at, id="first")
        await accepted(at, "first")
        second = await submit(at, id="second")
        assert second.headers["x-tutti-place"] == "2"
        assert second.json()["line"]["place"] == 2
        await accepted(at, "second")
        found = await at.client.get("/v1/jobs/second")
        assert found.json()["line"] == {"place": 2}
        assert found.headers["x-tutti-place"] == "2"
        assert "x-tutti-start-seconds" not in found.headers, "nothing is known of the pace"
        await at.planner.claim("first")
        await at.planner.claim("second")
        for _ in range(500):
            if "line" not in (shown := await status_of(at, "second")):
                break
            await SystemClock().sleep(0.01)
        assert "line" not in shown
        assert shown["state"] == "running"


async def test_streams_tell_it_in_comments() -> None:
    async with world(script=waits, settings={"head_seconds": 0.05, "sweep_seconds": 0.01}) as at:
        await submit(at, id="first", **{"class": "interactive"})
        await accepted(at, "first")
        chat = {"model": "auto", "stream": True, "messages": [{"role": "user", "content": "x"}]}
        call = asyncio.create_task(at.client.post("/v1/chat/completions", json=chat))
        await until(lambda: len(at.planner.jobs) == 2, "the call's job")
        await SystemClock().sleep(0.3)
        job = next(job for job in at.planner.jobs if job != "first")
        reading = asyncio.create_task(at.client.get(f"/v1/jobs/{job}/events"))
        await SystemClock().sleep(0.2)
        await at.planner.claim("first")
        await SystemClock().sleep(0.2)
        for each in list(at.planner.jobs):
            await at.planner.release(each)
        for text in ((await call).text, (await reading).text):
            comments = [line for line in text.splitlines() if line.startswith(": place")]
            assert comments[:2] == [": place 2", ": place 1"], text


async def test_it_can_be_switched_off() -> None:
    async with world(script=waits, settings={"places": False}) as at:
        assert "x-tutti-place" not in (await submit(at, id="first")).headers
        await accepted(at, "first")
        assert "line" not in await status_of(at, "first")


async def test_jobs_that_wait_for_their_time_stand_in_no_line() -> None:
    async with world(script=waits) as at:
        later = await submit(at, id="later", not_before=SystemClock().wall() + 600)
        assert "x-tutti-place" not in later.headers
