"""Whoever waits at an ingress: bounded on every route, and told when the instance leaves, so that he goes on at another one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import pytest

from shared.contracts.job import Job
from shared.errors import ConsumerGaveUp
from tests.contract.test_ingress_disconnect import Connection, serving
from tests.contract.test_ingress_jobs import parsed
from tests.support.fake_planner import Script
from tests.support.ingress_world import World, opening, running, until, world

CHAT = {"model": "tiny:1", "messages": [{"role": "user", "content": "hi"}]}


def held(job: Job) -> Script:
    return Script(hold=True, chunks=("hel", "lo ") if job.stream else ())


@asynccontextmanager
async def holding(**settings: Any) -> AsyncIterator[World]:
    """No job ends by itself."""
    async with world(script=held, settings=settings) as at:
        yield at


@asynccontextmanager
async def another(at: World) -> AsyncIterator[httpx.AsyncClient]:
    second = opening(at, "test-2")
    async with running(second) as client:
        await until(lambda: bool(second.door.registry.catalogue.models), "nodes")
        yield client


async def submitted(at: World, **body: Any) -> str:
    job = str((await at.client.post("/v1/jobs", json={"prompt": "x", **body})).json()["id"])
    await until(lambda: (found := at.ingress.door.journal.status(job)) is not None and found.state == "running", "running")
    return job


@pytest.mark.parametrize("route", ["chat", "stream", "wait", "events"])
async def test_those_who_wait_are_bounded_on_every_route(route: str) -> None:
    """Two places: of six calls four are refused at once with 429 and Retry-After; when the two go, there is room again."""
    async with holding(in_flight=2, follows=2) as at:
        job = await submitted(at)

        async def call(number: int) -> httpx.Response:
            match route:
                case "chat" | "stream":
                    return await at.client.post("/v1/chat/completions", json={**CHAT, "stream": route == "stream"})
                case "wait":
                    return await at.client.post("/v1/jobs?wait=30", json={"prompt": str(number)})
                case _:
                    return await at.client.get(f"/v1/jobs/{job}/events")

        register = at.ingress.door.register
        calls = [asyncio.create_task(call(number)) for number in range(6)]
        await until(lambda: sum(task.done() for task in calls) == 4, "four are refused")
        refused = [task.result() for task in calls if task.done()]
        assert {response.status_code for response in refused} == {429}
        assert all(int(response.headers["retry-after"]) >= 1 for response in refused)
        await until(lambda: len(register) == 2, "two wait")
        for task in calls:
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await until(lambda: len(register) == 0, "nobody waits")


async def test_who_waits_for_an_end_is_answered_in_time() -> None:
    """202 when his seconds are over: the job goes on."""
    async with holding() as at:
        answer = await asyncio.wait_for(at.client.post("/v1/jobs?wait=0.1", json={"prompt": "x"}), 2.0)
        assert (answer.status_code, answer.json()["state"]) == (202, "running")
        assert len(at.ingress.door.register) == 0


class Silent:
    """A producer that nothing is acknowledged to."""

    async def send_many(self, _messages: Any) -> Any:
        await asyncio.Event().wait()


async def fails() -> None:
    raise ConsumerGaveUp("it stands still")


async def test_who_waits_at_an_instance_that_ends_by_itself_is_told() -> None:
    """Also whose job is on its way to Kafka: at once, not when the server's grace period is over."""
    told: list[httpx.Response] = []

    async def ends() -> None:
        async with holding() as at:
            chat = asyncio.create_task(at.client.post("/v1/chat/completions", json=CHAT))
            await until(lambda: len(at.ingress.door.register) == 1 and not len(at.ingress._outbox), "his job is written")
            at.ingress._outbox._producer = cast("Any", Silent())
            job = asyncio.create_task(at.client.post("/v1/jobs", json={"prompt": "x"}))
            await until(lambda: bool(len(at.ingress._outbox)), "the other's job is on its way")
            at.ingress._processor.spawn(fails())
            told.extend(await asyncio.wait_for(asyncio.gather(chat, job), 2.0))

    with pytest.raises(ConsumerGaveUp):
        await ends()
    assert [answer.status_code for answer in told] == [503, 503]
    assert all("retry-after" in answer.headers for answer in told)


async def test_a_leaving_instance_tells_everybody_who_can_go_on_elsewhere() -> None:
    """An event stream ends with its cursor, and goes on from it at another instance; `?wait=` is answered 202; new ones get 503."""
    async with holding() as at, another(at) as other:
        job = await submitted(at, stream=True)
        waiting = asyncio.create_task(at.client.post("/v1/jobs?wait=60", json={"prompt": "y"}))
        streaming = asyncio.create_task(at.client.get(f"/v1/jobs/{job}/events"))
        follow = at.ingress.door.waiters.following(job)
        await until(lambda: follow is not None and follow.text == "hello ", "its text")
        await until(lambda: len(at.ingress.door.register) == 2, "both wait")
        at.ingress.door.leaving = True
        first = await asyncio.wait_for(streaming, 2.0)
        assert (await asyncio.wait_for(waiting, 2.0)).status_code == 202
        for path in ("/v1/jobs?wait=1", "/v1/jobs"):
            assert (await at.client.post(path, json={"prompt": "z"})).status_code == 503
        refused = await at.client.get(f"/v1/jobs/{job}/events")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "leaving")
        seen = parsed(first.text)
        assert [event.name for event in seen if event.name != "chunk"] == ["job_accepted", "step_asked", "step_claimed"]
        cursor = first.text.rstrip().rpartition("\n\n")[2]
        assert cursor == f"id: {seen[-1].id}"
        await at.planner.release(job)
        rest = parsed((await other.get(f"/v1/jobs/{job}/events", headers={"last-event-id": cursor.removeprefix("id: ")})).text)
        assert rest[-1].name == "job_settled"
        text = "".join(event.data["text"] for event in [*seen, *rest] if event.name == "chunk")
        assert text == "hello back"


async def test_an_event_stream_ends_after_its_time() -> None:
    """With its cursor, so that the client simply reconnects."""
    async with holding(stream_seconds=0.1) as at:
        job = await submitted(at)
        stream = await asyncio.wait_for(at.client.get(f"/v1/jobs/{job}/events"), 2.0)
        assert stream.text.endswith(f"\n\nid: {parsed(stream.text)[-1].id}\n\n")


@pytest.mark.parametrize("route", ["chat", "events"])
async def test_a_reader_that_takes_nothing_is_cut_off(route: str) -> None:
    """It holds no place until its deadline, however far away that is."""
    text = "\N{MUSICAL KEYBOARD}" * 3_000
    scripts = [Script(hold=True, chunks=(text,) * 600)]
    async with world(script=lambda _job: scripts[0], settings={"stuck_seconds": 0.3}) as at, serving(at) as port:
        if route == "chat":
            connection = await Connection.post(port, "/v1/chat/completions", {"x-tutti-deadline-seconds": "9000"}, stream=True)
        else:
            job = await submitted(at, stream=True)
            connection = await Connection.open(port, "GET", f"/v1/jobs/{job}/events")
        await until(lambda: len(at.ingress.door.register) == 1, "it reads")
        await until(lambda: len(at.ingress.door.register) == 0, "its place is free again", 20)
        await connection.drop(hard=True)
