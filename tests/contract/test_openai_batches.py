"""The official `openai` client as judge of files and batches: with a real planner and a pretended node, in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx2
import openai
import pytest
from openai.types import Batch

from services.ingress.dialects.openai.batches import BatchRequest
from services.ingress.http import uploads
from services.ingress.routes import batch_input, telling
from services.ingress.routes.batch_input import Splitter
from services.planner.settings import PlannerSettings
from shared.clock import SystemClock
from tests.support.ingress_world import node, opening, register, running, until
from tests.support.planner_world import World

CHAT = "/v1/chat/completions"
CLOCK = SystemClock()


class At(NamedTuple):
    planner: World
    client: openai.AsyncOpenAI

    def of(self, tenant: str) -> openai.AsyncOpenAI:
        return self.client.with_options(default_headers={"x-tutti-tenant": tenant})


@asynccontextmanager
async def batching(**settings: Any) -> AsyncIterator[At]:
    async with World(homes=2, options=PlannerSettings(**settings)) as planner:
        planner.start("planner")
        await register(planner.log, planner.topics, node())
        ingress = opening(planner)
        async with running(ingress):
            await until(lambda: ingress.door.registry.complete and len(list(ingress.door.registry.table)) == 1, "nodes", 20)
            http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=ingress.asgi()))
            yield At(planner, openai.AsyncOpenAI(api_key="none", base_url="http://test/v1", http_client=http, max_retries=0))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "SEEN_SECONDS", 0.1)
    monkeypatch.setattr(telling, "WAIT_SECONDS", 20.0)


def line(name: str | None, url: str = CHAT, **body: Any) -> str:
    asked = {"model": "tiny:1", "messages": [{"role": "user", "content": f"say {name}"}], **body}
    return json.dumps({"custom_id": name, "method": "POST", "url": url, "body": asked})


async def upload(client: openai.AsyncOpenAI, lines: list[str]) -> str:
    return (await client.files.create(file=("in.jsonl", "\n".join(lines).encode()), purpose="batch")).id


async def made(client: openai.AsyncOpenAI, lines: list[str], endpoint: Any = CHAT) -> Batch:
    return await client.batches.create(input_file_id=await upload(client, lines), endpoint=endpoint, completion_window="24h")


async def over(client: openai.AsyncOpenAI, batch: Batch, seconds: float = 30.0) -> Batch:
    async with asyncio.timeout(seconds):
        while batch.status not in {"completed", "failed", "cancelled", "expired"}:
            await CLOCK.sleep(0.05)
            batch = await client.batches.retrieve(batch.id)
    return batch


async def rows(client: openai.AsyncOpenAI, file: str | None) -> dict[str | None, Any]:
    if file is None:
        return {}
    text = (await client.files.content(file)).text
    found = [json.loads(row) for row in text.splitlines()]
    assert len({row["custom_id"] for row in found if row["custom_id"]}) == len([row for row in found if row["custom_id"]])
    return {row["custom_id"]: row for row in found}


def counts(batch: Batch) -> tuple[int, int, int]:
    assert batch.request_counts is not None
    return batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed


async def test_good_and_bad_lines() -> None:
    """Each has one row: a good one as the endpoint answers, a bad one with 400 and its custom_id; the batch is completed."""
    async with batching() as at:
        good = [line(f"good-{number}") for number in range(5)]
        bad = [
            line("hot", temperature=999),
            line("away", url="/v1/embeddings"),
            line("nobody", model="nobody:7b"),
            "{no json",
            line("s", stream=True),
        ]
        batch = await made(at.client, [*good, "", *bad])
        assert (batch.object, batch.endpoint, batch.completion_window) == ("batch", CHAT, "24h")
        batch = await over(at.client, batch)
        assert (batch.status, counts(batch)) == ("completed", (10, 5, 5)), batch
        done, failed = await rows(at.client, batch.output_file_id), await rows(at.client, batch.error_file_id)
        assert set(done) == {f"good-{number}" for number in range(5)}
        assert all(row["response"]["status_code"] == 200 and row["error"] is None for row in done.values())
        assert all("from" in row["response"]["body"]["choices"][0]["message"]["content"] for row in done.values())
        codes = {name: (row["response"]["status_code"], row["response"]["body"]["error"]["code"]) for name, row in failed.items()}
        assert codes["hot"] == (400, "invalid_input")
        assert codes["away"] == (400, "invalid_url")
        assert codes["nobody"] == (404, "model_not_found")
        assert codes[None] == (400, "invalid_json_line")
        assert codes["s"] == (400, "unsupported")
        assert len(at.planner.node.steps_seen) == 5
        assert {step.priority_class for step in at.planner.node.steps_seen} == {"batch"}


async def test_other_endpoints_and_large_lines() -> None:
    """Completions and embeddings; a line above the inline bound travels by reference."""
    async with batching() as at:
        prompt = json.dumps({"custom_id": "p", "method": "POST", "url": "/v1/completions", "body": {"model": "tiny:1", "prompt": "once"}})
        batch = await over(at.client, await made(at.client, [prompt], "/v1/completions"))
        done = await rows(at.client, batch.output_file_id)
        assert done["p"]["response"]["body"]["object"] == "text_completion"
        large = line("large", messages=[{"role": "user", "content": "word " * 40_000}])
        batch = await over(at.client, await made(at.client, [large]))
        assert counts(batch) == (1, 1, 0)
        with pytest.raises(openai.BadRequestError):
            await made(at.client, [prompt], "/v1/responses")


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ([line("a"), line("b"), line("a")], "duplicate_custom_id"),
        (["", " "], "empty_file"),
        ([line(str(n)) for n in range(4)], "too_many_lines"),
    ],
)
async def test_a_file_that_is_none(lines: list[str], code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch has failed, says why, and runs nothing."""
    monkeypatch.setattr(batch_input, "MOST_LINES", 3)
    async with batching() as at:
        batch = await made(at.client, lines)
        assert batch.status == "failed"
        assert batch.errors is not None
        assert [error.code for error in batch.errors.data or ()] == [code]
        assert (batch.output_file_id, batch.error_file_id, at.planner.node.steps_seen) == (None, None, [])


