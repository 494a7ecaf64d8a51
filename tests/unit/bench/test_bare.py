"""Promise: the bare worker's node answers, also when a connection that was kept has been closed; a new one that fails is told."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from infra.lab.bench import bare
from infra.lab.bench.http_client import ConnectionLost, Response

LINES = b'40\r\n{"message":{"content":"one "}}\n{"message":{"content":"two"}}\n\r\n0\r\n\r\n'


@pytest.mark.parametrize("answers", [1, 2, 10])
def test_every_call_is_answered_whatever_became_of_kept_connections(answers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each connection answers so many calls and is found closed at the next one; what is still open is used again."""
    opened = connections(answers, monkeypatch)

    async def ask() -> list[str]:
        node = bare.Node("http://node")
        return [await node.answer("m", "hello") for _ in range(10)]

    assert asyncio.run(ask()) == ["one two"] * 10
    assert next(opened) == 10 // answers


def test_a_node_that_answers_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    connections(0, monkeypatch)
    with pytest.raises(ConnectionLost):
        asyncio.run(bare.Node("http://node").answer("m", "hello"))


def connections(answers: int, monkeypatch: pytest.MonkeyPatch) -> count[int]:
    """How many were opened, as the next number."""
    opened = count()

    class Connection:
        def __init__(self, *_: object) -> None:
            next(opened)
            self._left = answers

        async def call(self, body: bytes) -> Response:
            if not self._left:
                raise ConnectionLost
            self._left -= 1
            return Response(200, LINES, 0.0, None, 1.0)

    monkeypatch.setattr(bare, "Caller", Connection)
    return opened
