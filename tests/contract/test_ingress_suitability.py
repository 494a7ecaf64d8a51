"""What no registered node could answer is refused at the door: over `/v1/chat/completions`, plain and streamed, and `/v1/jobs`."""

from __future__ import annotations

from typing import Any

import pytest

from shared.contracts.failure import Failure, FailureKind
from shared.contracts.node import Node, NodeModel
from shared.contracts.result import Status
from tests.contract.test_ingress_chat import CHAT, body
from tests.support.fake_planner import Script
from tests.support.ingress_world import node, world

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
LOOK = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}]
LONG = [{"role": "user", "content": "word " * 5_000}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
UNABLE = {"vision": False, "tools": False}


def plain_node(**fields: Any) -> Node:
    model = NodeModel(**{"name": "tiny:1", "window": 4_096, "abilities": UNABLE, **fields})
    return node().model_copy(update={"models": (model,)})


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"messages": LONG}, "context_length_exceeded", "messages"),
        ({"messages": [{"role": "user", "content": LOOK}]}, "unsupported", "messages"),
        ({"tools": [TOOL]}, "unsupported", "tools"),
    ],
)
@pytest.mark.parametrize("model", ["tiny:1", "auto"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_nobody_can_answer_is_400(fields: dict[str, Any], code: str, param: str, model: str, stream: bool) -> None:
    """One that clients do not try again; nothing is queued. Where a node could, it is asked."""
    async with world(nodes=(plain_node(),)) as at:
        error = (refused := await at.client.post(CHAT, json=body(**fields, model=model, stream=stream))).json()["error"]
        assert (refused.status_code, error["type"], error["code"], error["param"]) == (400, "invalid_request_error", code, param)
        assert not at.planner.jobs
    able = plain_node(window=100_000, abilities={"vision": True, "tools": True})
    async with world(nodes=(plain_node(), able.model_copy(update={"id": "away", "reachable": False}))) as at:
        assert (await at.client.post(CHAT, json=body(**fields, model=model, stream=stream))).status_code == 200


async def test_a_job_is_judged_alike() -> None:
    """`/v1/jobs` too, by prompt or messages."""
    async with world(nodes=(plain_node(),)) as at:
        for job in ({"messages": LONG}, {"prompt": "word " * 5_000}):
            response = await at.client.post("/v1/jobs", json=job)
            assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")
        assert (
            await at.client.post("/v1/jobs", json={"messages": LONG, "model": "tiny:1", "fallback_models": ["large"]})
        ).status_code == 202
        assert len(at.planner.jobs) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_node_counts_is_the_same_refusal(stream: bool) -> None:
    """Between the bound and the window only the node knows: its word has the same status, code and window."""
    failure = Failure(kind=FailureKind.CONTEXT_LENGTH, message="the prompt has 5000 tokens", window=4_096)
    async with world(script=lambda _job: Script(status=Status.FAILED, failure=failure)) as at:
        response = await at.client.post(CHAT, json=body(stream=stream))
        error = response.json()["error"]
        assert (response.status_code, error["type"], error["code"]) == (400, "invalid_request_error", "context_length_exceeded")
        assert error["window"] == 4_096
        assert "maximum context length is 4096 tokens" in error["message"]
