"""Promise: a program that works with the simulator finds the same fields, reasons and status codes at a real Ollama.

How: one script of requests, sent to both; names of fields, done reasons and status codes are compared, not texts or times.
Needs the real Ollama that `make ollama` installs.
"""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.support.simulated_node import PLAIN, STEADY, http_node

pytestmark = [pytest.mark.ollama, pytest.mark.alone]

MODEL = "tiny"
"""Random weights: free text runs to `num_predict`, answers by schema are valid."""

THREE = {"num_predict": 3, "temperature": 0.0}
"""Tokens, always the same ones: a drawn text may be empty."""
VARYING = {"context", "load_duration", "thinking", "eval_count", "eval_duration"}
"""Fields whose presence depends on the model, its state or the text."""
SCRIPT: dict[str, tuple[str, dict[str, Any]]] = {
    "preload": ("chat", {"messages": []}),
    "stream": ("chat", {"messages": [{"role": "user", "content": "hi"}], "options": THREE}),
    "logprobs": ("chat", {"messages": [{"role": "user", "content": "hi"}], "options": THREE, "logprobs": True}),
    "whole": ("chat", {"messages": [{"role": "user", "content": "hi"}], "options": THREE, "stream": False}),
    "generate": ("generate", {"prompt": "hi", "options": THREE}),
    "schema": ("generate", {"prompt": "hi", "format": {"type": "boolean"}, "stream": False}),
    "bad schema": ("generate", {"prompt": "hi", "format": {"type": "nonsense"}}),
    "bad format": ("generate", {"prompt": "hi", "format": "xml"}),
    "option type": ("generate", {"prompt": "hi", "options": {"temperature": "hot"}}),
    "embed a chat model": ("embed", {"input": "hi"}),
    "embed nowhere": ("embed", {"model": "no-such-model", "input": "hi"}),
    "messages": ("chat", {"messages": "hi"}),
    "thinking": ("chat", {"messages": [{"role": "user", "content": "hi"}], "think": True}),
    "tools": ("chat", {"messages": [{"role": "user", "content": "hi"}], "tools": [{"type": "function", "function": {"name": "f"}}]}),
    "show nowhere": ("show", {"model": "no-such-model"}),
    "keep alive": ("generate", {"prompt": "hi", "keep_alive": "soon"}),
    "unknown model": ("chat", {"model": "no-such-model", "messages": []}),
    "no model": ("chat", {"model": "", "messages": []}),
    "unload": ("generate", {"keep_alive": 0}),
}


async def observed(http: httpx.AsyncClient, model: str, route: str, body: dict[str, Any]) -> dict[str, Any]:
    """What a program can rely on of one answer."""
    answer = await http.post(f"/api/{route}", json={"model": model} | body)
    lines = [json.loads(line) for line in answer.text.splitlines() if line]
    last = lines[-1]
    return {
        "status": answer.status_code,
        "error": last.get("error", "").replace(model, "MODEL")
        if answer.status_code != 400 or "json_schema" not in answer.text
        else "schema",
        "kind": answer.headers["content-type"].split(";")[0],
        "fields": sorted(set(last) - VARYING),
        "reason": "ended" if (reason := last.get("done_reason")) in ("stop", "length") else reason,
        "parts": sorted({field for line in lines[:-1] for field in line} - VARYING),
    }


async def test_one_script_gives_the_same_picture_at_both(ollama_url: str) -> None:
    """Step by step, so that the model's state is the same, too."""
    instant = STEADY.with_(load_gb_per_second=1e6, decode_gb_per_second=1e6)
    async with (
        http_node(instant) as (url, _),
        httpx.AsyncClient(base_url=url) as simulated,
        httpx.AsyncClient(base_url=ollama_url, timeout=60) as real,
    ):
        expected = {name: await observed(real, MODEL, route, body) for name, (route, body) in SCRIPT.items()}
        found = {name: await observed(simulated, PLAIN.name, route, body) for name, (route, body) in SCRIPT.items()}
    assert found == expected
