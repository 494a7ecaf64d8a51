"""Resolving: what a job names becomes what it pins, whole, or one typed error."""

from __future__ import annotations

import pytest

from shared.agents.resolving import TEAM_BYTES, check_declared, member, resolve
from shared.agents.table import Declarations, Undeclared
from shared.contracts.agents import Agent, Declared, Profile, Prompt, Team, Tool
from shared.contracts.base import ModelName
from shared.contracts.chat import Options
from shared.contracts.job import Needs
from shared.errors import InvalidInput, TooLarge
from shared.patterns.port import PatternInput, agents_named, demands_named, prompts_named

OFFERED = frozenset({"chat", "critic", "tools"})


def declared(**kinds: dict[str, Declared]) -> Declarations:
    table = Declarations()
    for kind, bodies in kinds.items():
        for name, body in bodies.items():
            for key, value in table.to_declare(kind, name, body, at=0.0, by="").items():
                table.on_entry(kind, key, value)
    return table


def test_a_member_holds_its_prompt_and_profile() -> None:
    prompt = Prompt(template="You are {{ agent }}: {{ about }}", variables=("agent", "about"))
    profile = Profile(options=Options(temperature=0.5), model="m:1", fallback_models=("m:2",), needs=Needs(min_context=4_096))
    agent = Agent(about="reads.", prompt="role", profile="calm", tools=("search",), output={"type": "object"})
    table = declared(prompt={"role": prompt}, profile={"calm": profile}, agent={"reader": agent}, tool={"search": Tool()})
    [found] = resolve(table, ["reader"], [], OFFERED).members
    assert (found.system, found.version, found.name) == ("You are reader: reads.", agent.version, "reader")
    assert (found.model, found.fallback_models, found.options, found.needs) == ("m:1", ("m:2",), profile.options, profile.needs)
    assert (found.prompt, found.profile) == (f"role@{prompt.version}", f"calm@{profile.version}")
    assert (found.tools, found.output, found.about) == (("search",), {"type": "object"}, "reads.")


