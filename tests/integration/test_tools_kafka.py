"""Promise: tools are durable steps on a real Kafka: called, told, bounded, and not called twice, whoever dies.

How: real processes; a worker that serves a calculator and a real MCP server's tools, which notes each call in a file; a simulated model
that calls what it is given; the official `openai` client for a caller's own tools.

    model ──call──► step ──► worker of tools ──► MCP server ──► journal
      ▲                        ✗ kill -9             (a line a call)
      └───────── data ◄────────┘
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import yaml
from click.testing import CliRunner, Result

from infra.cli.exits import Exit
from infra.cli.main import main
from infra.native.cluster import LocalCluster
from infra.native.waiting import wait_until
from tests.support import mcp_server
from tests.support.native import StartCluster

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]


def tutti(at: LocalCluster, *arguments: str) -> Result:
    environment = {"TUTTI_KAFKA_SERVERS": at.servers, "TUTTI_TOPICS__PREFIX": at.prefix, "TUTTI_URL": at.url}
    return CliRunner().invoke(main, arguments, env=environment, catch_exceptions=False)


def submit(at: LocalCluster, wait: float = 60.0, **job: Any) -> dict[str, Any]:
    found: dict[str, Any] = httpx.post(f"{at.url}/v1/jobs?wait={wait}", json=job, timeout=wait + 30).json()
    return found


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def at(cluster: StartCluster, tmp_path: Path, journal: Path) -> LocalCluster:
    """A model's node, and one process that serves tools; declared."""
    file = tmp_path / "tools.yaml"
    server = {"command": [sys.executable, mcp_server.__file__, str(journal)], "env": {"PYTHONPATH": ":".join(sys.path)}}
    tools = {
        "add": {"kind": "mcp", "server": "strange", "idempotent": True},
        "wait": {"kind": "mcp", "server": "strange", "at_once": 2},
        "calculator": {"kind": "calculator"},
    }
    file.write_text(yaml.safe_dump({"tools": tools, "servers": {"strange": server}}, sort_keys=False))
    found = cluster("tools", nodes=[{}, {"TUTTI_WORKER__TOOLS": str(file), "TUTTI_WORKER__BACKEND": "tools"}])
    declared = tutti(found, "tools", "declare", str(file))
    assert declared.exit_code == Exit.OK, declared.output
    until(lambda: tutti(found, "tools", "call", "calculator", '{"expression": "1"}').exit_code == Exit.OK, "the planner has read the last")
    return found


def lines(journal: Path) -> list[str]:
    return journal.read_text().splitlines() if journal.exists() else []


def until(condition: Callable[[], bool], what: str) -> None:
    assert wait_until(condition, 60.0), what


def test_a_model_uses_tools_and_people_call_them(at: LocalCluster, journal: Path) -> None:
    """Each call a step of the tree, made once; its result in the answer; nodes of tools beside those of models."""
    job = submit(at, prompt="please use add", pattern="tools", input={"tools": ["add"]})
    assert job["state"] == "settled", job
    answer = job["result"]["answer"]
    [call] = lines(journal)
    name, a, b = call.split()
    assert (name, answer["text"].startswith("The tool answered:")) == ("add", True), answer
    assert str(int(a) + int(b)) in answer["text"]
    assert [(one["tool"], one["outcome"]) for one in answer["explanation"]["calls"]] == [("add", "answered")]
    tree = tutti(at, "jobs", "get", job["id"], "--tree").output
    assert "tool:add" in tree.split()
    served = {node["id"]: (node["capabilities"], node["slots"]) for node in json.loads(tutti(at, "nodes", "--json").output)}
    assert served["tools-node-2.tools"] == (["tools"], 16)
    assert served["tool.wait"] == (["tools"], 2)
    chosen = submit(at, prompt="hello", pattern="tools", input={"tools": ["add", "calculator"], "by": "schema"})
    assert chosen["result"]["status"] == "succeeded", chosen
    assert tutti(at, "tools", "call", "calculator", '{"expression": "6 * 7"}').output == "42\n"
    wrong = tutti(at, "tools", "call", "calculator", '{"expression": "1 / 0"}')
    assert (wrong.exit_code, "a division by zero" in wrong.output) == (Exit.FAILED, True)
    listed = httpx.get(f"{at.url}/v1/tools", timeout=30).json()["tools"]
    assert [tool["name"] for tool in listed] == ["add", "calculator", "wait"]
    models = httpx.get(f"{at.url}/v1/models", timeout=30).json()["data"]
    assert not {"add", "calculator", "wait"} & {model["id"] for model in models}
    refused = httpx.post(f"{at.url}/v1/jobs", json={"prompt": "x", "pattern": "tools", "input": {"tools": ["cook"]}}, timeout=30)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unknown_tool")
    assert "known: add, calculator, wait" in refused.json()["error"]["message"]
    seconds = httpx.get(f"{at.services['worker-2'].url}/metrics", timeout=30).text
    called = float(sum(line.startswith("add ") for line in lines(journal)))
    assert f'tutti_tool_seconds_count{{outcome="answered",tool="add"}} {called}' in seconds


