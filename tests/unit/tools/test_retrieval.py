"""The retrieval tool: an operator's endpoint, asked for passages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic_core import to_json

from services.worker.backends.base import ModelCallFailed
from services.worker.tools.calling import ToolCall
from services.worker.tools.declared import RetrievalTool
from services.worker.tools.retrieval import Retrieval
from shared.contracts.failure import FailureKind as K
from shared.errors import ConfigurationError
from tests.unit.worker.fake_endpoint import FakeEndpoint, Reply, fake_endpoint


@pytest.fixture
async def fake() -> AsyncIterator[FakeEndpoint]:
    async with fake_endpoint() as endpoint:
        yield endpoint


async def ask(fake: FakeEndpoint, query: Any = "fish", **terms: Any) -> str:
    tool = Retrieval(RetrievalTool(kind="retrieval", url=f"{fake.url}/find", **terms), 4)
    try:
        return await tool.call(ToolCall({"query": query}, "s"))
    finally:
        await tool.close()


async def test_passages_are_numbered_with_their_sources(fake: FakeEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many as are declared, whatever comes."""
    monkeypatch.setenv("FIND_TOKEN", "secret")
    passages = [{"text": "one", "source": "a.txt"}, {"text": "two"}, {"text": 3}, {"text": "four"}]
    fake.replies["/find"] = Reply((to_json({"passages": passages}),))
    assert await ask(fake, passages=3, token_env="FIND_TOKEN") == "[1] (a.txt)\none\n\n[2]\ntwo\n\n[3]\n"
    [(_, asked, headers)] = fake.asked
    assert (asked, headers["Authorization"]) == ({"query": "fish", "count": 3}, "Bearer secret")


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply((b'{"found": []}',)), K.MODEL_ERROR),
        (Reply((b"<html>",)), K.BROKEN_STREAM),
        (Reply((b"{}",), status=500), K.MODEL_ERROR),
        (Reply((b'{"passages":',), cut=True), K.BROKEN_STREAM),
    ],
)
async def test_what_is_no_answer(fake: FakeEndpoint, reply: Reply, kind: K) -> None:
    fake.replies["/find"] = reply
    with pytest.raises(ModelCallFailed) as caught:
        await ask(fake)
    assert caught.value.kind is kind


async def test_nothing_found(fake: FakeEndpoint) -> None:
    fake.replies["/find"] = Reply((b'{"passages": []}',))
    assert await ask(fake) == "nothing was found"


async def test_wrong_arguments_and_a_token_that_is_not_there(fake: FakeEndpoint) -> None:
    """Neither asks the endpoint."""
    with pytest.raises(ModelCallFailed, match="`query` is a text"):
        await ask(fake, query=3)
    with pytest.raises(ConfigurationError, match="NO_SUCH_TOKEN"):
        await ask(fake, token_env="NO_SUCH_TOKEN")
    assert fake.asked == []
