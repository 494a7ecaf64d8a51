"""Promise: a program that works with the simulator finds the same fields, reasons and status codes at a real Ollama.

How: one script of requests, sent to both; names of fields, done reasons and status codes are compared, not texts or times.
Needs a real Ollama at OLLAMA_HOST with a chat model (OLLAMA_TEST_MODEL, or the first that can complete).
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.support.simulated_node import SMALL, STEADY, http_node

pytestmark = pytest.mark.ollama

VARYING = {"prompt_eval_cached_count", "context", "load_duration", "thinking", "eval_count", "eval_duration"}
"""Fields whose presence depends on the model, its state or the text."""
SCRIPT: dict[str, tuple[str, dict[str, Any]]] = {
    "preload": ("chat", {"messages": []}),
    "stream": ("chat", {"messages": [{"role": "user", "content": "hi"}], "options": {"num_predict": 3}}),
    "whole": ("chat", {"messages": [{"role": "user", "content": "hi"}], "options": {"num_predict": 3}, "stream": False}),
    "generate": ("generate", {"prompt": "hi", "options": {"num_predict": 3}}),
    "schema": ("generate", {"prompt": "hi", "format": {"type": "boolean"}, "stream": False}),
    "bad schema": ("generate", {"prompt": "hi", "format": {"type": "nonsense"}}),
    "bad format": ("generate", {"prompt": "hi", "format": "xml"}),
    "option type": ("generate", {"prompt": "hi", "options": {"temperature": "hot"}}),
    "keep alive": ("generate", {"prompt": "hi", "keep_alive": "soon"}),
    "unknown model": ("chat", {"model": "no-such-model", "messages": []}),
    "no model": ("chat", {"model": "", "messages": []}),
    "unload": ("generate", {"keep_alive": 0}),
}


def _real_url() -> str:
    host = os.environ.get("OLLAMA_HOST", "127.0.0.1:11434")
    return host if host.startswith("http") else f"http://{host}"


@pytest.fixture
async def real() -> AsyncIterator[tuple[httpx.AsyncClient, str]]:
    async with httpx.AsyncClient(base_url=_real_url(), timeout=60) as http:
        try:
            version = (await http.get("/api/version")).json()["version"]
        except httpx.TransportError:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"no Ollama at {_real_url()}")
        if "simulated" in version:
            pytest.skip("the Ollama at OLLAMA_HOST is a simulator")
        yield http, await _chat_model(http)


async def _chat_model(http: httpx.AsyncClient) -> str:
    if named := os.environ.get("OLLAMA_TEST_MODEL"):
        return named
    for model in (await http.get("/api/tags")).json()["models"]:
        shown = (await http.post("/api/show", json={"model": model["name"]})).json()
        if "completion" in shown.get("capabilities", []):
            return str(model["name"])
    pytest.skip("the Ollama has no chat model")


async def observed(http: httpx.AsyncClient, model: str, route: str, body: dict[str, Any]) -> dict[str, Any]:
    """What a program can rely on of one answer."""
    answer = await http.post(f"/api/{route}", json={"model": model} | body)
    lines = [json.loads(line) for line in answer.text.splitlines() if line]
    last = lines[-1]
    return {
        "status": answer.status_code,
        "kind": answer.headers["content-type"].split(";")[0],
        "fields": sorted(set(last) - VARYING),
        "reason": last.get("done_reason"),
        "parts": sorted({field for line in lines[:-1] for field in line} - VARYING),
    }


async def test_one_script_gives_the_same_picture_at_both(real: tuple[httpx.AsyncClient, str]) -> None:
    """Step by step, so that the model's state is the same, too."""
    http, model = real
    instant = STEADY.with_(load_gb_per_second=1e6, decode_gb_per_second=1e6)
    async with http_node(instant) as (url, _), httpx.AsyncClient(base_url=url) as simulated:
        for name, (route, body) in SCRIPT.items():
            expected = await observed(http, model, route, body)
            assert (name, await observed(simulated, SMALL.name, route, body)) == (name, expected)