async def test_a_cancelled_batch() -> None:
    """What was not run is in the error file; nothing more begins."""
    async with batching(batch_lines=8) as at:
        at.planner.node.seconds = (600.0, 600.0)
        batch = await made(at.client, [line(str(number)) for number in range(20)])
        await until(lambda: len(at.planner.node.steps_seen) == 8, "as many run as may be open", 20)
        assert (await at.client.batches.retrieve(batch.id)).status == "in_progress"
        assert (await at.client.batches.cancel(batch.id)).status in {"cancelling", "cancelled"}
        batch = await over(at.client, batch)
        assert (batch.status, batch.output_file_id) == ("cancelled", None)
        failed = await rows(at.client, batch.error_file_id)
        assert set(failed) == {str(number) for number in range(20)}
        assert {row["error"]["code"] for row in failed.values()} == {"batch_cancelled"}
        assert len(at.planner.node.steps_seen) == 8


async def test_an_expired_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not done in the window is said to be so, each line by its name."""
    monkeypatch.setattr(BatchRequest, "window_seconds", lambda _: 0.5)
    async with batching(batch_lines=8) as at:
        at.planner.node.seconds = (600.0, 600.0)
        batch = await over(at.client, await made(at.client, [line(str(number)) for number in range(12)]))
        assert (batch.status, counts(batch)[1], batch.output_file_id) == ("expired", 0, None)
        failed = await rows(at.client, batch.error_file_id)
        assert {name: row["error"]["code"] for name, row in failed.items()} == dict.fromkeys(map(str, range(12)), "batch_expired")


async def test_every_line_once_though_the_planner_dies() -> None:
    """Again and again, in the middle of it."""
    async with batching(batch_lines=16) as at:
        at.planner.node.seconds = (0.0, 0.1)
        batch = await made(at.client, [line(f"c{number}") for number in range(150)])
        for _ in range(3):
            await CLOCK.sleep(0.3)
            at.planner.kill("planner")
            at.planner.start("planner")
        batch = await over(at.client, batch, 90)
        assert (batch.status, counts(batch)) == ("completed", (150, 150, 0))
        assert set(await rows(at.client, batch.output_file_id)) == {f"c{number}" for number in range(150)}


async def test_files() -> None:
    """Listed, looked at, read, deleted; another tenant's are not there."""
    async with batching() as at:
        content = [line("é" * 100)] * 3
        name = await upload(at.client, content)
        file = await at.client.files.retrieve(name)
        assert (file.filename, file.purpose, file.bytes) == ("in.jsonl", "batch", len("\n".join(content).encode()))
        assert (await at.client.files.content(name)).content == "\n".join(content).encode()
        assert [found.id async for found in await at.client.files.list()] == [name]
        other = at.of("other")
        assert [found.id async for found in await other.files.list()] == []
        for ask in (other.files.retrieve(name), other.files.content(name), other.files.delete(name), at.client.files.retrieve("file-none")):
            with pytest.raises(openai.NotFoundError) as refused:
                await ask
            assert isinstance(refused.value.body, dict)
            assert refused.value.body["type"] == "invalid_request_error"
        batch = await over(at.client, await made(at.client, [line("a")]))
        with pytest.raises(openai.NotFoundError):
            await other.batches.retrieve(batch.id)
        assert [found.id async for found in await at.client.batches.list()] == [batch.id]
        assert [found.id async for found in await other.batches.list()] == []
        made_files = [found.id async for found in await at.client.files.list(purpose="batch_output")]
        assert made_files == [batch.output_file_id]
        assert (await at.client.files.delete(name)).deleted
        with pytest.raises(openai.NotFoundError):
            await at.client.files.retrieve(name)
        with pytest.raises(openai.BadRequestError, match="purpose"):
            await at.client.files.create(file=("a.txt", b"x"), purpose="assistants")


