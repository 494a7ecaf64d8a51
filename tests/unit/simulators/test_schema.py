"""JSON by schema: every value that the generator draws is valid for the schema it was drawn from."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from infra.lab.simulators.ollama.schema import InvalidSchema, instance

SCHEMAS: dict[str, dict[str, Any]] = {
    "empty": {},
    "bounds": {"type": "integer", "exclusiveMinimum": 3, "maximum": 5},
    "multiple": {"type": "number", "multipleOf": 0.5, "minimum": 1, "exclusiveMaximum": 3},
    "between": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    "negative": {"type": "integer", "maximum": -7},
    "lengths": {"type": "string", "minLength": 30, "maxLength": 31},
    "short": {"type": "string", "maxLength": 2},
    "nothing": {"type": "string", "maxLength": 0},
    "unique": {"type": "array", "items": {"enum": [1, 2, 3]}, "minItems": 3, "maxItems": 3, "uniqueItems": True},
    "tuple": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False, "minItems": 2},
    "closed": {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"], "additionalProperties": False},
    "open": {"type": "object", "required": ["b"], "additionalProperties": {"type": "boolean"}, "minProperties": 3},
    "choice": {"anyOf": [{"type": "null"}, {"type": "array", "items": {"type": "number"}, "minItems": 2}]},
    "types": {"type": ["string", "null"]},
    "all": {"allOf": [{"type": "integer", "minimum": 5}, {"minimum": 2, "maximum": 6}]},
    "references": {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
                "required": ["name", "children"],
            }
        },
    },
    "recursive choice": {"anyOf": [{"type": "array", "items": {"$ref": "#"}, "minItems": 1}, {"type": "integer"}]},
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_values_are_valid_for_their_schema(name: str) -> None:
    """Fifty draws each."""
    validator = Draft202012Validator(SCHEMAS[name])
    for seed in range(50):
        validator.validate(instance(SCHEMAS[name], Random(seed)))


def _objects(parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    properties = st.dictionaries(st.sampled_from("abcd"), parts, max_size=4)
    return properties.flatmap(
        lambda named: st.builds(
            lambda required, more: {"type": "object", "properties": named, "required": required, "additionalProperties": more},
            st.lists(st.sampled_from(sorted(named)), unique=True) if named else st.just([]),
            st.booleans(),
        )
    )


_SCALARS = st.one_of(
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"const": {"x": [1]}}, {"enum": ["p", 2, None]}]),
    st.tuples(st.integers(-50, 50), st.integers(0, 50)).map(lambda low: {"type": "integer", "minimum": low[0], "maximum": low[0] + low[1]}),
    st.tuples(st.integers(0, 40), st.integers(0, 40)).map(
        lambda low: {"type": "string", "minLength": low[0], "maxLength": low[0] + low[1]}
    ),
    st.integers(-5, 5).map(lambda low: {"type": "number", "minimum": low}),
)
_NESTED = st.recursive(
    _SCALARS,
    lambda parts: st.one_of(
        _objects(parts),
        st.tuples(parts, st.integers(0, 4)).map(lambda item: {"type": "array", "items": item[0], "minItems": item[1]}),
        st.lists(parts, min_size=1, max_size=3).map(lambda options: {"anyOf": options}),
    ),
    max_leaves=12,
)


@given(_NESTED, st.integers(0, 2**32))
def test_any_schema_of_the_subset_is_obeyed(schema: dict[str, Any], seed: int) -> None:
    """Random nested schemas, judged by the jsonschema library."""
    Draft202012Validator(schema).validate(instance(schema, Random(seed)))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "^a"},
        {"type": "tuple"},
        {"$ref": "#/$defs/none"},
        {"$ref": "#"},
        {"type": "integer", "minimum": 3, "maximum": 2},
        {"type": "array", "minItems": 3, "maxItems": 1},
        {"enum": []},
        {"type": "object", "required": ["a"], "additionalProperties": False},
        {"type": "array", "items": {"const": 1}, "minItems": 2, "uniqueItems": True},
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        7,
    ],
)
def test_what_cannot_be_obeyed_is_refused(schema: Any) -> None:
    """Contradictions, unknown types and keywords, endless references: a typed error and no wrong value."""
    with pytest.raises(InvalidSchema):
        instance(schema, Random(0))
