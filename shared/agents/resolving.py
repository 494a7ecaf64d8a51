"""What a job pins: its references to agents, prompts and tools as of now, with everything put in that a successor must find."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import get_args

from shared.agents.cards import TIER_PREFIX, cards_of, check_card, pinned_models
from shared.agents.suiting import KnownModels, rated
from shared.agents.table import Declarations, Undeclared
from shared.agents.templates import check_prompt, render
from shared.contracts.agents import (
    MOST_MEMBERS,
    Agent,
    Member,
    ModelCard,
    PinnedPrompt,
    PinnedTool,
    Profile,
    Prompt,
    QueryKind,
    Team,
    Tool,
)
from shared.contracts.chat import TOOLS
from shared.contracts.job import Job
from shared.errors import InvalidInput, TooLarge

TEAM_BYTES = 48 * 1024
"""Of all that one job pins: beside its input and first asks it must fit a record of its history, and a snapshot of that."""
_MOST_SYSTEM = 32_000
_OF_EVERY_CLUSTER = "chat"


def resolve(
    table: Declarations, agents: Iterable[str], prompts: Iterable[str], offered: Collection[str], tools: Iterable[str] = ()
) -> Team:
    """The team of a job that names these, each once, with the tools of its agents. `offered`: the cluster's capabilities.

    Raises Undeclared; InvalidInput of an agent's prompt that needs more
    than it has; InvalidInput, TooLarge of too many and too much.
    """
    named, asked = tuple(dict.fromkeys(agents)), tuple(dict.fromkeys(prompts))
    members = tuple(member(table, each, offered) for each in named[: MOST_MEMBERS + 1])
    used = tuple(dict.fromkeys([*tools, *(tool for each in members for tool in each.tools)]))
    if not (named or asked or used):
        return Team()
    if max(len(named), len(asked), len(used)) > MOST_MEMBERS:
        raise InvalidInput(f"a job uses at most {MOST_MEMBERS} agents, and as many prompts and tools")
    pinned = _pinned_tools(table, used, offered)
    return _as_read(Team(members=members, prompts=tuple(_pinned(table, each) for each in asked), tools=pinned))


def demands_of(job: Job, ask: Iterable[tuple[str, ...]], team: Team) -> list[tuple[str, ...]]:
    """What a job, its pattern's input (`ask`: demands that it names) and its agents ask for: each a name, and who may stand in for it."""
    members = ((each.model, *each.fallback_models) for each in team.members if each.model is not None)
    return [(job.model, *job.fallback_models), *ask, *members]


def with_models(table: Declarations, team: Team, demands: Sequence[tuple[str, ...]], capability: str) -> Team:
    """The team with what these names of models stand for. Raises InvalidInput, TooLarge."""
    cards = cards_of(table)
    if not cards and not any(name.startswith(TIER_PREFIX) for demand in demands for name in demand):  # nearly every job
        return team
    models = pinned_models(cards, demands, capability)
    return _as_read(team.model_copy(update={"models": models})) if models else team


def with_choice(table: Declarations, team: Team, demands: Iterable[tuple[str, ...]], capability: str, known: KnownModels) -> Team:
    """The team with what `auto` and tiers among these names are chosen from as of now. Where a job's first event has no room for that, it
    goes on without.
    """
    rows = rated(cards_of(table), (name for demand in demands for name in demand), capability, known)
    if not rows:
        return team
    profiles = {}
    for kind in get_args(QueryKind):
        with suppress(Undeclared):
            profiles[kind] = _profile(table, kind).options
    with suppress(TooLarge):
        return _as_read(team.model_copy(update={"rated": rows, "profiles": profiles}))
    return team


def _as_read(team: Team) -> Team:
    """As a successor reads it: which fields are set counts, too. Raises TooLarge."""
    written = team.encoded(exclude_defaults=True)
    if len(written) > TEAM_BYTES:
        raise TooLarge(f"the agents, prompts, tools and models of one job have at most {TEAM_BYTES} bytes together")
    return Team.model_validate_json(written)


def member(table: Declarations, reference: str, offered: Collection[str]) -> Member:
    """One agent, with its prompt and profile. Raises as `resolve`."""
    found = table.find("agent", reference)
    assert isinstance(found.body, Agent)
    return member_of(table, found.body, reference, found.version, offered)


def member_of(table: Declarations, agent: Agent, reference: str, version: str, offered: Collection[str]) -> Member:
    """The same of this content. Raises as `resolve`."""
    system, prompt, profile, body = agent.system, None, None, Profile()
    if agent.prompt is not None:
        told = table.find("prompt", agent.prompt)
        assert isinstance(told.body, Prompt)
        known = {"agent": reference.partition("@")[0], "about": agent.about}
        system, prompt = render(told.body, {name: text for name, text in known.items() if name in told.body.variables}), told
        if len(system) > _MOST_SYSTEM:
            raise TooLarge(f"what an agent is told first has at most {_MOST_SYSTEM} characters")
    if agent.profile is not None:
        profile = table.find("profile", agent.profile)
        body = _profile(table, agent.profile)
    return Member(
        reference=reference,
        version=version,
        about=agent.about,
        system=system,
        capability=agent.capability if agent.capability in offered else _OF_EVERY_CLUSTER,
        model=agent.model or body.model,
        fallback_models=body.fallback_models,
        options=body.options,
        needs=body.needs,
        tools=agent.tools,
        output=agent.output,
        prompt=prompt and f"{prompt.name}@{prompt.version}",
        profile=profile and f"{profile.name}@{profile.version}",
    )


def _profile(table: Declarations, reference: str) -> Profile:
    body = table.find("profile", reference).body
    assert isinstance(body, Profile)
    return body


def _pinned(table: Declarations, reference: str) -> PinnedPrompt:
    found = table.find("prompt", reference)
    assert isinstance(found.body, Prompt)
    return PinnedPrompt(reference=reference, version=found.version, template=found.body.template, variables=found.body.variables)


def _pinned_tools(table: Declarations, used: Iterable[str], offered: Collection[str]) -> tuple[PinnedTool, ...]:
    """Raises InvalidInput, also where two are one to a model, or the cluster has no place for steps of tools."""
    found = tuple(_pinned_tool(table, each) for each in used)
    if len({tool.name for tool in found}) < len(found):
        raise InvalidInput("a job uses one version of a tool")
    if found and TOOLS not in offered:
        raise InvalidInput(f"this cluster has no capability {TOOLS}")
    return found


def _pinned_tool(table: Declarations, reference: str) -> PinnedTool:
    found = table.find("tool", reference)
    assert isinstance(found.body, Tool)
    body = found.body
    return PinnedTool(reference=reference, version=found.version, about=body.about, parameters=body.parameters, idempotent=body.idempotent)


def check_declared(table: Declarations, name: str, body: object, offered: Collection[str]) -> None:
    """Whether this may be declared, as of now. Raises as `resolve`, and InvalidInput."""
    if isinstance(body, Tool) and body.parameters.get("type") != "object":
        raise InvalidInput("a tool's `parameters` are the schema of an object: its arguments by name")
    if isinstance(body, ModelCard):
        check_card(cards_of(table), name, body)
    if isinstance(body, Prompt):
        check_prompt(body)
    if isinstance(body, Agent):
        if body.system is not None and body.prompt is not None:
            raise InvalidInput("an agent has `system` or `prompt`, not both")
        if body.capability == TOOLS:
            raise InvalidInput(f"capability {TOOLS} is of workers that serve tools: no agent has it")
        for reference in body.tools:
            table.find("tool", reference)
        member_of(table, body, name, body.version, offered)
