"""The official `openai` client as judge of embeddings and completions; what the cluster has not is refused by name."""

from __future__ import annotations

import base64
import struct
from typing import Any

import openai
import pytest

from tests.contract.test_ollama_client import COLOURS, EMBEDDER, VECTORS, colours, embedder
from tests.contract.test_openai_client import client, job_of
from tests.support.ingress_world import world


async def test_embeddings_in_order_as_numbers_and_packed() -> None:
    """The client asks for base64 by itself."""
    async with world(script=embedder, nodes=(EMBEDDER,)) as at:
        found = await client(at).embeddings.create(model="tiny:1", input=["b", "a"])
        assert [(one.index, tuple(one.embedding)) for one in found.data] == [(0, VECTORS["b"]), (1, VECTORS["a"])]
        assert (found.usage.prompt_tokens, found.usage.total_tokens) == (3, 3)
        asked: dict[str, Any] = {"model": "tiny:1", "input": "a"}
        plain = (await at.client.post("/v1/embeddings", json=asked)).json()["data"][0]["embedding"]
        packed = (await at.client.post("/v1/embeddings", json=asked | {"encoding_format": "base64"})).json()["data"][0]["embedding"]
        assert (tuple(plain), struct.unpack("<2f", base64.b64decode(packed))) == (VECTORS["a"], VECTORS["a"])


@pytest.mark.parametrize("given", [[1, 2], [[1, 2], [3]], []])
async def test_tokens_are_no_texts(given: Any) -> None:
    """Nor is nothing."""
    async with world(script=embedder, nodes=(EMBEDDER,)) as at:
        with pytest.raises(openai.BadRequestError, match="input"):
            await client(at).embeddings.create(model="tiny:1", input=given)
        assert not at.planner.jobs


async def test_completions_whole_and_streamed() -> None:
    """One prompt, its answer; the stream says the same."""
    async with world(script=colours) as at:
        whole = await client(at).completions.create(model="tiny:1", prompt="Colours:", max_tokens=9, stop="END")
        assert (whole.choices[0].text, whole.choices[0].finish_reason, whole.usage and whole.usage.completion_tokens) == (
            COLOURS.text,
            "stop",
            5,
        )
        job = job_of(at)
        assert (job.kind, job.prompt, job.options.max_tokens, job.options.stop) == ("generate", "Colours:", 9, ("END",))
        text, usage = "", None
        stream = await client(at).completions.create(
            model="tiny:1", prompt=["Colours:"], stream=True, stream_options={"include_usage": True}
        )
        async for chunk in stream:
            text += "".join(choice.text for choice in chunk.choices)
            usage = chunk.usage or usage
        assert (text, usage and usage.prompt_tokens) == (COLOURS.text, 3)


async def test_what_is_not_supported_is_refused_by_name() -> None:
    """Parameters of completions and embeddings; whole routes."""
    async with world() as at:
        for more in ({"suffix": "x"}, {"n": 2}, {"echo": True}, {"prompt": ["a", "b"]}, {"prompt": [1, 2]}):
            answer = await at.client.post("/v1/completions", json={"model": "tiny:1", "prompt": "x"} | more)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(more)))
        answer = await at.client.post("/v1/embeddings", json={"input": "x", "dimensions": 8, "model": "auto"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "dimensions")
        for path in ("rerank", "audio/speech", "images/generations"):
            answer = await at.client.post(f"/v1/{path}", json={})
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported")
