"""How often a prompt and an answer are written as JSON on the way of one REST chat job, and by whom.

All that services write goes through `Contract.encoded` or `to_json`; what has the marked text in it counts. What the worker sends to a real
model server is not written here (the simulated node takes the body as it is): it is the third of the prompt's.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pydantic_core
import pytest

from services.ingress import dialects
from shared.contracts.base import Contract
from tests.support.cluster import processes
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.nodes import LONG
from tests.support.cluster.rest import Request
from tests.support.cluster.world import World

ROOT = Path(__file__).parents[2]
PROMPT, ANSWER = b"a text that is told from others", b" word" * 50


class Written:
    """Who wrote a text with the mark in it."""

    def __init__(self) -> None:
        self.by: dict[bytes, list[str]] = {PROMPT: [], ANSWER: []}

    def look(self, value: bytes) -> bytes:
        for mark, writers in self.by.items():
            if mark in value and (writer := _writer()) is not None:
                writers.append(writer)
        return value


def _writer() -> str | None:
    """The service's function, or None where a test writes."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT):
            name = path.relative_to(ROOT)
            if name.parts[0] == "services":
                return f"{name}: {frame.f_code.co_name}"
            if name.parts[0] == "tests" and name != Path(__file__).relative_to(ROOT):
                return None
        frame = frame.f_back
    return None


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    dialects.served()  # they are imported when an ingress looks for them
    found = Written()
    encoded, to_json = Contract.encoded, pydantic_core.to_json
    monkeypatch.setattr(Contract, "encoded", lambda *args, **options: found.look(encoded(*args, **options)))
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("services", "shared") and getattr(module, "to_json", None) is to_json:
            monkeypatch.setattr(module, "to_json", lambda *args, **options: found.look(to_json(*args, **options)))
    return found


@pytest.mark.parametrize("model", ["tutti/auto", "small"])
def test_a_chat_job_is_written_no_more_often_than_it_must(written: Written, model: str) -> None:
    """The prompt by the ingress and the planner, once each (and to the model); the answer by the worker, the planner and the ingress."""

    async def chat() -> Request:
        async with World(0, FaultMix()) as world:
            world.start_all()
            await asyncio.sleep(5.0)
            prompt = f"{LONG}: {PROMPT.decode()}"
            request = Request("POST", "/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": prompt}]})
            [name, *_] = [name for name in world.instances if name.startswith("ingress")]
            task = world.call(name, request.run(world.instances[name].service.asgi()))
            assert task is not None
            await task
            return request

    request = processes.run(chat())
    assert request.answer.status == 200, request.answer.body
    assert ANSWER in request.answer.body
    assert len(written.by[PROMPT]) == 2, written.by[PROMPT]
    assert len(written.by[ANSWER]) == 3, written.by[ANSWER]
