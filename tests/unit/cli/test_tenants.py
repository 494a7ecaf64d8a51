"""`tutti tenants` against an ingress that records what it is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from infra.cli.main import main
from infra.cli.rest import Api
from shared.contracts.budget import TenantLimits

SHOWN = {
    "id": "acme",
    "limits": {"calls": 100, "soft": 0.8, "job": {"calls": 5}},
    "today": {"day": 20_454, "granted": {"calls": 12, "tokens": 0, "cost": 0}, "used": {"calls": 7, "tokens": 0, "cost": 0}},
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, Any]]:
    """Every call as (method, path, body)."""
    calls: list[tuple[str, str, Any]] = []

    async def call(_self: Api, method: str, path: str, body: Any = None) -> Any:
        calls.append((method, path, body))
        return {"tenants": [SHOWN]} if path == "/v1/tenants" else SHOWN

    monkeypatch.setattr(Api, "call", call)
    return calls


def tutti(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["tenants", *arguments], catch_exceptions=False)


def test_put_declares_all_limits(asked: list[tuple[str, str, Any]]) -> None:
    """Caps of single jobs go below `job`."""
    result = tutti("put", "acme", "--calls", "100", "--cost", "1.5", "--job-calls", "5", "--no-choice")
    assert result.exit_code == 0, result.output
    own = {"calls": 100, "cost": 1.5, "soft": 0.8, "job": {"calls": 5}, "policies": [], "choice": False}
    assert asked == [("PUT", "/v1/tenants/acme", own)]


def test_put_declares_policies(asked: list[tuple[str, str, Any]], tmp_path: Path) -> None:
    """From a file; what is none is told before anything is sent."""
    file = tmp_path / "policies.json"
    file.write_text('[{"direction": "input", "checks": {"secrets": true}, "action": "redact"}]')
    assert tutti("put", "acme", "--policies", str(file)).exit_code == 0
    assert asked[-1][2]["policies"][0]["checks"]["secrets"] is True
    file.write_text('[{"direction": "input", "checks": {}}]')
    assert tutti("put", "acme", "--policies", str(file)).exit_code != 0
    file.write_text("no json")
    assert tutti("put", "acme", "--policies", str(file)).exit_code != 0
    assert len(asked) == 1


def test_set_changes_what_is_named_and_nothing_else(asked: list[tuple[str, str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Over every limit that can be named: all others are sent as they were."""
    policy = {"direction": "input", "checks": {"secrets": True}, "action": "block"}
    cache = {"allowed": False, "mode": "exact", "scope": "global", "ttl": 60.0, "threshold": 0.97}
    before = TenantLimits.model_validate({
        "calls": 1, "tokens": 2, "cost": 3.0, "concurrent_jobs": 4, "soft": 0.5, "choice": False, "cache": cache, "policies": [policy],
        "job": {"calls": 5, "tokens": 6, "cost": 7.0, "depth": 8},
    }).model_dump(mode="json", exclude_none=True)  # fmt: skip
    assert before.keys() == TenantLimits.model_fields.keys(), "each is declared, so that each would be missed"
    monkeypatch.setitem(SHOWN, "limits", before)
    for name in ("calls", "tokens", "cost", "concurrent-jobs", "soft"):
        assert tutti("set", "acme", f"--{name}", "1").exit_code == 0
        assert asked[-1] == ("PUT", "/v1/tenants/acme", before | {name.replace("-", "_"): 1})
    assert tutti("set", "acme", "--job-calls", "9").exit_code == 0
    assert asked[-1][2] == before | {"job": before["job"] | {"calls": 9}}
    assert tutti("set", "acme", "--cache-ttl", "9").exit_code == 0
    assert asked[-1][2] == before | {"cache": cache | {"ttl": 9.0}}
    assert tutti("set", "acme").exit_code == 0
    assert asked[-1][2] == before


def test_list_show_and_remove(asked: list[tuple[str, str, Any]]) -> None:
    """Granted today beside the bound; JSON as the ingress gave it."""
    assert "12 of 100" in tutti("list").output
    shown = tutti("show", "acme").output
    assert "calls" in shown
    assert "12" in shown
    assert json.loads(tutti("show", "acme", "--json").output) == SHOWN
    assert tutti("remove", "acme").exit_code == 0
    assert asked[-1] == ("DELETE", "/v1/tenants/acme", None)


def test_a_wrong_limit_is_told(asked: list[tuple[str, str, Any]]) -> None:
    """Before anything is sent."""
    assert tutti("put", "acme", "--soft", "2").exit_code != 0
    assert asked == []


PLAN = {
    "tenant": "acme",
    "erased": False,
    "goes": [{"what": "API keys made at run time", "count": 2}, {"what": "rows of jobs"}],
    "stays": [{"what": "records of job-events", "days": 30.0}, {"what": "sums of days"}],
}


def test_erase_shows_first_and_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is erased before somebody has seen what goes and what stays."""
    calls: list[Any] = []

    async def call(_self: Api, method: str, path: str, body: Any = None) -> Any:
        assert (method, path) == ("POST", "/v1/tenants/acme/erase")
        calls.append(body["dry_run"])
        return PLAN

    monkeypatch.setattr(Api, "call", call)
    shown = tutti("erase", "acme", "--dry-run").output
    assert "30 days" in shown
    assert "API keys" in shown
    refused = CliRunner().invoke(main, ["tenants", "erase", "acme"], input="n\n", catch_exceptions=False)
    assert refused.exit_code != 0
    assert calls == [True, True]
    assert CliRunner().invoke(main, ["tenants", "erase", "acme"], input="y\n", catch_exceptions=False).exit_code == 0
    assert json.loads(tutti("erase", "acme", "--yes", "--json").output) == PLAN
    assert calls == [True, True, True, False, True, False]
