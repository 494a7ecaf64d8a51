"""Checks of a text: each rule on both sides, and what heuristics must not call wrong."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
from pydantic import ValidationError

from shared.validators.checks import Checks, faults, is_looping, is_refusal, occurs

ROOT = Path(__file__).parents[3]
SOURCES = ("The bridge was opened in 1932 after eight years.", "It is 1,149 metres long; the “coathanger” is its nickname.")


@pytest.mark.parametrize(
    ("checks", "good", "bad"),
    [
        ({}, "x", " \n "),
        ({}, "Here is the answer.", "I'm sorry, but I can't help with that."),
        ({"may_refuse": True}, "I'm sorry, but I can't help with that.", None),
        ({}, "fine", "again and " * 300),
        ({"may_repeat": True}, "again and " * 300, None),
        ({"min_chars": 3}, "abc", "ab"),
        ({"max_chars": 3}, "abc", "abcd"),
        ({"required": ["Paris", "the end"]}, "PARIS … the\n end", "Paris"),
        ({"forbidden": ["don't"]}, "do", "I DON\u2019T"),
        ({"json_schema": {"type": "object", "required": ["a"]}}, '{"a": 1}', '{"b": 1}'),
        ({"json_schema": {}}, "1", "```json\n1\n```"),
        ({"json_schema": {}}, "{}", "NaN"),
        ({"json_schema": {}}, "{}", "[" * 100_000),
        ({"json_schema": {"$ref": "#"}}, '{"a": 1}', '{"a": 1}'),
        ({"sources": SOURCES}, 'It says "opened in 1932 after" [1], nothing else.', "So says [3]."),
        ({"sources": SOURCES}, "Nothing cited, a “short” word.", 'It says "closed in 1932 after" [1].'),
        ({"sources": SOURCES, "must_cite": True}, "As in [1, 2].", "As is known."),
    ],
)
def test_each_rule(checks: dict[str, Any], good: str, bad: str | None) -> None:
    """What passes and what does not; the schema that refers to itself is never decided, so nothing passes it."""
    made = Checks.model_validate(checks)
    assert faults(good, made) == () or "$ref" in str(checks)
    assert bad is None or faults(bad, made) != ()


@pytest.mark.parametrize(
    ("checks", "problem"),
    [
        ({"json_schema": {"pattern": "x"}}, "pattern"),
        ({"must_cite": True}, "sources"),
        ({"min_words": 3}, "min_words"),
        ({"required": [""]}, "required"),
    ],
)
def test_what_cannot_be_checked_is_refused(checks: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Checks.model_validate(checks)


def test_whatever_is_checked_faults_are_few_and_short() -> None:
    """They go into a prompt."""
    random = Random(3)
    made = Checks(json_schema={"type": "object"}, min_chars=10, required=tuple("abcdefghij"), forbidden=("k" * 1_000,), sources=SOURCES)
    for length in range(200):
        found = faults("".join(random.choices('"“[]{}1, abk\né', k=length)), made)
        assert 1 <= len(found) <= 8
        assert all(len(fault) < 400 for fault in found)


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I cannot assist with that request.",
        "I can\u2019t provide instructions for this.",
        "As an AI language model, I do not have opinions.",
        "Sorry! I am unable to complete this task.",
        "I must decline.",
        "Es tut mir leid, aber dabei kann ich dir nicht helfen.",
        "Als KI-Sprachmodell habe ich keine Meinung.",
    ],
)
def test_refusals(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry to hear that. Here is what you can do: rest.",
        "I can't recommend this book enough.",
        "You cannot help a plant that has no water.",
        "The model is unable to see what lies outside its window.",
        "Dear Sir, we regret that we cannot deliver before May." + " More." * 50 + " I cannot help with that.",
        "Ich kann nicht schwimmen, sagte der Stein.",
    ],
)
def test_what_only_sounds_like_one(text: str) -> None:
    assert not is_refusal(text)


def test_a_text_that_ends_in_a_loop_is_seen() -> None:
    """Whatever stands before it, and whatever is repeated."""
    random, prose = Random(3), (ROOT / "ARCHITECTURE.md").read_text()
    for length in range(1, 61):
        unit = "".join(random.choices("abcdefghijklmnop ,.1\n", k=length))
        assert is_looping(prose[: random.randrange(3_000)] + unit * (1_000 // length + 1)), unit


def test_what_people_write_is_no_loop() -> None:
    """Prose, tables, programs, configuration: every window of this repository's own."""
    for name in ("ARCHITECTURE.md", "README.md", "pyproject.toml", "services/worker/runner.py", "shared/patterns/context.py"):
        text = (ROOT / name).read_text()
        looping = [at for at in range(1_000, len(text), 250) if is_looping(text[:at])]
        assert not looping, (name, looping)


@pytest.mark.parametrize(
    ("quote", "text", "found"),
    [
        ("the bridge  WAS opened", SOURCES[0], True),
        ("“opened in 1932…”", SOURCES[0], True),
        ("the bridge was closed", SOURCES[0], False),
        ("", SOURCES[0], False),
        ("the", SOURCES[0], False),
        (" ... ", SOURCES[0], False),
        ("42", "42.", True),
        ("42", "It is 42, since 6 times 7 is.", False),
        ("42", "", False),
        ("", "", False),
    ],
)
def test_evidence(quote: str, text: str, found: bool) -> None:
    """A word that stands anywhere proves nothing; nor does anything prove an empty text."""
    assert occurs(quote, text) is found


def test_a_quote_that_stands_in_no_source_is_named_once() -> None:
    wrong = list(faults('"never said at all" and again „never said at all“ [7], [7, 8]', Checks(sources=SOURCES)))
    assert wrong == [
        "the answer cites [7]; there is no such source",
        "the answer cites [8]; there is no such source",
        'the quote "never said at all" stands in no source',
    ]
