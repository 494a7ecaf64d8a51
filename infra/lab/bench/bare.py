"""The baseline: what five hops through Kafka cost when nothing is decided, kept or promised. Upper bound of what tutti could reach.

    POST / ─► jobs ─► planner ─► steps ─► router ─► work ─► worker ─► outcomes ─► planner ─► replies ─► front ─► caller
                                                              │ └─ node (jobs that name a model)  └───► results (queued jobs)

Raw aiokafka with pydantic messages, one process a service (`python -m infra.lab.bench.bare ROLE SERVERS PREFIX [PORT | NODE]`), uvloop,
records read by `getmany`, sends gathered, linger 0, no await per record but the send's own, positions committed each half second.
A job that names a model is answered by the node, asked as tutti's worker asks it, over connections that are kept: the floor of what goes
over a node.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import uvicorn
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from pydantic import BaseModel

from infra.lab.bench.http_client import Caller, ConnectionLost
from shared.clock import SystemClock
from shared.tasks import ended

TOPICS = {"jobs": 6, "steps": 6, "work": 6, "outcomes": 6, "replies": 1, "results": 6}
"""Name to partitions; the same counts as tutti's own."""
ROLES = ("planner", "router", "worker", "front")
COMMIT_SECONDS = 0.5
POLL_MS = 200
NODE_TOKENS = 8
"""Words of an answer that a node gives: enough to be one, little for the simulated node to make."""


class Job(BaseModel):
    """`reply` is the caller's number; None for a queued job. `model`: of the node; None: answered without one."""

    id: str
    prompt: str
    model: str | None = None
    reply: int | None = None


class Step(BaseModel):
    """Also what the router gives to the worker."""

    job: str
    home: int
    step: str
    attempt: int = 1
    prompt: str
    model: str | None = None
    reply: int | None = None


class Outcome(BaseModel):
    job: str
    home: int
    step: str
    attempt: int = 1
    text: str
    reply: int | None = None


class Result(BaseModel):
    job: str
    text: str
    reply: int | None = None


Sent = tuple[str, bytes, int | None]
"""Topic, value, partition (None: any)."""


def plan(record: Any) -> Sent:
    """A job becomes a step, an outcome the reply or result."""
    if record.topic.endswith("jobs"):
        job = Job.model_validate_json(record.value)
        step = Step(job=job.id, home=record.partition, step=f"{job.id}-0", prompt=job.prompt, model=job.model, reply=job.reply)
        return "steps", _bytes(step), None
    outcome = Outcome.model_validate_json(record.value)
    result = _bytes(Result(job=outcome.job, text=outcome.text, reply=outcome.reply))
    return ("results", result, None) if outcome.reply is None else ("replies", result, 0)


def route(record: Any) -> Sent:
    """The step goes on as it is."""
    return "work", _bytes(Step.model_validate_json(record.value)), None


def work(record: Any) -> Sent | Step:
    """An answer without a model; a step that names one, which the node has to answer."""
    step = Step.model_validate_json(record.value)
    return answered(step, f"simulated answer to {len(step.prompt)} characters") if step.model is None else step


def answered(step: Step, text: str) -> Sent:
    """The outcome of a step."""
    return "outcomes", _bytes(Outcome(job=step.job, home=step.home, step=step.step, text=text, reply=step.reply)), step.home


def _bytes(model: BaseModel) -> bytes:
    return model.__pydantic_serializer__.to_json(model, exclude_none=True)


HANDLERS = {"planner": (("jobs", "outcomes"), plan), "router": (("steps",), route), "worker": (("work",), work)}


def partitions(prefix: str, *topics: str) -> list[TopicPartition]:
    """All partitions of these topics."""
    return [TopicPartition(prefix + topic, number) for topic in topics for number in range(TOPICS[topic])]


def new_consumer(servers: str, group: str | None, reset: str = "earliest") -> AIOKafkaConsumer:
    """A consumer without automatic commits."""
    return AIOKafkaConsumer(bootstrap_servers=servers, group_id=group, enable_auto_commit=False, auto_offset_reset=reset)


def new_producer(servers: str) -> AIOKafkaProducer:
    """As tutti's: acknowledged by all, idempotent, batches of 256 kB, no linger."""
    return AIOKafkaProducer(
        bootstrap_servers=servers, acks="all", enable_idempotence=True, linger_ms=0, max_batch_size=262_144, compression_type="lz4"
    )


