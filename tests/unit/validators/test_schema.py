"""JSON Schema of bounded work: it says what `jsonschema` says, and never for long."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import Field

from shared.patterns.control import Control, schema_of
from shared.validators.schema import WORDS, NotDecided, schema_faults, unchecked

NAMES, TYPES = ("a", "b", "c"), ("null", "boolean", "string", "array", "object", "number", "integer")
LEAVES = (None, True, False, -2, -1, 0, 1, 2, 0.0, 1.0, 1.5, -2.5, "", "a", "bb", "ccc")
SIZES = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
DEFINED = {"one": {"type": ["integer", "array"]}, "a/b": {"minLength": 2}}


def a_value(random: Random, depth: int = 2) -> Any:
    kind = random.randrange(3) if depth else 2
    if kind == 0:
        return [a_value(random, depth - 1) for _ in range(random.randrange(4))]
    return {random.choice(NAMES): a_value(random, depth - 1) for _ in range(random.randrange(4))} if kind == 1 else random.choice(LEAVES)


def a_schema(random: Random, depth: int = 3) -> Any:
    """A few words, each as it may be written; the deeper the fewer."""
    if depth == 0 or random.random() < 0.1:
        return random.random() < 0.7

    def inner() -> Any:
        return a_schema(random, depth - 1)

    written: dict[str, Callable[[], Any]] = {
        "type": lambda: random.choice((random.choice(TYPES), random.sample(TYPES, 2))),
        "enum": lambda: [a_value(random, 1) for _ in range(random.randint(1, 6))],
        "const": lambda: a_value(random, 1),
        "required": lambda: random.sample(NAMES, random.randrange(3)),
        "properties": lambda: {name: inner() for name in random.sample(NAMES, random.randrange(3))},
        "additionalProperties": inner,
        "items": inner,
        "prefixItems": lambda: [inner()],
        "allOf": lambda: [inner(), inner()],
        "anyOf": lambda: [inner(), inner()],
        "oneOf": lambda: [inner(), inner()],
        "not": inner,
        "$ref": lambda: random.choice(("#/$defs/one", "#/$defs/a~1b")),
        **dict.fromkeys(SIZES, lambda: random.randrange(4)),
        **dict.fromkeys(BOUNDS, lambda: random.randint(-2, 2)),
    }
    assert written.keys() == WORDS.keys(), "all that is checked is compared"
    return {word: written[word]() for word in random.sample(sorted(written), random.randint(1, 3))}


def test_it_says_what_the_library_says() -> None:
    """On all the words that are checked."""
    random, fitting = Random(7), 0
    for _ in range(1_500):
        schema, value = a_schema(random), a_value(random)
        schema = {**schema, "$defs": DEFINED} if isinstance(schema, dict) else {"not": not schema}
        assert unchecked(schema) is None
        fits = Draft202012Validator(schema).is_valid(value)
        assert (not schema_faults(value, schema)) == fits, (schema, value)
        fitting += fits
    assert 300 < fitting < 1_200


DOUBLING = {"$ref": "#/$defs/0", "$defs": {str(n): {"allOf": [{"$ref": f"#/$defs/{n + 1}"}] * 2} for n in range(40)}}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (DOUBLING, 1),
        ({"$ref": "#"}, 1),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, 1),
        ({"items": {"allOf": [{"type": "integer"}] * 100}}, [1] * 10_000),
        ({"items": {"enum": list(range(2_000))}}, [1_999] * 1_000),
        ({"anyOf": [{"const": [1] * 500 + [n]} for n in range(200)]}, [1] * 500 + [999]),
        ({"items": {"required": ["a"] * 1_000}}, [{"a": 1}] * 1_000),
        ({"items": {"additionalProperties": True}}, [{str(n): 1 for n in range(300)}] * 100),
        ({"items": {"$ref": "#"}}, json.loads("[" * 200 + "]" * 200)),
    ],
)
def test_work_is_bounded_whatever_the_schema_asks_for(schema: dict[str, Any], value: Any) -> None:
    """A schema comes from a caller, and the check runs beside other callers' jobs. What is not decided is no pass."""
    with pytest.raises(NotDecided):
        schema_faults(value, schema)


@pytest.mark.parametrize(
    ("schema", "word"),
    [
        ({"pattern": "(a+)+$"}, "pattern"),
        ({"properties": {"a": {"items": {"patternProperties": {}}}}}, "patternProperties"),
        ({"$defs": {"a": {"if": True}}}, "if"),
        ({"anyOf": [True, {"format": "email"}]}, "format"),
        ({"minLength": "3"}, "minLength"),
        ({"minLength": True}, "minLength"),
        ({"properties": []}, "properties"),
        ({"title": "t", "description": "d", "default": 1, "$schema": "x"}, None),
    ],
)
def test_what_is_not_checked_is_said(schema: dict[str, Any], word: str | None) -> None:
    """A caller who wants it checked must not believe that it is."""
    assert unchecked(schema) == word
    schema_faults("text", schema)  # and never fails


def test_a_reference_is_never_fetched_and_one_that_leads_nowhere_says_nothing() -> None:
    for reference in ("http://example.invalid/x.json", "other.json#/a", "#/$defs/none", "#/$defs/0/x/1"):
        assert schema_faults(1, {"$ref": reference}) == []


def test_schemas_of_decisions_can_be_checked() -> None:
    """What tutti itself asks of models."""

    class Vote(Control):
        reasoning: str = Field(max_length=10)
        score: int = Field(ge=1, le=5)

    schema = schema_of(Vote)
    assert unchecked(schema) is None
    assert schema_faults({"reasoning": "r", "score": 3}, schema) == []
    assert schema_faults({"reasoning": "r" * 11, "score": 6}, schema) == ["`reasoning` is longer than 10", "`score` is more than 5"]


def test_faults_name_the_place_in_the_order_of_the_answer() -> None:
    """In one order at each run: they go into prompts, of which history holds a digest."""
    value = {"z": 1, "y": 1, "a": {"b": [0, "x"]}}
    schema = {"properties": {"a": {"properties": {"b": {"items": {"type": "integer"}}}}}, "additionalProperties": False}
    assert schema_faults(value, schema) == ["`a.b[1]` is not of type integer", "`z` must not be there", "`y` must not be there"]
