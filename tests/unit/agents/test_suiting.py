"""Suiting: for whatever is asked there is a choice, the same each time; a caller's word counts; better never loses to equal; a job that
has spent nearly all gets the cheapest that fits.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.agents.cards import cards_of
from shared.agents.resolving import with_choice, with_models
from shared.agents.suiting import MOST_BYTES, KnownModels, Means, chosen, in_words, rated, read
from shared.agents.table import Undeclared
from shared.contracts.agents import NOBODY, Belief, RatedModel, Team
from shared.contracts.base import PriorityClass
from shared.contracts.chat import ChatMessage, Operation, Options
from shared.contracts.job import Needs
from shared.contracts.step import StepRequest
from shared.contracts.usage import Price
from tests.unit.agents.test_cards import table

FLEET = table(
    big={"model": "qwen3:32b", "tier": "large", "quality": {"chat": 0.9}, "price": Price(prompt_per_million=5, completion_per_million=15)},
    coder={"model": "coder:7b", "tier": "medium", "quality": {"chat": 0.5, "code": 0.95}},
    eyes={"model": "llava:7b", "tier": "medium", "abilities": ("vision",), "quality": {"chat": 0.4}, "window": 4_096},
    tiny={"model": "qwen3:0.6b", "tier": "small", "quality": {"chat": 0.4}, "window": 2_048},
    vectors={"model": "nomic", "tier": "small", "capabilities": ("embed",)},
    plain={"model": "plain:1b"},
)
NOTHING, PLENTY = KnownModels(), Means()
POEM, CODE, FACT = "Write a poem about the sea.", "Write a Python function that sorts a list.", "What is the capital of Peru?"


def team_of(*names: str, known: KnownModels = NOTHING, capability: str = "chat") -> Team:
    return with_choice(FLEET, with_models(FLEET, NOBODY, [names], capability), [names], capability, known)


def middle(label: str) -> float:
    return 0.5


def asked(text: str, *, model: str = "auto", **fields: Any) -> StepRequest:
    return StepRequest(messages=(ChatMessage(role="user", content=text),), model=model, **fields)


def put(request: StepRequest, team: Team | None = None, means: Means = PLENTY) -> StepRequest:
    return chosen(request, team or team_of(request.model, *request.fallback_models), means, middle)[0]


def models(request: StepRequest, team: Team | None = None, means: Means = PLENTY) -> list[str]:
    found = put(request, team, means)
    return [found.model, *found.fallback_models]


def test_what_is_asked_goes_to_the_model_that_suits_it() -> None:
    seen = {"plain:1b:latest": RatedModel(model="plain:1b")}
    assert models(asked(CODE))[0] == "coder:7b"
    assert models(asked("long " * 8_000))[0] == "qwen3:32b"
    picture = StepRequest(messages=(ChatMessage(role="user", content="What is this?", images=("aGk=",)),))
    assert models(picture)[0] == "llava:7b", "the others say nothing of pictures"
    assert models(asked("hi there"), means=Means(PriorityClass.BATCH))[0] != "qwen3:32b", "a chat is not worth the dearest"
    assert "plain:1b" not in models(asked(CODE), team_of("auto", known=KnownModels(seen=seen))), "nobody has said how good it is"


def test_any_model_stands_behind_those_that_were_chosen() -> None:
    assert models(asked(FACT))[-1] == "auto"
    assert models(asked(FACT, model="c:1", fallback_models=("auto",)))[::5] == ["c:1", "auto"]


def test_a_tier_is_meant_and_falls_back_as_the_demand_says() -> None:
    assert models(asked(CODE, model="tier:medium")) == ["coder:7b", "llava:7b"]
    assert models(asked(CODE, model="tier:large", fallback_models=("tier:small",))) == ["qwen3:32b", "qwen3:0.6b"]
    assert models(asked("long " * 8_000, model="tier:small", fallback_models=("tier:large",))) == ["qwen3:32b"], "the small one has no room"
    lone = table(tiny={"model": "qwen3:0.6b", "tier": "small"})
    demand = ("tier:large", "tier:small")
    team = with_choice(lone, with_models(lone, NOBODY, [demand], "chat"), [demand], "chat", NOTHING)
    assert models(asked(POEM, model=demand[0], fallback_models=demand[1:]), team) == ["qwen3:0.6b"]
    assert put(asked(POEM, model=demand[0], fallback_models=demand[1:]), team).options.temperature == 0.9
    with pytest.raises(Undeclared, match="of tier large"):
        with_models(lone, NOBODY, [demand[:1], demand[1:]], "chat")
    assert models(asked("long " * 8_000, model="tier:small", fallback_models=("x:1",))) == ["x:1"]
    assert models(asked("long " * 8_000, model="tier:small")) == ["qwen3:0.6b"], "nothing fits: who knows the nodes says what is wrong"


def test_a_callers_word_counts() -> None:
    """Of the model, and of each option; nothing is added to a model that he names."""
    assert put(asked(POEM, model="qwen3:32b"), team_of("qwen3:32b", "auto")).options == Options()
    poem = put(asked(POEM)).options
    assert (poem.temperature, poem.top_p) == (0.9, 0.95)
    own = put(asked(POEM, options=Options(temperature=0.0))).options
    assert (own.temperature, own.top_p) == (0.0, 0.95)
    assert put(asked(CODE)).options.temperature == 0.1
    assert put(asked("Go on.")).options == Options(), "of no kind that is known"


def test_a_declared_profile_and_a_cards_own_options_replace_what_is_built_in() -> None:
    rows = tuple(row.changed(options=Options(top_p=0.5), prefers=("gpu",)) for row in team_of("auto").rated)
    mine = Team(rated=rows, profiles={"creative": Options(temperature=1.5, top_p=0.7)})
    found = put(asked(POEM), mine)
    assert (found.options, found.needs.prefers) == (Options(temperature=1.5, top_p=0.5), ("gpu",))
    assert put(asked(POEM, needs=Needs(prefers=())), mine).needs.prefers == ()


@pytest.mark.parametrize("operation", [Operation.EMBED, Operation.TOOL, Operation.CRITIQUE, Operation.MANAGE])
def test_only_what_a_model_writes_is_chosen(operation: Operation) -> None:
    request = asked(FACT, operation=operation)
    assert chosen(request, team_of("auto"), Means(), middle) == (request, None)


def test_nothing_is_pinned_where_nothing_is_to_be_chosen() -> None:
    assert team_of("qwen3:32b").rated == team_of("auto", capability="embed").rated == ()
    assert with_choice(table(plain={"model": "plain:1b"}), NOBODY, [("auto",)], "chat", KnownModels()) is NOBODY
    assert with_choice(table(), NOBODY, [("auto",)], "chat", KnownModels()) is NOBODY
    assert {row.model for row in team_of("tier:small").rated} == {"qwen3:0.6b"}


def test_what_the_fleet_is_like_is_pinned_with_it() -> None:
    """Who is away stands behind who lives; nodes' words fill in what a card leaves out."""
    seen = {
        "qwen3:0.6b": RatedModel(model="qwen3:0.6b", state="free", speed=90.0, window=512),
        "llava:7b": RatedModel(model="llava:7b", state="busy", speed=9.0, window=512, abilities={"tools": False}),
    }
    rows = {row.model: row for row in rated(cards_of(FLEET), ["auto"], "chat", KnownModels(seen=seen))}
    assert (rows["qwen3:32b"].state, rows["qwen3:0.6b"].state, rows["llava:7b"].window) == ("away", "free", 4_096)
    assert rows["llava:7b"].abilities == {"tools": False, "vision": True}
    assert models(asked(CODE), team_of("auto", known=KnownModels(seen=seen)))[:2] == ["qwen3:0.6b", "llava:7b"]