class Node:
    """A model's endpoint (Ollama's API), asked over connections that are kept, one call at a time on each."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/api/chat"
        self._free: list[Caller] = []

    async def answer(self, model: str, prompt: str) -> str:
        """The whole text of a streamed answer. A connection that was kept may have been closed meanwhile, while this process was stopped
        too: another one is taken then. Raises ConnectionLost of a new one, OSError.
        """
        while True:
            kept = bool(self._free)
            caller = self._free.pop() if kept else Caller(self._url, SystemClock())
            try:
                response = await caller.call(node_body(model, prompt))
                break
            except ConnectionLost:
                if not kept:
                    raise
        self._free.append(caller)
        return "".join(json.loads(line)["message"]["content"] for line in response.body.splitlines() if line.startswith(b"{"))


def node_body(model: str, prompt: str, tokens: int = NODE_TOKENS) -> bytes:
    """A call of /api/chat, streamed, as every call of tutti's worker."""
    message = {"role": "user", "content": prompt}
    return json.dumps({"model": model, "messages": [message], "stream": True, "options": {"num_predict": tokens}}).encode()


async def _by_node(step: Step, node: Node, producer: AIOKafkaProducer, prefix: str) -> None:
    topic, value, target = answered(step, await node.answer(step.model or "", step.prompt))
    await producer.send(prefix + topic, value, partition=target)


async def serve_hop(role: str, servers: str, prefix: str, node: Node | None = None) -> None:
    """One service, until it is killed. Only the worker has a node."""
    topics, handle = HANDLERS[role]
    calls = set[asyncio.Task[None]]()
    consumer = new_consumer(servers, f"{prefix}{role}")
    producer = new_producer(servers)
    await consumer.start()
    await producer.start()
    consumer.assign(partitions(prefix, *topics))
    clock = SystemClock()
    committed_at, positions = clock.monotonic(), dict[TopicPartition, int]()
    print("ready", flush=True)
    while True:
        batches = await consumer.getmany(timeout_ms=POLL_MS)
        sends = []
        for partition, records in batches.items():
            for record in records:
                found = handle(record)
                if isinstance(found, Step):
                    assert node is not None
                    calls.add(call := asyncio.create_task(_by_node(found, node, producer, prefix)))
                    call.add_done_callback(calls.discard)
                    continue
                topic, value, target = found
                sends.append(await producer.send(prefix + topic, value, partition=target))
            positions[partition] = records[-1].offset + 1
        if sends:
            await asyncio.gather(*sends)
        if positions and clock.monotonic() - committed_at >= COMMIT_SECONDS:
            await consumer.commit(positions)
            committed_at, positions = clock.monotonic(), {}


class Front:
    """The REST side: each POST is a job, its reply the answer."""

    def __init__(self, servers: str, prefix: str) -> None:
        self._prefix = prefix
        self._consumer = new_consumer(servers, None, "latest")
        self._producer = new_producer(servers)
        self._waiting: dict[int, asyncio.Future[Result]] = {}
        self._number = 0

    async def start(self) -> None:
        """Know the end of `replies` before anything is sent."""
        await self._consumer.start()
        await self._producer.start()
        self._consumer.assign(partitions(self._prefix, "replies"))
        await self._consumer.seek_to_end()

    async def read_replies(self) -> None:
        """Wake the callers."""
        while True:
            for records in (await self._consumer.getmany(timeout_ms=POLL_MS)).values():
                for record in records:
                    result = Result.model_validate_json(record.value or b"")
                    future = self._waiting.pop(result.reply or 0, None)
                    if future is not None and not future.done():
                        future.set_result(result)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        answer = _bytes(await self._answer(Job.model_validate_json(body)))
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def _answer(self, job: Job) -> Result:
        self._number += 1
        number = self._number
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        await self._producer.send(f"{self._prefix}jobs", _bytes(job.model_copy(update={"reply": number})))
        return await future


async def serve_front(servers: str, prefix: str, port: int) -> None:
    """HTTP on `port`, until it is killed."""
    front = Front(servers, prefix)
    await front.start()
    reading = asyncio.create_task(front.read_replies())
    config = uvicorn.Config(front, port=port, loop="none", lifespan="off", ws="none", log_level="critical", access_log=False)
    await uvicorn.Server(config).serve()
    await ended(reading)


def main(arguments: list[str]) -> None:
    """ROLE SERVERS PREFIX, then the port of the front, the node's address for the worker."""
    role, servers, prefix, *rest = arguments
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    if role == "front":
        uvloop.run(serve_front(servers, prefix, int(rest[0])))
    else:
        uvloop.run(serve_hop(role, servers, prefix, Node(rest[0]) if rest else None))


if __name__ == "__main__":
    main(sys.argv[1:])
