"""Values for any pydantic model, made from its core schema: what fits, what lies at a bound, and what no JSON can say.

They are what a foreign writer may send: half of them are refused. What is accepted must read back equal.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from pydantic import BaseModel

from shared.contracts.base import free_json
from shared.contracts.job import Job

Values = st.SearchStrategy[Any]

ODD_NUMBERS: Values = st.sampled_from(
    [float("nan"), float("inf"), -float("inf"), 1e303, 1e308, 1e15, -1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**310, 10**4299, 0.1, -0.0]
)
ODD_TEXTS: Values = st.sampled_from(["", "\ud800", "a\udfff", "\x00", "\n", "a\n", "NaN", "\U0010ffff", "\u2028", "x" * 5_000])
JSON: Values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | ODD_NUMBERS | ODD_TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | ODD_TEXTS, inner, max_size=3),
    max_leaves=6,
)


def deep(levels: int) -> dict[str, Any]:
    """JSON of so many levels."""
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def values(model: type[BaseModel]) -> Values:
    """Bodies of this model as plain Python values."""
    schema: Any = model.__pydantic_core_schema__
    if schema["type"] != "definitions":
        return _of(schema, {})
    shared: dict[str, Values] = {}
    for definition in schema["definitions"]:
        shared[definition["ref"]] = _of(definition, shared)
    return _of(schema["schema"], shared)


def _of(schema: Any, shared: dict[str, Values]) -> Values:
    """`shared`: models that the schema names more than once."""
    kind = schema["type"]
    if kind == "model-fields":
        return _fields(schema["fields"], shared)
    if kind == "definition-ref":
        return st.deferred(lambda: shared[schema["schema_ref"]])  # it may stand behind what names it
    if kind == "literal":
        return st.sampled_from(schema["expected"])
    if kind == "enum":
        return st.sampled_from([member.value for member in schema["members"]])
    if kind in ("union", "tagged-union"):
        choices = schema["choices"].values() if kind == "tagged-union" else schema["choices"]
        return st.one_of([_of(choice[0] if isinstance(choice, tuple) else choice, shared) for choice in choices])
    if kind in ("tuple", "list", "dict"):
        return _several(schema, shared)
    if kind.startswith("function-") and schema["function"]["function"] is free_json:
        return st.dictionaries(st.text(max_size=3) | ODD_TEXTS, JSON, max_size=3) | st.integers(1, 40).map(deep)
    if kind == "nullable":
        return st.none() | _of(schema["schema"], shared)
    if kind == "model" and schema["cls"] is Job:
        return _of(schema["schema"], shared).map(_of_one_input)
    return _of(schema["schema"], shared) if "schema" in schema else _plain(schema)


def _of_one_input(body: dict[str, Any]) -> dict[str, Any]:
    """A job has one input; what goes with which is not for chance to find."""
    inputs = [name for name in ("prompt", "messages", "texts") if body.get(name)]
    refused = {*inputs[1:], "operation", "pattern", "chain"}
    kept = {name: value for name, value in body.items() if name not in refused}
    return kept if inputs else {**kept, "prompt": "hello"}


def _fields(fields: dict[str, Any], shared: dict[str, Values]) -> Values:
    needed = {name: _of(field["schema"], shared) for name, field in fields.items() if field["schema"]["type"] != "default"}
    optional = {name: _of(field["schema"], shared) for name, field in fields.items() if field["schema"]["type"] == "default"}
    return st.fixed_dictionaries(needed, optional=optional)


def _several(schema: Any, shared: dict[str, Values]) -> Values:
    if schema["type"] == "dict":
        return st.dictionaries(_of(schema["keys_schema"], shared), _of(schema["values_schema"], shared), max_size=3)
    parts = schema["items_schema"]
    if isinstance(parts, list) and schema.get("variadic_item_index") is None:
        return st.tuples(*(_of(part, shared) for part in parts)).map(list)
    return st.lists(_of(parts[0] if isinstance(parts, list) else parts, shared), max_size=3)


def _plain(schema: Any) -> Values:
    kind = schema["type"]
    if kind == "str":
        fitting = st.from_regex(schema["pattern"].replace("$", r"\Z")) if "pattern" in schema else st.text(max_size=20)
        return st.one_of(*[fitting] * 9, ODD_TEXTS)
    if kind == "bytes":
        return st.sampled_from(["", "AA==", "AA", "_-==", "+/==", "\ud800"])
    if kind == "int":
        low = schema.get("ge", schema.get("gt", -1) + 1)
        high = schema.get("le", schema.get("lt", 2) - 1)
        return st.one_of(*[st.integers(low, high), st.sampled_from([low, high])] * 5, st.sampled_from([low - 1, high + 1]), ODD_NUMBERS)
    if kind == "float":
        low, high = schema.get("ge", schema.get("gt")), schema.get("le", schema.get("lt"))
        return st.one_of(*[st.floats(low, high), st.sampled_from([low, high])] * 5, ODD_NUMBERS)
    if kind == "bool":
        return st.booleans()
    raise AssertionError(f"no values for {kind}")