def test_what_judges_said_outweighs_a_card_in_the_end() -> None:
    def learned(model: str) -> dict[Any, Belief]:
        return {"code": Belief(good=1, bad=60)} if model == "coder:7b" else {"code": Belief(good=60)} if model == "llava:7b" else {}

    assert models(asked(CODE), team_of("auto", known=KnownModels(learned)))[0] == "llava:7b"
    assert (
        models(asked(CODE), team_of("auto", known=KnownModels(lambda model: {"code": Belief(bad=1)} if model == "coder:7b" else {})))[0]
        == "coder:7b"
    )


def test_what_is_judged_is_drawn_from_what_is_believed() -> None:
    """So that one that may be better is tried; of what was judged often hardly, and of what nobody judges never."""
    fact = asked(FACT, model="tier:medium")

    def drawn(**belief: float) -> tuple[str, bool]:
        known = KnownModels(lambda _: {"factual": Belief(**belief)} if belief else {})
        found, told = chosen(fact, team_of("tier:medium", known=known), PLENTY, lambda label: 0.99 if label == "llava:7b" else 0.01)
        return found.model, told is not None and (shown := read(told)) is not None and shown.judged

    assert drawn(good=1, bad=1) == ("llava:7b", True)
    assert drawn() == ("coder:7b", False)
    sure = KnownModels(lambda model: {"factual": Belief(good=900 if model == "coder:7b" else 500, bad=500)})
    often = chosen(fact, team_of("tier:medium", known=sure), PLENTY, lambda label: 0.99 if label == "llava:7b" else 0.01)
    assert often[0].model == "coder:7b"


