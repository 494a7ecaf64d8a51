"""`tutti conversations`: what is shown, exported and forgotten."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from infra.cli.exits import Exit
from infra.cli.main import main
from infra.cli.rest import Api

SHOWN: dict[str, Any] = {"id": "trip", "tenant": "a", "turns": 7, "running": "order-1", "waiting": 2, "changed_at": 1.0}
KEPT = {
    **SHOWN,
    "summary": "they plan a trip",
    "facts": ["a vegetarian", "two children"],
    "preferences": [],
    "messages_of": [{"job": "order-0", "at": 1.0, "messages": [{"role": "user", "content": "where to?"}]}],
    "more": False,
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every call; the answer of a DELETE stands in front."""
    found: list[Any] = [None]

    async def call(_self: Api, method: str, path: str, body: Any = None) -> Any:
        found.append((method, path, body))
        if method == "DELETE":
            return found[0]
        return {"conversations": [SHOWN]} if path == "/v1/conversations" else KEPT

    monkeypatch.setattr(Api, "call", call)
    return found


def tutti(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["conversations", *arguments], catch_exceptions=False)


def test_conversations_are_listed_and_shown(calls: list[Any]) -> None:
    listed, shown = tutti("list").output, tutti("get", "trip", "--turns", "3").output
    assert all(part in listed for part in ("trip", "a", "7", "order-1", "2"))
    assert all(part in shown for part in ("they plan a trip", "a vegetarian; two children", "order-0", "user: where to?"))
    assert "preferences" not in shown
    assert calls[-1] == ("GET", "/v1/conversations/trip?turns=3", None)


@pytest.mark.parametrize(("known", "turns", "parts"), [({}, 0, 0), ({}, 1, 1), ({"facts": ["a"]}, 0, 1), ({"facts": ["a"]}, 2, 3)])
def test_nothing_is_printed_of_what_is_not_known(known: Any, turns: int, parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known and each turn are parted by an empty line; none comes first or last."""
    turn = {"job": "j", "at": 0.0, "messages": [{"role": "user", "content": "hello"}]}
    found = {"summary": "", "facts": [], "preferences": [], "messages_of": [turn] * turns} | known
    monkeypatch.setattr("infra.cli.conversations.called", lambda *_, **__: found)
    shown = tutti("get", "trip").output
    assert shown.count("\n\n") == max(0, parts - 1)
    assert (shown.strip() == shown.removesuffix("\n"), bool(shown)) == (True, bool(parts))


def test_an_export_is_json(calls: list[Any]) -> None:
    assert json.loads(tutti("get", "trip", "--json").output) == KEPT


def test_one_is_forgotten(calls: list[Any]) -> None:
    """And what is not known yet is no success."""
    assert tutti("delete", "trip").exit_code == Exit.OK
    assert calls[-1] == ("DELETE", "/v1/conversations/trip", None)
    calls[0] = {"state": "not known yet"}
    assert tutti("delete", "trip").exit_code == Exit.TIMEOUT
