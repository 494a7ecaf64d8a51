"""The operator's file of tools: what it may say, how it is refused, and which nodes and declarations it makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from services.worker.settings import WorkerSettings
from services.worker.tools.declared import ToolsFile, declaration, read_tools
from services.worker.tools.nodes import builds, nodes_of
from shared.contracts.agents import Tool
from shared.errors import ConfigurationError

FILE: dict[str, Any] = {
    "tools": {
        "calculator": {"kind": "calculator"},
        "site": {"kind": "http", "allow": ["example.com"], "about": "Reads our site."},
        "find": {"kind": "retrieval", "url": "http://127.0.0.1:9/find", "at_once": 3},
        "crm-find": {"kind": "mcp", "server": "crm", "name": "find_customer", "idempotent": True},
        "crm-note": {"kind": "mcp", "server": "crm", "at_once": 1},
    },
    "servers": {"crm": {"command": ["crm", "--stdio"], "env": {"CRM": "x"}}},
    "slots": 5,
}


def written(folder: Path, content: Any) -> str:
    path = folder / "tools.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return str(path)


def test_a_tool_with_permits_has_a_node_of_its_own(tmp_path: Path) -> None:
    """Named after the tool in the whole cluster, with a slot a permit and nothing in advance; all others share one."""
    nodes = nodes_of(read_tools(written(tmp_path, FILE)), WorkerSettings(node="big"))
    assert {name: (s.node, s.slots, s.models, s.prefetch_limit) for name, s in nodes.items()} == {
        "worker": ("big.tools", 5, ("calculator", "site", "crm-find"), 512),
        "worker-find": ("tool.find", 3, ("find",), 0),
        "worker-crm-note": ("tool.crm-note", 1, ("crm-note",), 0),
    }
    assert {(s.backend, s.agents) for s in nodes.values()} == {("tools", ("tools",))}
    alone = {"tools": {"find": FILE["tools"]["find"]}}
    assert [(name, s.node) for name, s in nodes_of(ToolsFile.model_validate(alone), WorkerSettings()).items()] == [("worker", "tool.find")]


def test_a_process_without_a_file_is_one_worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TUTTI_WORKER__TOOLS", raising=False)
    assert [name for name, _ in builds()] == ["worker"]
    monkeypatch.setenv("TUTTI_WORKER__TOOLS", written(tmp_path, FILE))
    assert [name for name, _ in builds()] == ["worker", "worker-find", "worker-crm-note"]


def test_what_models_are_told() -> None:
    """The kind's own words, the operator's, or what an MCP server says."""
    file = ToolsFile.model_validate(FILE)
    calculator = declaration(file.tools["calculator"])
    assert (calculator.idempotent, calculator.parameters["required"]) == (True, ["expression"])
    assert declaration(file.tools["site"]).about == "Reads our site."
    listed = Tool(about="Finds a customer.", parameters={"type": "object"})
    assert declaration(file.tools["crm-find"], listed) == listed.changed(idempotent=True)
    assert not declaration(file.tools["crm-note"], listed).idempotent


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"tools": {}}, "tools"),
        ({"tools": {"Bad Name": {"kind": "calculator"}}}, "tools"),
        ({"tools": {"a": {"kind": "shell"}}}, "tools.a"),
        ({"tools": {"a": {"kind": "calculator", "second": 3}}}, "tools.a.calculator.second"),
        ({"tools": {"a": {"kind": "calculator", "seconds": 0}}}, "tools.a.calculator.seconds"),
        ({"tools": {"a": {"kind": "http"}}}, "tools.a.http.allow"),
        ({"tools": {"a": {"kind": "http", "allow": ["https://u@a.com/"]}}}, "tools.a.http.allow.0"),
        ({"tools": {"a": {"kind": "http", "allow": ["https://*/"]}}}, "tools.a.http.allow.0"),
        ({"tools": {"a": {"kind": "mcp", "server": "none"}}}, "its top"),
        ({"servers": {"crm": {}}}, "servers.crm"),
        ({"servers": {"crm": {"command": ["x"], "url": "http://a/"}}}, "servers.crm"),
        ({"servers": {"crm": {"url": "http://a/", "env": {"A": "b"}}}}, "servers.crm"),
        ({"server": {}}, "server"),
    ],
)
def test_what_is_wrong_is_named_by_its_place(tmp_path: Path, change: Any, place: str) -> None:
    with pytest.raises(ConfigurationError, match=f"is wrong at {place}"):
        read_tools(written(tmp_path, FILE | change))


@pytest.mark.parametrize("content", ["a: [", "\x00", "- 1", "x"])
def test_what_is_no_file_of_tools(tmp_path: Path, content: str) -> None:
    """In words that quote nothing of it."""
    with pytest.raises(ConfigurationError, match=r"the tools file .*") as caught:
        read_tools(written(tmp_path, content))
    assert "Traceback" not in caught.value.message


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_tools("/no/such/file")
