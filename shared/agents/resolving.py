"""What a job pins: its references to agents and prompts as of now, with everything put in that a successor must find."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from shared.agents.table import Declarations
from shared.agents.templates import check_prompt, render
from shared.contracts.agents import MOST_MEMBERS, Agent, Member, PinnedPrompt, Profile, Prompt, Team
from shared.errors import InvalidInput, TooLarge

TEAM_BYTES = 48 * 1024
"""Of all that one job pins: beside its input and first asks it must fit a record of its history, and a snapshot of that."""
_MOST_SYSTEM = 32_000
_OF_EVERY_CLUSTER = "chat"


def resolve(table: Declarations, agents: Iterable[str], prompts: Iterable[str], offered: Collection[str]) -> Team:
    """The team of a job that names these, each once. `offered`: the cluster's capabilities.

    Raises UnknownAgent, UnknownPrompt, UnknownProfile; InvalidTemplate, InvalidVariables of an agent's prompt that needs more than it has;
    InvalidInput, TooLarge of too many and too much.
    """
    named, asked = tuple(dict.fromkeys(agents)), tuple(dict.fromkeys(prompts))
    if max(len(named), len(asked)) > MOST_MEMBERS:
        raise InvalidInput(f"a job uses at most {MOST_MEMBERS} agents, and as many prompts")
    team = Team(members=tuple(member(table, each, offered) for each in named), prompts=tuple(_pinned(table, each) for each in asked))
    if not (named or asked):
        return team
    written = team.encoded(exclude_defaults=True)
    if len(written) > TEAM_BYTES:
        raise TooLarge(f"the agents and prompts of one job have at most {TEAM_BYTES} bytes together")
    return Team.model_validate_json(written)  # as a successor reads it: which fields are set counts, too


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
        assert isinstance(profile.body, Profile)
        body = profile.body
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


def _pinned(table: Declarations, reference: str) -> PinnedPrompt:
    found = table.find("prompt", reference)
    assert isinstance(found.body, Prompt)
    return PinnedPrompt(reference=reference, version=found.version, template=found.body.template, variables=found.body.variables)


def check_declared(table: Declarations, name: str, body: object, offered: Collection[str]) -> None:
    """Whether this may be declared, as of now. Raises as `resolve`, and InvalidInput."""
    if isinstance(body, Prompt):
        check_prompt(body)
    if isinstance(body, Agent):
        if body.system is not None and body.prompt is not None:
            raise InvalidInput("an agent has `system` or `prompt`, not both")
        member_of(table, body, name, body.version, offered)
