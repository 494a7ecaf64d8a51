"""The final answer of a text: all spellings of one answer are one, and what cannot be read is no answer."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.contracts.job import Job
from shared.patterns.final_answer import FinalAnswer, normal_text

NUMBER, TEXT, JSON = FinalAnswer(answer="number"), FinalAnswer(), FinalAnswer(answer="json")
CITIES = FinalAnswer(answer="choice", choices=("Yes", "No", "York", "New York"))


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Answer: 1,000", "1000"),
        ("Answer: 1000.0", "1000"),
        ("Answer: $1,000.00", "1000"),
        ("it makes 1000 dollars", "1000"),
        ("**Final answer:** 2 x 500 = 1e3.", "1000"),
        ("3 and 4\nanswer = 7", "7"),
        ("Answer:\n18", "18"),
        ("so 5.\n#### 18", "18"),
        ("The answer is 18 km^2", "18"),
        ("Answer: 3\nno, wait\nAnswer: 4", "4"),
        ("16-3", "3"),
        ("from -3 to \u22127.50", "-7.5"),
        ("Answer: -$5", "-5"),
        ("Answer: -0", "0"),
        ("Answer: .5", "0.5"),
        ("Answer: 1/2", "0.5"),
        ("Answer: 2/6", "1/3"),
        ("12 apples, 3 pears", "3"),
        ("Answer: none of 3", "3"),
        ("3 apples\nAnswer: none", None),
        ("Answer: 1/0", None),
        ("9" * 65, None),
        ("no number", None),
        ("", None),
    ],
)
def test_a_number(text: str, read: str | None) -> None:
    assert NUMBER.read(text) == read


@given(st.integers(-(10**12), 10**12), st.integers(0, 6), st.sampled_from(["{}", "Answer: {}", "it is {} kg.", "x\n#### {}\n"]))
def test_all_spellings_of_a_number_are_one(value: int, places: int, around: str) -> None:
    number = Fraction(value, 10**places)
    spellings = [f"{value / 10**places:.{places}f}" if abs(value) < 10**9 else str(value), f"{number.numerator}/{number.denominator}"]
    if places == 0:
        spellings += [f"{value:,}", f"{value}.00", f"{value}e0"]
    elif abs(value) >= 10**9:
        spellings = spellings[1:]
    read = {NUMBER.read(around.format(spelling)) for spelling in spellings}
    [found] = read
    assert found is not None
    assert Fraction(found) == number


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Answer: yes.", "Yes"),
        ("I think\n**No**", "No"),
        ("No, because yes", "No"),
        ("Answer: new  york city", "New York"),
        ("Answer: YORK", "York"),
        ("Answer: not yes", None),
        ("Answer: yesterday", None),
        ("yes\nbut I am not sure", None),
        ("", None),
    ],
)
def test_a_choice(text: str, read: str | None) -> None:
    assert CITIES.read(text) == read


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Paris.", "paris"),
        ("It lies on the Seine.\nAnswer:  **Paris**", "paris"),
        ("Answer: \u201cPARIS\u201d!", "paris"),
        ("one line\nand another", None),
        ("x" * 201, None),
        ("Answer: ...", None),
        ("", None),
    ],
)
def test_a_text(text: str, read: str | None) -> None:
    assert TEXT.read(text) == read


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ('{"b": [2], "a": 1.0}', '{"a":1,"b":[2]}'),
        ('```json\n{"a":1,"b":[2.0]}\n```', '{"a":1,"b":[2]}'),
        ('I think:\nAnswer: {"b": [2], "a": 1}', '{"a":1,"b":[2]}'),
        ("[1, 2]", "[1,2]"),
        ('{"a": true}', '{"a":true}'),
        ("NaN", None),
        ('{"a": NaN}', None),
        ("[" * 100_000, None),
        ('{"a": 1', None),
        ("1" * 5_000, None),
        ("", None),
    ],
)
def test_json(text: str, read: str | None) -> None:
    assert JSON.read(text) == read


@settings(max_examples=30)
@given(st.recursive(st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=5), st.lists, max_leaves=8))
def test_json_is_one_however_it_is_written(value: Any) -> None:
    written = {"value": value, "a": 1}
    other = json.dumps(dict(reversed(written.items())), indent=2)
    assert JSON.read(json.dumps(written)) == JSON.read(f"Here it is:\n{other}\nDone.") is not None


@settings(max_examples=50)
@given(st.text(max_size=200))
def test_whatever_a_model_writes_it_is_read_or_not(text: str) -> None:
    for kind in (NUMBER, TEXT, JSON, CITIES):
        read = kind.read(text)
        assert read is None or read
        assert kind.read(f"Answer: {read}") == read or read is None or kind in (TEXT, JSON)


def test_a_long_text_is_read_at_its_end_in_time() -> None:
    for piece in ("#", "answer", "answer is ", "\n", "1,000,", "9", "Answer:\n", "{", '{"a":', "[1,", "* "):
        for kind in (NUMBER, TEXT, JSON, CITIES):
            kind.read(piece * 30_000)
    assert NUMBER.read("7 " * 100_000 + "\nAnswer: 8") == "8"


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"answer": "choice"}, "needed"),
        ({"choices": ["a", "b"]}, "needed"),
        ({"answer": "choice", "choices": ["a", "A."]}, "the same"),
        ({"answer": "choice", "choices": ["a", "!"]}, "nothing else"),
    ],
)
def test_choices_must_be_told_apart(given: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValidationError, match=wrong):
        FinalAnswer.model_validate(given)


def test_the_rule_is_said_where_there_is_room_for_it() -> None:
    job = Job(prompt="q")
    assert "`Answer: ` and then only a number" in NUMBER.rule(job)
    assert CITIES.rule(job).endswith("one of: Yes | No | York | New York")
    assert "JSON" in JSON.rule(job)
    assert {kind.rule(Job(prompt="q", format="json")) for kind in (NUMBER, TEXT, JSON, CITIES)} == {""}
    assert normal_text("  \u00c9  x ") == "\u00e9 x"