def test_tools_are_pinned_of_the_input_and_of_the_agents() -> None:
    """Each once, in their version, as they are told to models."""
    search, clock = Tool(about="Looks it up.", parameters={"type": "object"}, idempotent=True), Tool(about="The time.")
    table = declared(agent={"reader": Agent(tools=("search",))}, tool={"search": search, "clock": clock})
    found = resolve(table, ["reader"], [], OFFERED, ["clock@latest", "search"]).tools
    assert [(tool.reference, tool.name, tool.version) for tool in found] == [
        ("clock@latest", "clock", clock.version),
        ("search", "search", search.version),
    ]
    assert (found[1].about, found[1].parameters, found[1].idempotent) == ("Looks it up.", {"type": "object"}, True)
    for wrong, words in ((["cook"], "there is no tool cook; known: clock, search"), (["clock", "clock@latest"], "one version of a tool")):
        with pytest.raises(InvalidInput, match=words):
            resolve(table, [], [], OFFERED, wrong)
    with pytest.raises(InvalidInput, match="no capability tools"):
        resolve(table, [], [], OFFERED - {"tools"}, ["clock"])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (Agent(tools=("cook",)), "there is no tool cook; known: none"),
        (Agent(capability="tools"), "no agent has it"),
        (Tool(parameters={"type": "string"}), "schema of an object"),
    ],
)
def test_what_no_job_could_use_is_not_declared(body: Declared, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        check_declared(Declarations(), "x", body, OFFERED)


def test_a_text_in_about_is_not_read_as_a_template() -> None:
    table = declared(
        prompt={"role": Prompt(template="{{ about }}", variables=("about",))}, agent={"x": Agent(about="{{ agent }}", prompt="role")}
    )
    assert member(table, "x", OFFERED).system == "{{ agent }}"


def test_a_capability_that_is_not_offered_becomes_chat() -> None:
    team = resolve(Declarations(), ["critic", "research"], [], OFFERED)
    assert [each.capability for each in team.members] == ["critic", "chat"]


def test_each_reference_once_and_under_its_own_words() -> None:
    table = declared(prompt={"p": Prompt(template="x")})
    version = table.find("agent", "critic").version
    team = resolve(table, ["critic", f"critic@{version}", "critic"], ["p", "p@latest", "p"], OFFERED)
    assert [each.reference for each in team.members] == ["critic", f"critic@{version}"]
    assert [each.reference for each in team.prompts] == ["p", "p@latest"]
    assert resolve(table, [], [], OFFERED) == Team()


def test_what_is_pinned_is_as_a_successor_reads_it() -> None:
    """Which fields are set, too: a pattern may ask for that."""
    table = declared(profile={"bare": Profile(options=Options(temperature=None, seed=3))}, agent={"x": Agent(profile="bare")})
    team = resolve(table, ["x"], [], OFFERED)
    again = Team.model_validate_json(team.encoded(exclude_defaults=True))
    assert team.members[0].options.model_fields_set == again.members[0].options.model_fields_set == {"seed"}


@pytest.mark.parametrize(
    ("agents", "prompts", "kind"),
    [(["nobody"], [], "agent"), (["critic@old"], [], "agent"), ([], ["none"], "prompt"), (["a"], [], "profile")],
)
def test_who_is_unknown_is_a_typed_error(agents: list[str], prompts: list[str], kind: str) -> None:
    table = declared(profile={"gone": Profile()}, agent={"a": Agent(profile="gone")})
    for key, value in table.to_remove("profile", "gone").items():
        table.on_entry("profile", key, value)
    with pytest.raises(Undeclared, match=r"known: |aliases: ") as raised:
        resolve(table, agents, prompts, OFFERED)
    assert raised.value.code == f"unknown_{kind}"


def test_a_prompt_that_needs_more_than_an_agent_has_is_refused() -> None:
    table = declared(prompt={"p": Prompt(template="{{ tone }}", variables=("tone",))}, agent={"a": Agent(prompt="p")})
    with pytest.raises(InvalidInput):
        resolve(table, ["a"], [], OFFERED)


def test_a_job_pins_a_bounded_team() -> None:
    table = declared(agent={f"a{number}": Agent(system="x" * (TEAM_BYTES // 20)) for number in range(25)})
    assert len(resolve(table, [f"a{number}" for number in range(18)], [], OFFERED).members) == 18
    with pytest.raises(TooLarge):
        resolve(table, [f"a{number}" for number in range(24)], [], OFFERED)
    with pytest.raises(InvalidInput, match="at most 24"):
        resolve(table, [f"a{number}" for number in range(25)], [], OFFERED)


class Part(PatternInput):
    agent: str | None = None
    model: ModelName | None = "m"
    fallback_models: tuple[ModelName, ...] = ()


class Named(PatternInput):
    agents: tuple[str, ...] = ()
    judge_agent: str = "judge"
    final_agents: tuple[str, ...] = ()
    prompt_ref: str | None = None
    vote_prompt_ref: str | None = None
    reagent: str = "no"
    prompt: str = "no"
    parts: tuple[Part, ...] = ()
    inner: Part = Part()


def test_an_input_is_searched_for_what_it_names() -> None:
    """By the ends of its fields' names, and in what it holds."""
    ask = Named(agents=("a", "b"), final_agents=("c",), prompt_ref="p", vote_prompt_ref="q", parts=(Part(agent="d"), Part(model="n")))
    assert list(agents_named(ask)) == ["a", "b", "judge", "c", "d"]
    assert list(prompts_named(ask)) == ["p", "q"]
    assert list(demands_named(ask, "own")) == [("m",), ("n",), ("m",)]
    stands_in = Named(parts=(Part(fallback_models=("x", "y")), Part(model=None, fallback_models=("z",))), inner=Part(model=None))
    assert list(demands_named(stands_in, "own")) == [("m", "x", "y"), ("own", "z")]
