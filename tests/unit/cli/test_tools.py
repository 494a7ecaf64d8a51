"""`tutti tools`: a file's tools are declared as their workers serve them, and one is called as a job."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from infra.cli import run
from infra.cli.exits import Exit
from infra.cli.main import main
from infra.cli.rest import Api
from tests.support import mcp_server

Asked = list[tuple[str, str, Any]]
RESULT: dict[str, Any] = {"id": "j_1", "state": "settled", "result": {"answer": {"text": "42"}}}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Every call as (method, path, body)."""
    calls: Asked = []

    async def call(_self: Api, method: str, path: str, body: Any = None) -> Any:
        calls.append((method, path, body))
        return RESULT if path.startswith("/v1/jobs") else {"version": "0123456789ab"}

    monkeypatch.setattr(Api, "call", call)
    return calls


def tutti(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def file(folder: Path, tools: dict[str, Any], **servers: Any) -> str:
    path = folder / "tools.yaml"
    path.write_text(yaml.safe_dump({"tools": tools, "servers": servers}, sort_keys=False))
    return str(path)


def server() -> dict[str, Any]:
    return {"command": [sys.executable, mcp_server.__file__], "env": {"PYTHONPATH": ":".join(sys.path)}}


def test_tools_of_a_file_are_declared(asked: Asked, tmp_path: Path) -> None:
    """Built-in kinds by what they are, an MCP server's by what it says of them: no more than what the file lists."""
    listed = {"calculator": {"kind": "calculator"}, "plus": {"kind": "mcp", "server": "strange", "name": "add", "idempotent": True}}
    done = tutti("tools", "declare", file(tmp_path, listed, strange=server()))
    assert (done.exit_code, done.output.count("is latest")) == (0, 2)
    assert [(method, path) for method, path, _ in asked] == [("PUT", "/v1/tools/calculator"), ("PUT", "/v1/tools/plus")]
    assert asked[0][2]["parameters"]["required"] == ["expression"]
    assert (asked[1][2]["about"], asked[1][2]["idempotent"]) == ("Adds two whole numbers.", True)
    assert set(asked[1][2]["parameters"]["properties"]) == {"a", "b"}


def test_what_cannot_be_declared(asked: Asked, tmp_path: Path) -> None:
    """Nothing is, where one is wrong; it is told which."""
    wrong = file(tmp_path, {"x": {"kind": "mcp", "server": "strange"}, "calculator": {"kind": "calculator"}}, strange=server())
    missing = tutti("tools", "declare", wrong)
    assert (missing.exit_code, "has no tool x; it has add, die," in missing.output) == (Exit.USAGE, True)
    away = file(tmp_path, {"x": {"kind": "mcp", "server": "strange"}}, strange={"command": ["/no/such/program"]})
    assert tutti("tools", "declare", away).exit_code == Exit.UNREACHABLE
    assert tutti("tools", "declare", file(tmp_path, {"x": {"kind": "shell"}})).exit_code == Exit.SETTINGS
    assert asked == []


def test_a_tool_is_called(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job of pattern tools; its result on standard output."""
    done = tutti("tools", "call", "calculator", '{"expression": "6 * 7"}')
    assert (done.exit_code, done.output) == (0, "42\n")
    [(method, path, body)] = asked
    assert (method, path) == ("POST", "/v1/jobs?wait=60")
    assert body == {"prompt": '{"expression": "6 * 7"}', "pattern": "tools", "input": {"tool": "calculator"}, "class": "interactive"}
    assert json.loads(tutti("tools", "call", "calculator", "--json").output) == RESULT
    failed = {"answer": None, "failure": {"kind": "bad_request", "message": "a division by zero"}}
    monkeypatch.setitem(RESULT, "result", failed)
    assert (done := tutti("tools", "call", "calculator")).exit_code == Exit.FAILED
    assert "a division by zero" in done.output
    monkeypatch.delitem(RESULT, "result")

    async def status(_self: Api, job: str) -> Any:
        return {"id": job, "steps": [{"missing": ["capability tools"]}]}

    monkeypatch.setattr(Api, "status", status)
    waits = tutti("tools", "call", "calculator")
    assert (waits.exit_code, "no node has capability tools" in waits.output) == (Exit.TIMEOUT, True)


def test_a_worker_is_told_its_tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By the option as by the environment: one worker a node."""
    monkeypatch.delenv("TUTTI_WORKER__TOOLS", raising=False)
    monkeypatch.setenv("TUTTI_WORKER__TOOLS", "")
    started: list[str] = []

    def note(builds: list[tuple[str, Any]]) -> int:
        started.extend(name for name, _ in builds)
        return 0

    monkeypatch.setattr(run, "run_process", note)
    path = file(tmp_path, {"calculator": {"kind": "calculator"}, "one": {"kind": "calculator", "at_once": 1}})
    assert tutti("run", "worker", "--tools", path).exit_code == 0
    assert started == ["worker", "worker-one"]
    assert tutti("run", "planner", "--tools", path).exit_code == Exit.USAGE
