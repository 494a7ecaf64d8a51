"""Every route that takes a body: what JSON cannot say, and numbers beyond all bounds, are the caller's mistake, told in a sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from services.ingress.dialects import served
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.port import TopicPartition
from tests.contract.test_ingress_schedules import ready
from tests.support.ingress_world import World, world

HUGE = "9" * 310
ODD = ["NaN", "Infinity", "-Infinity", "1e999", '"\\ud800"', '{"\\udfff": 1}', HUGE, "9" * 4_400, '{"a":' * 40 + "1" + "}" * 40]
FREE = {
    ("POST", "/v1/chat/completions"): [
        '{"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function", "function": {"name": "f", "a": %s}}]}',
        '{"messages": [{"role": "user"}], "response_format": {"type": "json_schema", "json_schema": {"schema": {"a": %s}}}}',
        '{"messages": [{"role": "assistant", "tool_calls": [{"a": %s}]}]}',
        '{"messages": [{"role": "user", "content": "x"}], "logit_bias": {"a": %s}}',
    ],
    ("POST", "/v1/jobs"): [
        '{"prompt": "x", "format": {"a": [%s]}}',
        '{"prompt": "x", "tools": [{"a": %s}]}',
        '{"messages": [{"role": "assistant", "tool_calls": [{"a": {"b": %s}}]}]}',
        '{"prompt": "x", "pattern": "chain", "chain": [{"name": "a", "template": "x", "format": {"a": %s}}]}',
    ],
    ("PUT", "/v1/schedules/nightly"): [
        '{"cron": "0 0 * * *", "job": {"prompt": "x", "format": {"a": %s}}}',
        '{"cron": "0 0 * * *", "job": {"prompt": "x", "tools": [{"a": [%s]}]}}',
    ],
}
NUMBERS = {
    ("POST", "/v1/chat/completions"): ['{"messages": [{"role": "user", "content": "x"}], "%s": %s}'],
    ("POST", "/v1/jobs"): [
        '{"prompt": "x", "limits": {"%s": %s}}',
        '{"prompt": "x", "needs": {"%s": %s}}',
        '{"prompt": "x", "options": {"%s": %s}}',
    ],
    ("PUT", "/v1/schedules/nightly"): ['{"cron": "0 0 * * *", "job": {"prompt": "x", "limits": {"%s": %s}}}'],
    ("PUT", "/v1/tenants/acme"): ['{"%s": %s}', '{"job": {"%s": %s}}'],
}
FIELDS = {
    "limits": ["calls", "tokens", "cost", "wall_seconds", "steps", "depth", "width", "attempts", "soft"],
    "needs": ["min_vram_bytes", "min_context"],
    "options": ["temperature", "top_k", "top_p", "seed", "max_tokens", "repeat_penalty"],
    "chat": ["max_tokens", "temperature", "seed", "n", "top_logprobs"],
    "tenant": ["calls", "tokens", "cost", "concurrent_jobs", "soft"],
}


SAID = {"messages": [{"role": "user", "content": "x"}]}
TOOLS: dict[str, tuple[dict[str, Any], Callable[[Any], Any]]] = {
    "/v1/chat/completions": (SAID, lambda name: {"type": "function", "function": {"name": name}}),
    "/v1/responses": ({"input": "x"}, lambda name: {"type": "function", "name": name}),
    "/v1/messages": (SAID | {"max_tokens": 9}, lambda name: {"name": name, "input_schema": {}}),
    "/v1/messages/count_tokens": (SAID, lambda name: {"name": name, "input_schema": {}}),
    "/api/chat": (SAID, lambda name: {"type": "function", "function": {"name": name}}),
}
"""Every route of a dialect that takes a caller's tools: the rest of its body, and a tool of this name."""
NO_NAMES: tuple[Any, ...] = ("", " ", "\t", None, 5, {})


def written(at: World) -> int:
    """Records that anybody else would read."""
    assert isinstance(at.log, MemoryLog)
    topics = [*at.topics.all_jobs(), at.topics.registry]
    return sum(len(at.log.existing(TopicPartition(topic, n)).records) for topic in topics for n in range(6) if n == 0 or "jobs" in topic)


async def refused(at: World, method: str, path: str, body: str) -> None:
    answer = await at.client.request(method, path, content=body.encode())
    message = answer.json()["error"]["message"]
    assert answer.status_code == (413 if "nested deeper" in message else 400), (path, body[:120], answer.text)
    assert HUGE not in message


def bodies() -> list[tuple[str, str, str]]:
    """Method, path, body: every free value of every route, every number of every route."""
    found = [(*route, form % text) for route, forms in FREE.items() for form in forms for text in ODD]
    for route, forms in NUMBERS.items():
        for form in forms:
            kind = "needs" if "needs" in form else "options" if "options" in form else "limits"
            kind = "chat" if "chat" in route[1] else "tenant" if form == '{"%s": %s}' else kind
            found += [(*route, form % (field, number)) for field in FIELDS[kind] for number in (HUGE, "1e308", "NaN", "-1e308")]
    return found


async def test_no_route_takes_what_json_cannot_say_or_numbers_beyond_all_bounds() -> None:
    """400 in words, nothing is written; the same body with a sensible value passes the same check."""
    async with world() as at:
        await ready(at)
        before = written(at)
        for method, path, body in bodies():
            await refused(at, method, path, body)
        assert written(at) == before


@pytest.mark.parametrize("number", ["1", "18446744073709551615", "0.5", '"NaN"', "null"])
async def test_a_sensible_value_passes(number: str) -> None:
    """Or the test above would hold for an ingress that refuses everything."""
    async with world() as at:
        await ready(at)
        for (method, path), forms in FREE.items():
            if path == "/v1/chat/completions":
                continue
            for form in forms:
                answer: Any = await at.client.request(method, path, content=(form % number).encode())
                assert answer.status_code in (200, 202), answer.text
                assert json.loads(answer.text)


async def test_a_tool_that_has_no_name_is_refused_alike_by_every_foreign_dialect() -> None:
    """Nobody could call it, and what it was called by a model could not be told from nothing."""
    bodies: list[tuple[str, type[BaseModel]]] = [(dialect.path, dialect.request) for dialect in served()]
    bodies += [(asked.path, asked.body) for dialect in served() for asked in dialect.inquiries if asked.body is not None]
    assert {path for path, body in bodies if "tools" in body.model_fields} - {"/v1/jobs"} == TOOLS.keys()
    async with world() as at:
        await ready(at)
        before = written(at)
        for path, (rest, tool) in TOOLS.items():
            for name in NO_NAMES:
                answer = await at.client.post(path, json={"model": "tiny:1", "tools": [tool("f"), tool(name)], **rest})
                assert answer.status_code == 400, (path, name, answer.text)
                assert re.search(r"tools\W+1\b|tools are functions, each with a name", answer.text), (path, name, answer.text)
            for empty in ("", " "):
                answer = await at.client.post(path, json={"model": "tiny:1", "tools": [tool(empty)], **rest})
                assert "tools are functions, each with a name" in answer.text, (path, answer.text)
        assert written(at) == before