def test_little_money_is_spent_on_the_cheapest_and_little_time_on_the_fast() -> None:
    dear = Price(completion_per_million=1_000.0)
    rows = (
        RatedModel(model="good", quality={"chat": 1.0}, price=dear, speed=10.0),
        RatedModel(model="cheap", quality={"chat": 0.1}, price=Price(completion_per_million=1.0), speed=100.0),
    )
    maths = asked("Solve the equation.")
    assert models(maths, Team(rated=rows))[0] == "good"
    assert models(maths, Team(rated=rows), Means(cost=10.0, spent=8.5))[0] == "cheap"
    assert models(maths, Team(rated=rows), Means(cost=10.0, spent=9.9)) == ["cheap", "auto"], "the other one costs more than is left"
    assert models(maths, Team(rated=rows), Means(seconds=5.0)) == ["cheap", "auto"]


def test_a_bound_of_an_answer_is_not_its_length_and_the_slow_are_better_than_nobody() -> None:
    """Clients always name one, far above what they get; and where all are too slow the best is taken."""
    rows = (RatedModel(model="good", quality={"chat": 1.0}, speed=20.0), RatedModel(model="poor", quality={"chat": 0.1}, speed=30.0))
    in_time = Means(PriorityClass.INTERACTIVE, seconds=120.0)
    for most in (None, 4_096, 32_000):
        assert models(asked(CODE, options=Options(max_tokens=most)), Team(rated=rows), in_time) == ["good", "poor", "auto"]
    assert models(asked(CODE), Team(rated=rows), Means(seconds=1.0)) == ["good", "poor", "auto"]
    assert models(asked(CODE), Team(rated=(rows[0].changed(speed=5e-324),))) == ["good", "auto"]
    small = rows[1].changed(window=1)
    assert models(asked(CODE), Team(rated=(rows[0], small)), Means(seconds=1.0)) == ["good", "auto"]