async def test_an_erased_tenant_has_none() -> None:
    """Its files go, and its owner forgets its batches, also one that runs."""
    async with batching() as at:
        at.planner.node.seconds = (600.0, 600.0)
        batch = await made(at.client, [line("a")])
        erased: Any = await at.client.post("/tenants/default/erase", cast_to=object, body={"dry_run": False})
        assert {part["what"]: part["count"] for part in erased["goes"] if part["what"] in {"batches", "files"}} == {
            "batches": 1,
            "files": 1,
        }
        assert [file async for file in await at.client.files.list()] == []
        async with asyncio.timeout(20):
            while [found.id async for found in await at.client.batches.list()]:
                await CLOCK.sleep(0.05)
        with pytest.raises(openai.NotFoundError):
            await at.client.batches.retrieve(batch.id)


async def test_the_same_key_is_the_same_batch() -> None:
    """Of a client that asks again since it has heard nothing."""
    async with batching() as at:
        file, head = await upload(at.client, [line("a")]), {"idempotency-key": "night-7"}
        asked: Any = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h", "extra_headers": head}
        first, second = await at.client.batches.create(**asked), await at.client.batches.create(**asked)
        assert first.id == second.id
        await over(at.client, first)
        assert len(at.planner.node.steps_seen) == 1


async def test_an_upload_goes_in_pieces_and_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is above it is 413; what is none is refused."""
    monkeypatch.setattr(uploads, "PIECE_BYTES", 100_000)
    monkeypatch.setattr(uploads, "FILE_BYTES", 1_000_000)
    async with batching() as at:
        body = b"x" * 999_999
        name = (await at.client.files.create(file=("x.jsonl", body), purpose="batch")).id
        assert (await at.client.files.content(name)).content == body
        with pytest.raises(openai.APIStatusError) as refused:
            await at.client.files.create(file=("x.jsonl", b"x" * 1_100_000), purpose="batch")
        assert refused.value.status_code == 413


def test_lines_are_cut_out_of_any_pieces() -> None:
    """A line that is too long is told, and the next one is found."""
    text = b"one\ntwo\n" + b"x" * 50 + b"\nthree"
    for size in (1, 2, 7, 100):
        cut = Splitter(10)
        pieces = [text[start : start + size] for start in range(0, len(text), size)] + [b"\n"]
        assert [found for piece in pieces for found in cut.feed(piece)] == [b"one", b"two", None, b"three"]
