"""`/v1/prompts`, `/v1/agents`, `/v1/profiles` as administrators and others see them: the whole ingress on the in-memory log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.ingress.status.shown import RawEvent
from services.ingress.status.status import JobStatus, fold
from shared.agents import table as tables
from shared.agents.built_in import AGENTS, PROFILES
from shared.agents.resolving import resolve
from shared.agents.table import Declarations
from shared.contracts.agents import Tool
from shared.contracts.chat import Answer
from shared.contracts.event import JobAccepted
from shared.contracts.job import Job
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.port import TopicPartition
from shared.patterns import BUILT_IN, Patterns
from shared.patterns.context import Context
from shared.patterns.port import Pattern, PatternInput
from tests.contract.test_ingress_access import bearer, key, keyed
from tests.support.ingress_world import World, until, world

LETTER = {"template": "Dear {{ name }},", "variables": ["name"], "about": "Opens a letter."}


@asynccontextmanager
async def ready() -> AsyncIterator[World]:
    async with world() as at:
        await until(at.ingress.door.offered.declared.complete, "the registry is read")
        yield at


def refused(response: httpx.Response, status: int, code: str) -> str:
    assert (response.status_code, response.json()["error"]["code"]) == (status, code), response.text
    return str(response.json()["error"]["message"])


async def test_a_prompt_lives_in_versions_and_aliases() -> None:
    """Declared, seen by every kind of reference, moved, rolled back, removed; the registry holds the same as another reader finds it."""
    async with ready() as at:
        first = (await at.client.put("/v1/prompts/letter", json=LETTER)).json()
        assert (first["name"], first["aliases"], first["prompt"], first["built_in"]) == ("letter", ["latest"], LETTER, False)
        assert (await at.client.put("/v1/prompts/letter", json=LETTER)).json() == first
        moved = await at.client.put("/v1/prompts/letter/aliases/prod", json={"version": "latest"})
        assert moved.json()["aliases"] == ["latest", "prod"]
        second = (await at.client.put("/v1/prompts/letter", json={"template": "Hello."})).json()
        for reference, version in (("letter", second), ("letter@prod", first), (f"letter@{first['version']}", first)):
            assert (await at.client.get(f"/v1/prompts/{reference}")).json()["version"] == version["version"]
        listed = (await at.client.get("/v1/prompts")).json()["prompts"]
        assert [(each["name"], each["version"]) for each in listed] == [("letter", second["version"])]
        shown = (await at.client.get("/v1/prompts/letter/versions")).json()
        assert [each["version"] for each in shown["versions"]] == [first["version"], second["version"]]
        assert shown["aliases"]["latest"] | {"at": 0} == {
            "version": second["version"],
            "at": 0,
            "by": "open",
            "earlier": [first["version"]],
        }
        assert isinstance(at.log, MemoryLog)
        reader = Declarations()
        for record in at.log.existing(TopicPartition(at.topics.registry, 0)).records:
            kind, _, name = (record.key or b"").decode().partition("/")
            reader.on_entry(kind, name, record.value)
        assert reader.find("prompt", "letter@prod") == at.ingress.door.offered.declared.find("prompt", "letter@prod")
        assert (await at.client.delete("/v1/prompts/letter")).status_code == 204
        refused(await at.client.get("/v1/prompts/letter"), 404, "unknown_prompt")


async def test_a_prompt_is_rendered_by_reference() -> None:
    """With its variables and no others; braces in a value are text."""
    async with ready() as at:
        await at.client.put("/v1/prompts/letter", json=LETTER)
        path = "/v1/prompts/letter@latest/render"
        told = (await at.client.post(path, json={"variables": {"name": "{{ 7 * 7 }}"}})).json()
        assert (told["text"], told["estimated_tokens"]) == ("Dear {{ 7 * 7 }},", 4)
        refused(await at.client.post(path, json={"variables": {}}), 400, "invalid_variables")
        refused(await at.client.post(path, json={"variables": {"name": "x" * 200_001}}), 413, "too_large")
        refused(await at.client.post("/v1/prompts/none/render", json={}), 404, "unknown_prompt")
        agent = (await at.client.post("/v1/agents/critic/render", json={})).json()
        assert (agent["text"], agent["member"]["options"]) == (AGENTS["critic"].system, {"temperature": 0.2, "top_p": 0.9})
        refused(await at.client.post("/v1/agents/critic/render", json={"variables": {"a": "b"}}), 400, "invalid_variables")


async def test_what_is_built_in_is_there() -> None:
    async with ready() as at:
        agents = (await at.client.get("/v1/agents")).json()["agents"]
        assert {each["name"] for each in agents if each["built_in"]} == set(AGENTS)
        assert [each["name"] for each in (await at.client.get("/v1/profiles")).json()["profiles"]] == sorted(PROFILES)
        await at.client.put("/v1/profiles/factual", json={"options": {"temperature": 0.0}})
        assert (await at.client.get("/v1/profiles/factual")).json()["built_in"] is False
        await at.client.delete("/v1/profiles/factual")
        assert (await at.client.get("/v1/profiles/factual")).json()["built_in"] is True


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/v1/prompts/x", {"template": "{{ a }}"}, 400, "invalid_template"),
        ("/v1/prompts/x", {"template": "{{ a.b }}", "variables": ["a"]}, 400, "invalid_template"),
        ("/v1/prompts/x", {"template": "", "variables": []}, 400, "invalid_input"),
        ("/v1/prompts/x@y", {"template": "a"}, 400, "invalid_input"),
        ("/v1/prompts/X", {"template": "a"}, 400, "invalid_input"),
        ("/v1/agents/x", {"prompt": "none"}, 400, "unknown_prompt"),
        ("/v1/agents/x", {"profile": "none"}, 400, "unknown_profile"),
        ("/v1/agents/x", {"system": "a", "prompt": "b"}, 400, "invalid_input"),
        ("/v1/profiles/x", {"options": {"temperature": 9}}, 400, "invalid_input"),
        ("/v1/agents/x", {"output": {"a": "x" * 70_000}}, 413, "too_large"),
        ("/v1/agents/critic/aliases/0123456789ab", {"version": "latest"}, 400, "invalid_alias"),
        ("/v1/agents/critic/aliases/prod", {"version": "0123456789ab"}, 400, "unknown_agent"),
        ("/v1/agents/none/aliases/prod", {"version": "latest"}, 404, "unknown_agent"),
    ],
)
async def test_what_is_not_valid_is_refused(path: str, body: Any, status: int, code: str) -> None:
    """Typed, and nothing is written."""
    async with ready() as at:
        refused(await at.client.put(path, json=body), status, code)
        assert isinstance(at.log, MemoryLog)
        assert not at.log.existing(TopicPartition(at.topics.registry, 0)).records


async def test_a_full_registry_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MOST_ENTRIES", 3)
    async with ready() as at:
        assert (await at.client.put("/v1/prompts/a", json={"template": "a"})).status_code == 200
        refused(await at.client.put("/v1/prompts/b", json={"template": "a"}), 429, "too_many_declarations")
        assert (await at.client.delete("/v1/prompts/a")).status_code == 204
        assert (await at.client.put("/v1/prompts/b", json={"template": "a"})).status_code == 200


@pytest.mark.parametrize("kind", ["prompt", "agent", "profile"])
async def test_only_administrators_declare(kind: str, tmp_path: Path) -> None:
    """Every key reads and renders, and does not learn who declared it."""
    body = {"template": "a"} if kind == "prompt" else {}
    async with keyed(tmp_path, key("a"), key("root", admin=True)) as at:
        await until(at.ingress.door.offered.declared.complete, "the registry is read")
        one, mine = f"/v1/{kind}s/x", bearer("a")
        assert (await at.client.put(one, json=body, headers=bearer("root"))).status_code == 200
        for method, path, given in (("PUT", one, body), ("DELETE", one, None), ("PUT", f"{one}/aliases/prod", {"version": "latest"})):
            refused(await at.client.request(method, path, json=given, headers=mine), 403, "admin_only")
            assert (await at.client.request(method, path, json=given)).status_code == 401
        for path in (f"/v1/{kind}s", one, f"{one}/versions"):
            assert (await at.client.get(path, headers=mine)).status_code == 200
            assert (await at.client.get(path)).status_code == 401
            assert "root" not in (await at.client.get(path, headers=mine)).text
        if kind != "profile":
            assert (await at.client.post(f"{one}/render", json={}, headers=mine)).status_code == 200
        assert "root" in (await at.client.get(f"{one}/versions", headers=bearer("root"))).text


class PanelInput(PatternInput):
    agents: tuple[str, ...]
    vote_prompt_ref: str | None = None


async def panel(ctx: Context, job: Job, ask: PanelInput) -> Answer:
    return Answer()


async def test_a_job_with_an_unknown_agent_is_refused_at_the_door() -> None:
    """With the known names; nothing is submitted, by jobs and by schedules."""
    async with ready() as at:
        object.__setattr__(
            at.ingress.door.offered, "patterns", Patterns([*BUILT_IN.current.values(), Pattern("panel", 1, panel, PanelInput)])
        )
        job = {"prompt": "q", "pattern": "panel", "input": {"agents": ["critic", "nobody"]}}
        assert "critic, extract" in refused(await at.client.post("/v1/jobs", json=job), 400, "unknown_agent")
        refused(await at.client.put("/v1/schedules/x", json={"cron": "0 3 * * *", "job": job}), 400, "unknown_agent")
        other = {**job, "input": {"agents": [], "vote_prompt_ref": "none"}}
        refused(await at.client.post("/v1/jobs", json=other), 400, "unknown_prompt")
        assert not at.planner.jobs
        assert (await at.client.post("/v1/jobs", json={**job, "input": {"agents": ["critic"]}})).status_code == 202


def test_a_status_shows_the_versions_that_are_used(job_accepted: JobAccepted) -> None:
    table, clock = Declarations(), Tool(about="The time.")
    for name, value in table.to_declare("tool", "clock", clock, at=0.0, by="").items():
        table.on_entry("tool", name, value)
    team = resolve(table, ["critic", "code@latest"], [], ("chat", "tools"), ["clock"])
    event = job_accepted.changed(team=team)
    status = fold(event.job, 0, None, [RawEvent(0, event.type, event.to_bytes())])
    assert status.agents == {"critic": AGENTS["critic"].version, "code@latest": AGENTS["code"].version}
    assert status.tools == {"clock": clock.version}
    assert b'"prompts"' not in status.public()
    assert JobStatus.model_validate_json(status.stored()) == status


@pytest.fixture
def job_accepted() -> JobAccepted:
    folder = Path(__file__).parents[2] / "schemas" / "examples"
    return JobAccepted.model_validate_json((folder / "v1" / "JobAccepted.minimal.json").read_bytes())


async def test_tools_are_declared_and_named() -> None:
    """By administrators, as all is; who names one that is not there, in a job, a chat or an agent, is told which are."""
    add = {"about": "Adds.", "parameters": {"type": "object", "properties": {"a": {"type": "number"}}}, "idempotent": True}
    async with ready() as at:
        assert "known: none" in refused(await at.client.put("/v1/agents/clerk", json={"tools": ["add"]}), 400, "unknown_tool")
        assert (await at.client.put("/v1/tools/add", json=add)).json()["tool"] == add
        assert "object" in refused(await at.client.put("/v1/tools/bad", json={"parameters": {"type": "array"}}), 400, "invalid_input")
        assert (await at.client.put("/v1/agents/clerk", json={"tools": ["add"]})).status_code == 200
        assert [tool["name"] for tool in (await at.client.get("/v1/tools")).json()["tools"]] == ["add"]
        for path, body in (
            ("/v1/jobs", {"prompt": "q", "pattern": "tools", "input": {"tools": ["add", "cook"]}}),
            ("/v1/jobs", {"prompt": "q", "pattern": "tools", "input": {"tool": "cook"}}),
            (
                "/v1/chat/completions",
                {"model": "tutti/tools", "messages": [{"role": "user", "content": "q"}], "input": {"tools": ["cook"]}},
            ),
        ):
            assert "there is no tool cook; known: add" in refused(await at.client.post(path, json=body), 400, "unknown_tool")
        asked = {"model": "tutti/tools", "messages": [{"role": "user", "content": "q"}], "input": {"tools": ["add"]}}
        assert (await at.client.post("/v1/chat/completions", json=asked)).status_code == 200
        [seen] = at.planner.jobs.values()
        assert (seen.job.pattern, seen.job.input) == ("tools", {"tools": ["add"]})
        own = {"prompt": "q", "operation": "tool", "model": "add"}
        assert "the engine's own" in refused(await at.client.post("/v1/jobs", json=own), 400, "invalid_input")
