"""A task queue behind HTTP: `saq_app.py front PORT REDIS_URL` and `saq_app.py worker REDIS_URL`. In an environment of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from typing import Any

import uvicorn
import uvloop
from saq import Job, Queue, Worker
from saq.job import TERMINAL_STATUSES

AT_ONCE = 64
LOST_SECONDS = 2.0
"""The first notification of a process may come before it has subscribed."""


async def answer(_: Any, *, prompt: str) -> str:
    return f"simulated answer to {len(prompt)} characters"


async def run(queue: Queue, prompt: str) -> str:
    """Told by the queue's notifications: `apply` asks each half second instead. Listening begins first, so that none is missed."""
    job = Job("answer", kwargs={"prompt": prompt}, timeout=60)
    ended = asyncio.create_task(queue.listen([job.key], lambda _, status: status in TERMINAL_STATUSES, timeout=LOST_SECONDS))
    await asyncio.sleep(0)  # noqa: TID251  (this environment has no shared)
    await queue.enqueue(job)
    with suppress(TimeoutError):
        await ended
    await job.refresh(until_complete=60)
    return str(job.result)


def front(queue: Queue) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        body = json.dumps({"text": await run(queue, json.loads(message["body"])["prompt"])}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


async def work(url: str) -> None:
    queue = Queue.from_url(url)
    await queue.connect()
    await Worker(queue, functions=[answer], concurrency=AT_ONCE).start()


if __name__ == "__main__":
    role, *rest = sys.argv[1:]
    if role == "worker":
        uvloop.run(work(rest[0]))
    else:
        app = front(Queue.from_url(rest[1]))
        uvicorn.run(app, port=int(rest[0]), loop="uvloop", http="httptools", lifespan="off", log_level="critical", access_log=False)
