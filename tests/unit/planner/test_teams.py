"""Teams: what a job uses of the registry is pinned in its first event, and nothing that is declared later changes it."""

from __future__ import annotations

from typing import Any

import pytest

from services.planner.round import Round
from services.planner.state.policy import Policy
from shared.agents.built_in import AGENTS
from shared.contracts.agents import Agent, Declared, Team, Tool
from shared.contracts.chat import Answer, ChatMessage
from shared.contracts.event import EVENT, JobAccepted
from shared.contracts.failure import FailureKind
from shared.contracts.job import Job
from shared.contracts.versions import VERSIONS, version_of
from shared.patterns.context import Context
from shared.patterns.port import Pattern, PatternInput
from tests.unit.planner import desk as desks
from tests.unit.planner.desk import Desk, dispatched, published, succeeded


class DuetInput(PatternInput):
    agents: tuple[str, str]
    closing_prompt_ref: str | None = None


async def duet(ctx: Context, job: Job, ask: DuetInput) -> Answer:
    """Both after one another."""
    answer = Answer()
    for agent in ask.agents:
        answer = await ctx.ask(ctx.request(job, agent, ChatMessage(role="user", content=answer.text or "begin")))
    return answer


JOB: dict[str, Any] = {"prompt": "q", "pattern": "duet", "input": {"agents": ["critic", "mine"]}}


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(desks, "EXTRA", (Pattern("duet", 1, duet, DuetInput),))
    made = Desk(Policy(capabilities=("chat", "embed", "tools")))
    declare(made, Agent(system="A"))
    return made


def declare(desk: Desk, body: Declared, kind: str = "agent", name: str = "mine") -> None:
    table = desk.policy.declared
    for key, value in table.to_declare(kind, name, body, at=0.0, by="").items():
        table.on_entry(kind, key, value)


def told(round_: Round) -> list[str]:
    """What each step's agent is told first."""
    return [(step.messages or ())[0].content for step in dispatched(round_)]


def versions(round_: Round) -> list[int]:
    return [
        round_.newer.get((group, index), VERSIONS.get(kind, 1))
        for group, events in round_.events.items()
        for index, (kind, _) in enumerate(events)
    ]


def test_a_job_goes_on_with_what_it_was_accepted_with(desk: Desk) -> None:
    """The registry moves on and the planner is replaced, before and after a snapshot; a new job gets what is new."""
    assert told(desk.submit(**JOB)) == [AGENTS["critic"].system]
    job = desk.job
    declare(desk, Agent(system="B"))
    desk.take_over()
    desk.snapshot(desk.job)
    desk.take_over()
    assert told(desk.say(succeeded(desk.job, desk.step, "fine", claim=None))) == ["A"]
    assert desk.job.accepted.team == job.accepted.team
    desk.submit(**JOB)
    assert told(desk.say(succeeded(desk.job, desk.step, "fine", claim=None))) == ["B"]


def test_who_would_not_see_the_team_leaves_it_alone(desk: Desk) -> None:
    """Its acceptance and its snapshot are of a newer version; those of other jobs are not. Where there are tools, of one newer still."""
    assert versions(desk.submit(**JOB)) == [4]
    assert versions(desk.snapshot(desk.job)) == [4]
    declare(desk, Tool(), "tool", "clock")
    declare(desk, Agent(system="A", tools=("clock",)))
    assert versions(desk.submit(**JOB)) == [5]
    assert versions(desk.snapshot(desk.job)) == [5]
    assert versions(desk.submit(prompt='{"type":"job_accepted","team":{}}', metadata={"team": "x"})) == [2]
    assert versions(desk.snapshot(desk.job)) == [2]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"agents": ["critic", "nobody"]}, "there is no agent nobody; known: "),
        ({"agents": ["mine"] * 2, "closing_prompt_ref": "none"}, "known: none"),
    ],
)
def test_what_is_unknown_ends_the_job_typed(desk: Desk, given: Any, words: str) -> None:
    """With the known names; nothing is asked of a model."""
    round_ = desk.submit(**{**JOB, "input": given})
    [result] = published(round_)
    assert result.failure.kind is FailureKind.INVALID_JOB
    assert words in result.failure.message
    assert dispatched(round_) == []


def test_a_job_that_names_nobody_is_written_as_ever(desk: Desk) -> None:
    round_ = desk.submit()
    [accepted] = [event for _, value in desk.history if isinstance(event := EVENT.validate_json(value), JobAccepted)]
    assert (accepted.team, version_of(accepted), versions(round_)) == (Team(), 2, [2])
