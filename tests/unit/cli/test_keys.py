"""`tutti keys` against an ingress that records what it is asked."""

from __future__ import annotations

from typing import Any

import pytest

from infra.cli.rest import Api
from tests.unit.cli.test_declarations import Asked, tutti

SHOWN = {"id": "team", "tenant": "team", "role": "user", "made_at": 0.0, "by": "root", "key": "tutti_secret"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    calls: Asked = []

    async def call(_self: Api, method: str, path: str, body: Any = None) -> Any:
        calls.append((method, path, body))
        return {"keys": [SHOWN]} if (method, path) == ("GET", "/v1/keys") else SHOWN

    monkeypatch.setattr(Api, "call", call)
    return calls


def test_a_key_is_printed_where_it_is_made_and_nowhere_else(asked: Asked) -> None:
    assert tutti("keys", "create", "team", "--tenant", "team", "--ceiling", "batch").output == "tutti_secret\n"
    assert tutti("keys", "rotate", "team", "--grace-seconds", "0").output == "tutti_secret\n"
    for command in (["change", "team", "--role", "viewer"], ["revoke", "team"], ["list"]):
        assert "tutti_secret" not in tutti("keys", *command).output
    assert [(method, path) for method, path, _ in asked] == [
        ("POST", "/v1/keys"),
        ("POST", "/v1/keys/team/rotate"),
        ("PUT", "/v1/keys/team"),
        ("DELETE", "/v1/keys/team"),
        ("GET", "/v1/keys"),
    ]
    assert asked[0][2] == {"name": "team", "tenant": "team", "role": "user", "ceiling": "batch"}


def test_days_become_an_instant(asked: Asked) -> None:
    tutti("keys", "create", "team", "--days", "1")
    assert asked[0][2]["expires_at"] > 1e9


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_leads_nowhere_else(name: str, asked: Asked) -> None:
    assert tutti("keys", "revoke", name).exit_code != 0
    assert not asked
