"""Promises, of every dialect (simulated, virtual time):

- Whoever waits for an answer and leaves ends its generation: its node sees that within 100 ms. What goes on behind nobody's leaving ends.
- The stream of a durable job goes on at another ingress, or at the same one after its restart, without a character lost or repeated.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from infra.lab.simulators.ollama.call import Call
from services.ingress.dialects import served
from shared.contracts.event import EVENT, JobSettled
from shared.contracts.result import Status
from shared.kafka.port import TopicPartition
from tests.contract.test_ingress_disconnect import ASKS
from tests.simulated.test_operator_patterns import called
from tests.support.cluster import nodes, processes
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.rest import Request
from tests.support.cluster.world import World

pytestmark = pytest.mark.usefixtures("quiet")

AT_ONCE_SECONDS = 0.1
DETACHED = (b"x-tutti-detach", b"true")
JOBS, RESPONSES = "/v1/jobs", "/v1/responses"


@asynccontextmanager
async def cluster(seed: int) -> AsyncIterator[World]:
    async with World(seed, FaultMix()) as world:
        world.start_all()
        assert await world.until(lambda: all(found.service.readiness().ready for found in world.instances.values()), 60.0)
        yield world


def asking(path: str, words: str, *, stream: bool, **more: Any) -> dict[str, Any]:
    body = json.loads(json.dumps(ASKS.get(path, {"prompt": "hi"})).replace('"hi"', f'"{words}"'))
    return {**body, "model": nodes.MODEL, "stream": stream, **more} | ({"max_tokens": 4_000} if path == "/v1/messages" else {})


FOREGROUND = {f"{path} {'streamed' if stream else 'whole'}": (path, stream) for path in ASKS for stream in (False, True)}
BACKGROUND: dict[str, tuple[str, bool, dict[str, Any], tuple[tuple[bytes, bytes], ...]]] = {
    **{f"{path} {'streamed' if stream else 'whole'}, detached": (path, stream, {}, (DETACHED,)) for path, stream in FOREGROUND.values()},
    **{f"{path} with a key": (path, True, {}, ((b"idempotency-key", path.encode()),)) for path in ASKS},
    "a response in the background": (RESPONSES, False, {"background": True}, ()),
    "a response in the background, streamed": (RESPONSES, True, {"background": True}, ()),
    "a job": (JOBS, False, {}, ()),
    "a job that is waited for": (f"{JOBS}?wait=60", False, {}, ()),
}


def running(world: World) -> int:
    return sum(node.running for node in world.nodes.values())


def ends(world: World) -> list[Status]:
    """Of all jobs."""
    topic = world.topics.job_events
    records = [
        one for number in range(world.log.partition_count(topic)) for one in world.log.existing(TopicPartition(topic, number)).records
    ]
    events = [EVENT.validate_json(one.value) for one in records if one.value is not None]
    return [event.result.status for event in events if isinstance(event, JobSettled)]


async def begun(world: World, requests: list[Request]) -> list[Call]:
    """They are sent, and nodes generate: what they work on."""
    for request in requests:
        world.call("ingress-1", request.run(world.instances["ingress-1"].service.asgi()))
    assert await world.until(lambda: running(world) == len(requests), 20.0), [request.answer for request in requests]
    await asyncio.sleep(0.5)
    return [call for node in world.nodes.values() for call in node._calls if not (call.ended or call.complete or call.gone)]


def test_every_dialect_is_here() -> None:
    assert {path for path, _ in FOREGROUND.values()} == {dialect.path for dialect in served() if dialect.operation != "embed"}


def test_leaving_ends_what_one_waits_for_at_its_node() -> None:
    """Within 100 ms, in every dialect."""

    async def scenario() -> None:
        async with cluster(5) as world:
            for way, (path, stream) in FOREGROUND.items():
                request = Request("POST", path, asking(path, nodes.ENDLESS, stream=stream))
                [call] = await begun(world, [request])
                left_at = world.clock.monotonic()
                request.leaving.set()
                while running(world):
                    await asyncio.sleep(0.001)
                    assert world.clock.monotonic() - left_at <= AT_ONCE_SECONDS, way
                assert call.gone, way

    processes.run(scenario())


def test_leaving_ends_nothing_that_goes_on_behind() -> None:
    """It is generated to its end, in every dialect."""

    async def scenario() -> None:
        async with cluster(5) as world:
            ways = list(BACKGROUND.values())
            for batch in (ways[::2], ways[1::2]):
                requests = [
                    Request("POST", path, asking(path.partition("?")[0], nodes.LONG, stream=stream, **more), headers)
                    for path, stream, more, headers in batch
                ]
                await begun(world, requests)
                for request in requests:
                    request.leaving.set()
                assert await world.until(lambda: running(world) == 0, 90.0)
                await asyncio.sleep(2.0)
            assert ends(world) == [Status.SUCCEEDED] * len(ways)

    processes.run(scenario())


class Stream:
    """One reader of a job's stream, in one of two forms: `?starting_after=` a number, or `Last-Event-ID`."""

    def __init__(self, form: str, name: str) -> None:
        self.form, self.name = form, name
        self.text = ""
        self.last: str | None = None
        self.over = False

    @property
    def request(self) -> Request:
        """To go on behind what was read."""
        if self.form == RESPONSES:
            after = "" if self.last is None else f"&starting_after={self.last}"
            return Request("GET", f"{RESPONSES}/{self.name}?stream=true{after}")
        headers = () if self.last is None else ((b"last-event-id", self.last.encode()),)
        return Request("GET", f"{JOBS}/{self.name}/events", headers=headers)

    def read(self, body: bytes) -> None:
        """All events that are whole."""
        for block in body.decode(errors="ignore").split("\n\n")[:-1]:
            lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
            if "data" in lines:
                self._told(lines.get("event", ""), json.loads(lines["data"]))
            self.last = lines.get("id", self.last)

    def _told(self, kind: str, data: dict[str, Any]) -> None:
        if self.form == RESPONSES:
            number = data["sequence_number"]
            assert self.last is None or number > int(self.last), "an event is told twice"
            self.last = str(number)
        if kind in ("chunk", "response.output_text.delta"):
            if "offset" in data:
                assert data["offset"] == len(self.text), "text is lost, or told twice"
            self.text += data["text" if kind == "chunk" else "delta"]
        self.over = self.over or kind in ("job_settled", "response.completed")