@pytest.mark.faults
def test_a_call_is_not_made_twice_whoever_dies(at: LocalCluster, journal: Path) -> None:
    """The planner is killed amid a call: it is waited for. The worker is: the job ends, and says that the call may have been made."""
    call: dict[str, Any] = {"prompt": '{"seconds": 4}', "pattern": "tools", "input": {"tool": "wait"}}
    assert submit(at, wait=0, id="first", **call)["state"] != "settled"
    until(lambda: lines(journal) == ["wait begins"], "the call begins")
    at.services["planner"].daemon.kill()
    at.services["planner"].start()
    until(lambda: httpx.get(f"{at.url}/v1/jobs/first", timeout=30).json()["state"] == "settled", "the first job ends")
    first = httpx.get(f"{at.url}/v1/jobs/first", timeout=30).json()["result"]
    assert (first["status"], first["answer"]["text"]) == ("succeeded", "waited")
    submit(at, wait=0, id="second", **call)
    until(lambda: lines(journal) == ["wait begins", "wait ends", "wait begins"], "the second call begins")
    at.services["worker-2"].daemon.kill()
    at.services["worker-2"].start()
    until(lambda: httpx.get(f"{at.url}/v1/jobs/second", timeout=30).json()["state"] == "settled", "the second job ends")
    second = httpx.get(f"{at.url}/v1/jobs/second", timeout=30).json()["result"]
    assert (second["status"], "must not be done twice" in second["failure"]["message"]) == ("failed", True), second
    third = submit(at, id="third", **call | {"prompt": '{"seconds": 0}'})
    assert third["result"]["status"] == "succeeded", third
    assert lines(journal).count("wait begins") == 3
    if not wait_until(lambda: tutti(at, "verify", "--settled").exit_code == Exit.OK, 60.0):  # a result follows the event that answers
        pytest.fail(tutti(at, "verify", "--settled").output)


def test_a_callers_own_tools(at: LocalCluster) -> None:
    """Over an endpoint that has no word for a choice: required and named ones are called, in their schema; whole and streamed."""
    client = openai.OpenAI(api_key="none", base_url=f"{at.url}/v1", max_retries=0)
    parameters = {"type": "object", "properties": {"place": {"type": "string", "enum": ["Oslo", "Rome"]}}, "required": ["place"]}
    tools: Any = [{"type": "function", "function": {"name": name, "parameters": parameters}} for name in ("weather", "time")]
    asked: Any = {"model": "auto", "messages": [{"role": "user", "content": "hello"}], "tools": tools}
    choices: list[Any] = [("required", {"weather", "time"}), ({"type": "function", "function": {"name": "time"}}, {"time"})]
    for choice, names in choices:
        answer = client.chat.completions.create(**asked, tool_choice=choice).choices[0]
        assert answer.finish_reason == "tool_calls"
        [call] = answer.message.tool_calls
        assert call.function.name in names
        assert json.loads(call.function.arguments)["place"] in ("Oslo", "Rome")
        with client.chat.completions.stream(**asked, tool_choice=choice) as stream:
            final = stream.get_final_completion().choices[0]
        [streamed] = final.message.tool_calls or []
        assert (streamed.function.name in names, bool(final.message.content)) == (True, False)
    plain = client.chat.completions.create(**asked, tool_choice="none").choices[0]
    assert (plain.finish_reason, plain.message.tool_calls) == ("stop", None)
