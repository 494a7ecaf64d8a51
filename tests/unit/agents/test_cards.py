"""Cards: what a name means, in which order others answer in its place, what a tier is, and which cards may not be declared."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.agents.cards import applied, cards_of, check_card, pinned_models, prices_of, resolved
from shared.agents.table import Declarations, Undeclared
from shared.contracts.agents import MOST_FALLBACKS, MOST_NAMES, ModelCard, PinnedModel, Team
from shared.contracts.chat import Options
from shared.contracts.step import StepRequest
from shared.contracts.usage import Price
from shared.errors import InvalidInput


def table(**cards: dict[str, Any]) -> Declarations:
    found = Declarations()
    for name, fields in cards.items():
        declare(found, name, ModelCard(**{"model": name, **fields}))
    return found


def declare(found: Declarations, name: str, card: ModelCard) -> None:
    for key, value in found.to_declare("card", name, card, at=0.0, by="").items():
        found.on_entry("card", key, value)


def models(found: Declarations, name: str, capability: str = "chat") -> list[str]:
    one = resolved(cards_of(found), name, capability)
    return [name] if one is None else [one.model, *one.fallback_models]


FLEET = table(
    big={"model": "qwen3:32b", "synonyms": ("gpt-4o", "GPT-4"), "fallbacks": ("middle", "llama3.3:70b"), "tier": "large"},
    middle={"model": "qwen3:8b", "fallbacks": ("qwen3:0.6b",), "tier": "medium"},
    vectors={"model": "nomic", "capabilities": ("embed",), "tier": "small"},
    tiny={"model": "qwen3:0.6b", "tier": "small", "quality": {"chat": 0.2}},
    coder={"model": "coder:1b", "tier": "small", "capabilities": ("chat", "code"), "quality": {"chat": 0.1, "code": 0.9}},
)


@pytest.mark.parametrize("name", ["big", "gpt-4o", "GPT-4", "gpt-4o:latest", "qwen3:32b", "big@latest"])
def test_every_name_of_a_card_means_its_model_and_then_its_chain(name: str) -> None:
    """Depth first: a fallback's own fallbacks stand behind it."""
    assert models(FLEET, name) == ["qwen3:32b", "qwen3:8b", "qwen3:0.6b", "llama3.3:70b"]


@pytest.mark.parametrize("name", ["llama3.3:70b", "auto", "gpt-4", "tier:huge", "big2@latest"])
def test_a_name_without_a_card_is_left_as_it_is(name: str) -> None:
    assert models(FLEET, name) == [name]


@pytest.mark.parametrize(
    ("tier", "capability", "found"),
    [
        ("small", "chat", ["qwen3:0.6b", "coder:1b"]),
        ("small", "code", ["coder:1b", "qwen3:0.6b"]),
        ("small", "embed", ["nomic"]),
        ("large", "chat", ["qwen3:32b"]),
    ],
)
def test_a_tier_is_its_cards_best_first(tier: str, capability: str, found: list[str]) -> None:
    """Of those that serve the capability; they stand for one another."""
    assert models(FLEET, f"tier:{tier}", capability) == found


def test_a_tier_or_an_alias_that_nobody_declared_is_said() -> None:
    with pytest.raises(Undeclared, match="of tier medium for embed"):
        models(FLEET, "tier:medium", "embed")
    with pytest.raises(Undeclared, match="no version or alias canary"):
        models(FLEET, "big@canary")


def test_an_alias_names_an_earlier_version() -> None:
    found = table(fast={"model": "a:1"})
    for key, value in found.to_move("card", "fast", "stable", "latest", at=0.0, by="").items():
        found.on_entry("card", key, value)
    declare(found, "fast", ModelCard(model="b:1"))
    assert (models(found, "fast"), models(found, "fast@stable")) == (["b:1"], ["a:1"])


NAMES = st.sampled_from(["a", "b", "c", "d", "m1", "m2", "m3", "x"])


@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "c", "d"]),
        st.fixed_dictionaries(
            {
                "model": st.sampled_from(["m1", "m2", "m3"]),
                "synonyms": st.lists(NAMES, max_size=3),
                "fallbacks": st.lists(NAMES, max_size=8),
            }
        ),
        max_size=4,
    ),
    NAMES,
)
def test_whatever_was_declared_ends_and_names_no_model_twice(cards: dict[str, Any], name: str) -> None:
    """Circles and names that two claim, which only writers at the same moment can declare: bounded, the same each time, never the alias."""
    found = table(**cards)
    one = resolved(cards_of(found), name)
    assert one == resolved(cards_of(table(**dict(reversed(cards.items())))), name)
    if one is not None:
        chain = [one.model, *one.fallback_models]
        assert len(chain) == len(set(chain)) <= 1 + MOST_FALLBACKS


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("tiny", {"model": "qwen3:0.6b", "fallbacks": ("gpt-4o",)}, "comes back to tiny"),
        ("tiny", {"model": "qwen3:0.6b", "fallbacks": ("tiny",)}, "comes back to tiny"),
        ("new", {"model": "qwen3:32b"}, "qwen3:32b is a name of card big"),
        ("new", {"model": "n", "synonyms": ("gpt-4o",)}, "gpt-4o is a name of card big"),
        ("new", {"model": "n", "synonyms": ("auto",)}, "stand for models of the cluster's choice"),
        ("new", {"model": "n", "fallbacks": ("tier:small",)}, "stand for models of the cluster's choice"),
        ("new", {"model": "n", "quality": {"research": 1}}, "quality of what it is not for: research"),
    ],
)
def test_a_card_that_contradicts_itself_or_another_is_refused(name: str, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        check_card(cards_of(FLEET), name, ModelCard(**fields))
    check_card(cards_of(FLEET), "big", ModelCard(model="qwen3:32b", synonyms=("gpt-4o",)))


def test_a_job_names_no_more_cards_than_its_history_holds() -> None:
    found = table(**{f"c{number}": {"model": f"m{number}"} for number in range(MOST_NAMES + 1)})
    with pytest.raises(InvalidInput, match="at most 64"):
        pinned_models(cards_of(found), [[f"c{number}" for number in range(MOST_NAMES + 1)]], "chat")


def test_a_request_has_what_its_names_stand_for() -> None:
    """Its own options and fallbacks go before the card's; prices are those of what may be asked."""
    price = Price(prompt_per_million=1.0)
    pinned = PinnedModel(
        name="gpt-4o",
        model="a:1",
        fallback_models=("b:1",),
        options=Options(temperature=0.1, stop=("x",)),
        prices={"a:1": price, "z:1": price},
    )
    plain = applied(StepRequest(model="gpt-4o", options=Options(temperature=0.9)), [pinned])
    assert (plain.model, plain.fallback_models, plain.options) == ("a:1", ("b:1",), Options(temperature=0.9, stop=("x",)))
    assert prices_of(plain, Team(models=(pinned,))) == {"a:1": price}
    own = applied(StepRequest(model="gpt-4o", fallback_models=("c:1", "gpt-4o", "c:1")), [pinned])
    assert own.fallback_models == ("c:1",)
    behind = applied(StepRequest(model="c:1", fallback_models=("gpt-4o",)), [pinned])
    assert (behind.model, behind.fallback_models, behind.options) == ("c:1", ("a:1",), Options())
    other = StepRequest(model="c:1")
    assert applied(other, [pinned]) is other
    assert applied(plain, [pinned]) is plain