async def submitted(world: World, form: str) -> Stream:
    more: dict[str, Any] = {"stream": False, "background": True} if form == RESPONSES else {"stream": True}
    body = asking(form, nodes.LONG, **more)
    made = await called(world, Request("POST", form, body))
    return Stream(form, made.json["id"])


async def whole(world: World, stream: Stream) -> str:
    """The answer, as it is when all is over."""
    path = f"{stream.form}/{stream.name}"
    assert await world.until(lambda: running(world) == 0, 60.0)
    await asyncio.sleep(2.0)
    found = (await called(world, Request("GET", path))).json
    text = found["output"][0]["content"][0]["text"] if stream.form == RESPONSES else found["result"]["answer"]["text"]
    return str(text)


@pytest.mark.parametrize("blow", ["kill", "stop"])
@pytest.mark.parametrize("form", [RESPONSES, JOBS])
@pytest.mark.parametrize("seed", range(2))
def test_a_stream_goes_on_behind_a_restart(form: str, blow: str, seed: int) -> None:
    """Whichever instance is asked, again and again, wherever in an event the connection broke."""
    random = Random(seed)

    async def scenario() -> None:
        async with cluster(seed) as world:
            stream = await submitted(world, form)
            assert await world.until(lambda: running(world) == 1, 20.0)
            for _ in range(4):
                request, door = stream.request, random.choice(["ingress-1", "ingress-2"])
                world.call(door, request.run(world.instances[door].service.asgi()))
                await asyncio.sleep(random.uniform(0.5, 4.0))
                if blow == "kill":
                    world.kill(door)
                    request.answer.body = request.answer.body[: random.randint(0, len(request.answer.body))]
                else:
                    await world.stop(door)
                stream.read(request.answer.body)
                world.start(door)
                ready = world.instances[door].service.readiness
                assert await world.until(lambda ready=ready: ready().ready, 60.0)  # type: ignore[misc]
            text = await whole(world, stream)
            while not stream.over:
                last = stream.request
                task = world.call("ingress-1", last.run(world.instances["ingress-1"].service.asgi()))
                assert task is not None
                await asyncio.wait_for(task, 120.0)
                assert last.answer.status == 200, last.answer
                stream.read(last.answer.body)
            assert stream.text == text

    processes.run(scenario())
