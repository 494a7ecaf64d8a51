"""The ingress on a real broker.

What: callers are answered through real topics, plain and streamed, many at once; jobs are durable and visible; cancels arrive.
How: a fake planner reads `jobs.*` and `outcomes` and writes `replies` and `job-events`, as the real one does.

    client ── ingress ── jobs.<class> ──► fake planner ── job-events, replies ──► ingress ── client
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from shared.clock import SystemClock
from shared.contracts.job import Job
from shared.kafka.client.aio import AioLog
from tests.support.fake_planner import Script
from tests.support.ingress_world import World, until, world

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]
CHAT = "/v1/chat/completions"


def echo(job: Job) -> Script:
    text = job.messages[0].content if job.messages else str(job.prompt)
    return Script(text=text, chunks=(text[:4], text[4:8]), hold=text == "hold")


@asynccontextmanager
async def real(servers: str, name: str) -> AsyncIterator[World]:
    """Topics of our own, deleted afterwards."""
    prefix = f"ingress-{name}-{os.getpid()}-"
    log = AioLog(servers=servers, clock=SystemClock())
    try:
        async with world(log, script=echo, prefix=prefix, settings={"backlog_seconds": 1.0}) as at:
            yield at
    finally:
        admin = await log.admin()
        await admin.delete_topics([topic for topic in await admin.list_topics() if topic.startswith(prefix)])
        await admin.close()
        await log.close()


def body(text: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **fields}


def streamed_text(stream: str) -> str:
    chunks = [json.loads(block.removeprefix("data: ")) for block in stream.split("\n\n") if block.startswith("data: {")]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)


async def test_callers_are_answered(kafka: str) -> None:
    """Two hundred concurrent callers, half of them streaming, each with its own answer; nobody is left waiting."""
    async with real(kafka, "chat") as at:

        async def ask(number: int) -> None:
            text = f"answer {number}"
            if number % 2:
                response = await at.client.post(CHAT, json=body(text, stream=True))
                assert response.text.rstrip().endswith("data: [DONE]")
                assert streamed_text(response.text) == text
            else:
                response = await at.client.post(CHAT, json=body(text))
                assert response.json()["choices"][0]["message"]["content"] == text
            assert response.status_code == 200

        await asyncio.gather(*(ask(number) for number in range(200)))
        assert len(at.ingress.door.waiters) == 0
        await until(lambda: at.ingress.readiness().ready, "it is ready", 20)


async def test_jobs_are_durable_visible_and_cancellable(kafka: str) -> None:
    """Submitted, seen through its events, cancelled at its home, settled once."""
    async with real(kafka, "jobs") as at:
        done = await at.client.post("/v1/jobs?wait=20", json={"prompt": "hello"})
        assert done.json()["result"]["answer"]["text"] == "hello"
        job = (await at.client.post("/v1/jobs", json={"prompt": "hold"})).json()["id"]
        await until(lambda: job in at.planner.jobs, "the job arrives", 20)
        assert (await at.client.delete(f"/v1/jobs/{job}")).status_code == 202
        await until(lambda: job in at.planner.cancels, "the cancel arrives", 20)
        assert at.planner.cancels[job] == at.planner.jobs[job].home
        events = await asyncio.wait_for(at.client.get(f"/v1/jobs/{job}/events"), 20)
        assert events.text.count("event: job_settled") == 1
        assert '"status":"cancelled"' in events.text
