"""The choice of a model: what there was to choose from, and how, stands in history; a successor chooses the same, whatever comes later."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.planner.state.policy import Policy
from shared.agents import suiting
from shared.agents.suiting import read
from shared.contracts.agents import Belief, Profile, RatedModel
from shared.contracts.base import PriorityClass
from shared.contracts.budget import TenantLimits
from shared.contracts.chat import Options
from shared.contracts.event import StepAsked
from shared.contracts.usage import Usage
from tests.unit.planner.desk import Desk, dispatched, last, succeeded
from tests.unit.planner.test_cards_are_pinned import card
from tests.unit.planner.test_teams import declare, versions

CODE, POEM = "Write a Python function that sorts a list.", "Write a poem about the sea."
TWO: dict[str, Any] = {
    "pattern": "chain",
    "prompt": "q",
    "input": {"steps": [{"name": "a", "template": CODE}, {"name": "b", "template": POEM}]},
}
FORK: dict[str, Any] = {
    "pattern": "fork",
    "prompt": "q",
    "input": {"of": "j_1", "pattern": "chain", "version": 1, "given": TWO["input"]},
}


def made(tenants: dict[str, TenantLimits] | None = None, **policy: Any) -> Desk:
    desk = Desk(Policy(capabilities=("chat", "embed"), **policy), tenants=tenants)
    card(desk, "coder", model="coder:7b", tier="medium", quality={"chat": 0.5, "code": 0.9})
    card(desk, "poet", model="poet:7b", tier="medium", quality={"creative": 0.9, "chat": 0.6})
    card(desk, "tiny", model="tiny:1b", tier="small", quality={"chat": 0.1}, window=100)
    return desk


@pytest.fixture
def desk() -> Desk:
    return made()


def asked(desk: Desk, **job: Any) -> list[tuple[str, float | None]]:
    """(model, temperature) of each step in order, while what is known changes, and planners take over in between."""
    found, round_ = [], desk.submit(**job)
    while steps := dispatched(round_):
        found += [(step.model, step.options.temperature) for step in steps]
        for name in ("coder", "poet"):
            card(desk, name, model=f"other-{name}", tier="large", quality={"chat": 1.0})
        declare(desk, Profile(options=Options(temperature=2.0)), "profile", "creative")
        desk.take_over()
        desk.snapshot(desk.job)
        desk.take_over()
        round_ = desk.say(succeeded(desk.job, desk.step, "fine", claim=None))
    return found


def test_a_successor_chooses_as_its_planner_would_have(desk: Desk) -> None:
    assert asked(desk, **TWO) == [("coder:7b", 0.1), ("poet:7b", 0.9)]
    assert [temperature for _, temperature in asked(desk, **TWO)] == [0.1, 2.0], "a profile of the same name replaces what is built in"


def test_who_would_choose_nothing_leaves_it_alone(desk: Desk) -> None:
    assert versions(desk.submit(prompt=CODE)) == [7]
    assert versions(desk.snapshot(desk.job)) == [7]
    assert versions(desk.submit(prompt=CODE, model="coder:9b")) == [2]


def test_history_tells_how_it_was_chosen(desk: Desk) -> None:
    desk.submit(prompt=CODE)
    event = last(desk, StepAsked)
    assert isinstance(event, StepAsked)
    assert (told := read(event.choice or "")) is not None
    assert (told.kind, next(iter(told.scores)), told.left_out) == ("code", "coder:7b", {"tiny:1b": "window"})


@pytest.mark.parametrize("model", ["auto", "tier:medium"])
@pytest.mark.parametrize("job", [TWO, FORK], ids=["chain", "fork"])
def test_another_release_that_chooses_otherwise_lets_a_job_go_on(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, job: dict[str, Any], model: str
) -> None:
    """Its weights, its words: what was asked is known by what the pattern asked for, not by what was chosen for that."""
    desk.submit(**job, model=model)
    asked_ = desk.step
    monkeypatch.setattr(suiting, "_quality", lambda row, *_: row.model == "poet:7b")
    desk.take_over()
    assert (desk.step.id, desk.step.request.model, asked_.request.model) == (asked_.id, "poet:7b", "coder:7b")
    [poem] = dispatched(desk.say(succeeded(desk.job, desk.step, "fine", claim=None)))
    assert poem.model == "poet:7b"


def test_a_tenant_may_have_it_off() -> None:
    desk = made({"plain": TenantLimits(choice=False)})
    [step] = dispatched(desk.submit(prompt=CODE, tenant="plain"))
    assert (step.model, step.options) == ("auto", Options())
    [step] = dispatched(desk.submit(prompt=CODE))
    assert step.model == "coder:7b"


def test_where_no_card_says_how_good_a_model_is_nothing_changes() -> None:
    desk = Desk()
    card(desk, "plain", model="plain:1b")
    assert versions(desk.submit(prompt=CODE)) == [2]
    assert desk.step.request.model == "auto"


def test_what_is_believed_and_seen_is_that_of_the_acceptance() -> None:
    beliefs: dict[str, Belief] = {}
    desk = made(learned=lambda tenant, model: {"code": beliefs[model]} if tenant == "default" and model in beliefs else {})
    beliefs["coder:7b"] = Belief(bad=100)
    desk.submit(prompt=CODE)
    assert desk.step.request.model == "poet:7b"
    assert {row.model: row.beliefs for row in desk.job.accepted.team.rated}["coder:7b"] == {"code": Belief(bad=100)}
    beliefs.clear()
    desk.take_over()
    assert desk.step.request.model == "poet:7b"

    class Seen:
        looks = 0

        def models(self) -> dict[str, RatedModel]:
            Seen.looks += 1
            return {"poet:7b": RatedModel(model="poet:7b", state="free")}

    desk.book.mailboxes = type("Mailboxes", (Seen,), {"give": lambda *_: None, "digest": lambda *_: None})()
    desk.submit(prompt=CODE)
    assert [row.state for row in desk.job.accepted.team.rated] == ["free", "away", "away"]
    assert desk.step.request.model == "poet:7b"
    desk.submit(prompt=CODE, model="coder:7b")
    assert Seen.looks == 1, "a job that names its model has nothing to choose from"


def test_who_has_spent_nearly_all_gets_the_cheapest(desk: Desk) -> None:
    """By what history says that the steps before have cost, also for a successor."""
    for name, price in {"coder": 0.1, "poet": 1.0}.items():
        fields = desk.policy.declared.find("card", name).body.model_dump(exclude_unset=True)
        card(desk, name, **{**fields, "price": {"completion_per_million": price}})
    desk.submit(**TWO, limits={"cost": 1.0})
    spent = Usage(calls=1, completion_tokens=1_000_000, cost=0.85)
    said = succeeded(desk.job, desk.step, "fine", claim=None).model_copy(update={"usage": spent})
    [poem] = dispatched(desk.say(said))
    assert poem.model == "coder:7b"
    desk.take_over()
    assert desk.step.request.model == "coder:7b"


@pytest.mark.parametrize(("named", "idle"), [({}, 50_000.0), ({"deadline_seconds": 80_000.0}, 0.0)])
def test_time_that_people_take_leaves_no_model_out(desk: Desk, named: dict[str, Any], idle: float) -> None:
    """A deadline that nobody named stands still meanwhile; another one does not."""
    review = {"deadline_seconds": 50_000.0, "default": "approve"}
    steps = [{"name": "a", "template": CODE, "review": review}, {"name": "b", "template": CODE}, {"name": "c", "template": CODE}]
    desk.submit(prompt="q", pattern="chain", input={"steps": steps}, **named)
    desk.say(succeeded(desk.job, desk.step, "fine", claim=None))
    desk.wait(50_001.0)
    desk.say(succeeded(desk.job, desk.step, "fine", claim=None))
    for _ in range(2):
        used = desk.job.run.context.so_far
        assert (used.seconds, used.idle) == pytest.approx((50_001.0, idle), abs=2.0)
        desk.take_over()


def test_a_step_is_served_in_no_more_urgent_class_than_it_asks_for(desk: Desk) -> None:
    for asked_, served in {None: "standard", "batch": "batch", "interactive": "standard"}.items():
        [step] = dispatched(desk.submit(prompt="q", needs={} if asked_ is None else {"at_most": asked_}))
        assert step.priority_class is PriorityClass(served)


@given(
    st.lists(st.sampled_from([CODE, POEM, "hi", "2 + 2 = x", "x" * 500]), min_size=1, max_size=4), st.sampled_from(["auto", "tier:medium"])
)
def test_a_replay_gives_the_same_choice(prompts: list[str], model: str) -> None:
    """Of samples and chains alike; else its history would be refused as not the pattern's."""
    desk = made(learned=lambda *_: {"code": Belief(good=3, bad=2), "other": Belief(good=1, bad=1)})
    steps = [{"name": f"s{number}", "template": text} for number, text in enumerate(prompts)]
    round_ = desk.submit(prompt="q", pattern="chain", input={"steps": steps}, model=model)
    while dispatched(round_):
        before = desk.step.request
        desk.take_over()
        assert desk.step.request == before
        round_ = desk.say(succeeded(desk.job, desk.step, "fine", claim=None))
