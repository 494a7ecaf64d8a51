"""Bodies of what services are asked: whole, within bytes and time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import Request

from shared.errors import TooLarge
from shared.problem import Refused
from shared.service import answering


def request(*pieces: bytes, ends: bool = True) -> Request:
    left = list(pieces)

    async def receive() -> dict[str, Any]:
        if not left:
            await asyncio.Event().wait()
        piece = left.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(left) or not ends}

    return Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive)


async def test_a_body_is_bounded_in_bytes_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await answering.body_of(request(b"a", b"b")) == b"ab"
    with pytest.raises(TooLarge):
        await answering.body_of(request(b"x" * 100_000))
    monkeypatch.setattr(answering, "_BODY_SECONDS", 0.05)
    with pytest.raises(Refused) as caught:
        await answering.body_of(request(b"a", ends=False))
    assert caught.value.problem.status == 408
