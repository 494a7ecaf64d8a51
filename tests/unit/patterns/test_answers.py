"""Short answers: what is the same but for its form is one answer, and nothing else is."""

from __future__ import annotations

import pytest

from shared.contracts.job import Job
from shared.patterns.answers import counted, normalised, turns_with


@pytest.mark.parametrize(
    ("forms", "one"),
    [
        (("1,000", "1000.0", "1 000", "+1000", "$1,000$", "The answer is 1000.", r"so \boxed{1000}", "**1000**", "01000"), "1000"),
        (("3,5", "3.50", "(3.5)"), "3.5"),
        (("-0", "0.000", ".0"), "0"),
        (("-2", "\u22122"), "-2"),
        (("5 km", "5km", "5.0 KM"), "5 km"),
        (("€5", "5 €", "5.00€"), "5 €"),
        (("12%", "12 %"), "12 %"),
        (("Paris", " paris. ", "Answer: Paris", "Final answer: “Paris”", "Therefore, the correct answer is: Paris!"), "paris"),
        (("Yes, it is", "yes,  it is."), "yes, it is"),
        (("", " ", "...", "**", "\u00ad"), ""),
    ],
)
def test_forms_of_one_answer(forms: tuple[str, ...], one: str) -> None:
    assert {form: normalised(form) for form in forms} == dict.fromkeys(forms, one)


def test_different_answers_stay_apart() -> None:
    """Also numbers of more digits than a float or a decimal context has."""
    apart = [
        "1",
        "10",
        "1.01",
        "-1",
        "1 km",
        "1 m",
        "1 %",
        "paris",
        "paris, texas",
        "0,123",
        "123",
        "1" + "0" * 40,
        "1" + "0" * 39 + "1",
        "a",
        "b",
    ]
    assert len({normalised(one) for one in apart}) == len(apart)


def test_votes_are_ordered_by_number_then_by_what_came_before_then_by_place() -> None:
    assert counted(["b", "a", None, "A", "", "b."]) == {"b": [0, 5], "a": [1, 3]}
    assert list(counted(["b", "a", None, "A", "b."], {"a": 2, "b": 1})) == ["a", "b"]
    assert list(counted(["b", "a", "a"], {"b": 3})) == ["a", "b"]
    assert counted([None, ""]) == {}


def test_words_follow_the_users_last_ones() -> None:
    """No two turns of one role in a row."""
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c", "images": ["aaaa"]}]
    made = turns_with(Job.model_validate({"messages": turns, "system": "s"}), "w")
    assert [(turn.role, turn.content) for turn in made] == [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c\n\nw")]
    assert made[-1].images == ("aaaa",)
    made = turns_with(Job.model_validate({"messages": turns[:2]}), "w")
    assert [turn.content for turn in made] == ["a", "b", "w"]
    made = turns_with(Job(prompt="p", system="s", operation="generate"), "w")
    assert [turn.content for turn in made] == ["s", "p\n\nw"]
