"""Model cards: what a job's names of models stand for is in its first event, and nothing that is declared later changes its steps."""

from __future__ import annotations

from typing import Any

import pytest

from services.planner.state.policy import Policy
from shared.contracts.agents import Agent, ModelCard, Profile
from shared.contracts.failure import FailureKind
from shared.contracts.usage import Price
from tests.unit.planner.desk import Desk, dispatched, published, succeeded
from tests.unit.planner.test_teams import declare, versions

STEPS = [{}, {"model": "tier:small"}, {"agent": "mine"}]
CHAIN: dict[str, Any] = {
    "pattern": "chain",
    "prompt": "q",
    "input": {"steps": [{"name": f"s{number}", "template": "{input}", **more} for number, more in enumerate(STEPS)]},
}


@pytest.fixture
def desk() -> Desk:
    made = Desk(Policy(capabilities=("chat", "embed")))
    card(made, "smart", model="a:1", synonyms=("gpt-4o",), fallbacks=("b:1",), price=Price(prompt_per_million=2.0))
    card(made, "tiny", model="t:1", tier="small")
    declare(made, Agent(system="A", profile="sure"))
    declare(made, Profile(model="smart", fallback_models=("tiny",)), "profile", "sure")
    return made


def card(desk: Desk, name: str, **fields: Any) -> None:
    declare(desk, ModelCard(**fields), "card", name)


def asked(desk: Desk, **job: Any) -> list[tuple[str, ...]]:
    """The models of each step of a chain, in order, while the registry changes and planners take over in between."""
    found = []
    round_ = desk.submit(**job)
    while steps := dispatched(round_):
        found += [(step.model, *step.fallback_models) for step in steps]
        for name, fields in {"smart": {"model": "other:1"}, "tiny": {"model": "other:2", "tier": "small"}}.items():
            card(desk, name, **fields)
        desk.take_over()
        desk.snapshot(desk.job)
        desk.take_over()
        round_ = desk.say(succeeded(desk.job, desk.step, "fine", claim=None))
    return found


def test_a_job_keeps_the_models_that_its_names_stood_for(desk: Desk) -> None:
    """Its own, those in its pattern's input, and those of its agents; over successors and snapshots."""
    assert asked(desk, **CHAIN, model="gpt-4o") == [("a:1", "b:1"), ("t:1",), ("a:1", "t:1")]
    assert asked(desk, **CHAIN, model="gpt-4o")[0] == ("gpt-4o",), "the synonym has gone with the card's new version"


def test_who_would_ask_nodes_for_the_name_leaves_it_alone(desk: Desk) -> None:
    assert versions(desk.submit(prompt="q", model="gpt-4o")) == [7]
    assert versions(desk.snapshot(desk.job)) == [7]
    assert desk.step.request.model == "a:1"
    assert versions(desk.submit(prompt="q", model="c:1")) == [2]
    assert versions(desk.snapshot(desk.job)) == [2]


def test_a_step_says_what_its_card_says_that_it_costs(desk: Desk) -> None:
    [step] = dispatched(desk.submit(prompt="q", model="gpt-4o"))
    assert step.prices == {"a:1": Price(prompt_per_million=2.0)}
    [step] = dispatched(desk.submit(prompt="q", model="tiny"))
    assert step.prices == {}


def test_a_tier_that_no_card_is_of_ends_the_job_typed(desk: Desk) -> None:
    round_ = desk.submit(prompt="q", model="tier:large")
    [result] = published(round_)
    assert result.failure.kind is FailureKind.INVALID_JOB
    assert "of tier large" in result.failure.message