ROWS = st.builds(
    RatedModel,
    model=st.sampled_from(["a:1", "b:1", "c:1", "d:1"]),
    tier=st.sampled_from([None, "small", "medium", "large"]),
    quality=st.dictionaries(st.sampled_from(["chat", "code", "other"]), st.floats(0, 1), max_size=3),
    price=st.none() | st.builds(Price, prompt_per_million=st.floats(0, 1e6), completion_per_million=st.floats(0, 1e6)),
    window=st.none() | st.integers(1, 10**6),
    abilities=st.dictionaries(st.sampled_from(["vision", "tools", "thinking"]), st.booleans(), max_size=3),
    state=st.sampled_from([None, "free", "busy", "cold", "away"]),
    speed=st.none() | st.floats(0, 1e9),
    load_seconds=st.none() | st.floats(0, 1e12),
    beliefs=st.dictionaries(
        st.sampled_from(["code", "other"]), st.builds(Belief, good=st.floats(0, 1e6), bad=st.floats(0, 1e6)), max_size=2
    ),
)
TEAMS = st.builds(Team, rated=st.lists(ROWS, max_size=5, unique_by=lambda row: row.model).map(tuple))
NAMES = st.sampled_from(["auto", "tier:small", "tier:large", "a:1", "x:1"])
REQUESTS = st.builds(
    StepRequest,
    model=NAMES,
    fallback_models=st.lists(NAMES, max_size=8).map(tuple),
    operation=st.sampled_from(list(Operation)),
    messages=st.lists(st.builds(ChatMessage, role=st.just("user"), content=st.sampled_from([POEM, CODE, "", "x" * 9_000])), max_size=2).map(
        tuple
    ),
    tools=st.sampled_from([(), ({"type": "function"},)]),
    options=st.builds(Options, max_tokens=st.none() | st.integers(1, 10**6), temperature=st.none() | st.floats(0, 5)),
)
MEANS = st.builds(
    Means, st.sampled_from(list(PriorityClass)), st.floats(-1e9, 1e9), st.none() | st.floats(0, 1e9), st.floats(0, 1e9)
)  # fmt: skip


@given(REQUESTS, TEAMS, MEANS, st.floats(0, 0.999))
def test_whatever_is_asked_there_is_a_choice_and_the_same_as_read_again(
    request_: StepRequest, team: Team, means: Means, drawn: float
) -> None:
    """A valid request, the caller's options in it, a bounded reason; the same of the team as a successor reads it."""
    found, told = chosen(request_, team, means, lambda _: drawn)
    again = Team.model_validate_json(team.to_bytes())
    assert (found, told) == chosen(request_, again, means, lambda _: drawn)
    assert StepRequest.model_validate(dict(found)) == found
    own = request_.options
    assert found.options.temperature == own.temperature or own.temperature is None
    if request_.model in {"a:1", "x:1"}:
        assert (found.model, found.options) == (request_.model, own)
    if told is not None:
        assert len(told.encode()) <= MOST_BYTES
        assert (shown := read(told)) is not None
        assert in_words(shown)


@given(ROWS, st.floats(0, 1), MEANS, st.sampled_from([POEM, CODE, "", FACT]))
def test_a_better_one_is_never_ranked_below_its_equal(row: RatedModel, less: float, means: Means, text: str) -> None:
    better = row.model_copy(update={"model": "z:1", "quality": {"chat": 1.0}, "beliefs": {}, "tier": "small", "window": None})
    worse = better.model_copy(update={"model": "a:1", "quality": {"chat": less}})
    order = models(asked(text), Team(rated=(worse, better)), means)
    assert "z:1" not in order or less == 1.0 or order.index("z:1") <= order.index("a:1")


def test_an_explanation_of_the_longest_names_fits() -> None:
    rows = tuple(RatedModel(model=f"{number:02d}" + "m" * 190, tier="small", window=1 if number % 2 else None) for number in range(16))
    told = chosen(asked(FACT), Team(rated=rows), Means(), middle)[1]
    assert told is not None
    assert len(told.encode()) <= MOST_BYTES
    assert (shown := read(told)) is not None
    assert in_words(shown)[-1] == "  and 12 more"
