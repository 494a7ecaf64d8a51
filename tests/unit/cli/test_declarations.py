"""`tutti prompts`, `tutti agents`, `tutti profiles` against an ingress that records what it is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from infra.cli.exits import Exit
from infra.cli.main import main
from infra.cli.rest import Api

SHOWN = {
    "name": "x",
    "version": "0123456789ab",
    "about": "Reads.",
    "aliases": ["latest"],
    "built_in": False,
    "text": "Hi",
    "estimated_tokens": 1,
}
VERSIONS = {
    "name": "x",
    "versions": [{"version": "0123456789ab", "aliases": ["latest"], "about": ""}],
    "aliases": {"latest": {"version": "0123456789ab", "at": 0, "earlier": ["ba9876543210"]}},
}
Asked = list[tuple[str, str, Any]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Every call as (method, path, body)."""
    calls: Asked = []

    async def call(_self: Api, method: str, path: str, body: Any = None) -> Any:
        calls.append((method, path, body))
        kind = path.split("/")[2]
        if path.endswith("/versions"):
            return VERSIONS
        return {kind: [SHOWN]} if path.count("/") == 2 else {**SHOWN, kind.removesuffix("s"): {"about": "Reads."}}

    monkeypatch.setattr(Api, "call", call)
    return calls


def tutti(*arguments: str, given: str | None = None) -> Result:
    return CliRunner().invoke(main, arguments, input=given, catch_exceptions=False)


@pytest.mark.parametrize("kind", ["prompts", "agents", "profiles", "tools"])
def test_every_kind_has_the_same_commands(kind: str, asked: Asked) -> None:
    assert "0123456789ab" in tutti(kind, "list").output
    assert json.loads(tutti(kind, "list", "--json").output) == [SHOWN]
    assert "about: Reads." in tutti(kind, "show", "x@prod").output
    assert "ba9876543210" in tutti(kind, "show", "x", "--versions").output
    assert tutti(kind, "alias", "x", "prod", "latest").exit_code == 0
    assert tutti(kind, "remove", "x").exit_code == 0
    assert [(method, path) for method, path, _ in asked[2:]] == [
        ("GET", f"/v1/{kind}/x@prod"),
        ("GET", f"/v1/{kind}/x/versions"),
        ("PUT", f"/v1/{kind}/x/aliases/prod"),
        ("DELETE", f"/v1/{kind}/x"),
    ]
    assert asked[4][2] == {"version": "latest"}


def test_a_text_is_the_template_or_the_system_words(asked: Asked, tmp_path: Path) -> None:
    """A prompt's variables are found; a file holds all else."""
    file = tmp_path / "agent.yaml"
    file.write_text("profile: code\ncapability: code\n")
    assert tutti("prompts", "set", "p", "Dear {{ b }} and {{ a }}", "--about", "Opens.").exit_code == 0
    assert tutti("agents", "set", "a", "Be brief.", "--file", str(file)).exit_code == 0
    assert tutti("profiles", "set", "f", "--file", "-", given='{"options": {"seed": 1}}').exit_code == 0
    assert asked == [
        ("PUT", "/v1/prompts/p", {"template": "Dear {{ b }} and {{ a }}", "variables": ["a", "b"], "about": "Opens."}),
        ("PUT", "/v1/agents/a", {"profile": "code", "capability": "code", "system": "Be brief."}),
        ("PUT", "/v1/profiles/f", {"options": {"seed": 1}}),
    ]


def test_variables_are_rendered(asked: Asked) -> None:
    """One that is named twice is a list."""
    assert tutti("prompts", "render", "p", "a=1=1", "b=x", "b=y").exit_code == 0
    assert asked == [("POST", "/v1/prompts/p/render", {"variables": {"a": "1=1", "b": ["x", "y"]}})]


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        (("prompts", "set", "p", "{{ a.b }}"), None),
        (("prompts", "set", "p", "{{"), None),
        (("prompts", "set", "p"), None),
        (("profiles", "set", "p", "text"), None),
        (("agents", "set", "p", "--file", "-"), "sistem: x"),
        (("agents", "set", "p", "--file", "-"), "[" * 5_000),
        (("agents", "set", "p", "--file", "-"), "[]"),
        (("prompts", "render", "p", "a"), None),
    ],
)
def test_what_cannot_be_declared_is_told_here(arguments: tuple[str, ...], given: str | None, asked: Asked) -> None:
    result = tutti(*arguments, given=given)
    assert (result.exit_code, asked) == (Exit.USAGE, [])
    assert "Traceback" not in result.output
