"""What of a pydantic model has no bound: its core schema is walked, so that aliases, unions, NewTypes and nested models are all seen."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pkgutil import walk_packages
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from services.worker.settings import header_value
from shared.contracts.base import free_json
from shared.patterns.fork import ForkInput

_BOUNDED = frozenset({"bool", "none", "literal", "enum", "model-field", "is-instance", "definition-ref"})
_INNER = ("schema", "json_schema", "python_schema", "lax_schema", "strict_schema")
_JUDGED = (free_json, header_value, ForkInput._as_its_pattern_reads_it)
"""Functions that bound what they take."""
_LISTS = frozenset({"list", "tuple", "set", "frozenset", "dict"})

Allowed = Callable[[type], bool]


def models_of(*packages: ModuleType) -> list[type[BaseModel]]:
    """Every model that a module of these packages defines."""
    found: dict[str, type[BaseModel]] = {}
    for package in packages:
        for module in walk_packages(package.__path__, package.__name__ + "."):
            if module.name.endswith("__main__"):
                continue  # to import it is to run it
            for kind in vars(import_module(module.name)).values():
                if isinstance(kind, type) and issubclass(kind, BaseModel) and kind.__module__ == module.name:
                    found[f"{module.name}.{kind.__name__}"] = kind
    return [found[name] for name in sorted(found)]


def unbounded(model: type[BaseModel]) -> list[str]:
    """Path and type of each value without a bound."""
    return sorted(set(_of(model.__pydantic_core_schema__, model.__name__)))


def _of(schema: Any, path: str) -> Iterator[str]:
    kind = schema["type"]
    if kind in ("model-fields", "typed-dict", "dataclass-args", "named-tuple"):
        fields = schema["fields"]
        for name, field in fields.items() if isinstance(fields, dict) else ((each["name"], each) for each in fields):
            yield from _of(field["schema"], f"{path}.{name}")
    elif kind in ("union", "tagged-union"):
        choices = schema["choices"]
        for choice in choices.values() if isinstance(choices, dict) else choices:
            yield from _of(choice[0] if isinstance(choice, tuple) else choice, path)
    elif kind in _LISTS:
        yield from _of_list(schema, path)
    elif kind.startswith("function-") and schema["function"]["function"] in _JUDGED:
        return
    elif kind == "definitions":
        yield from _of(schema["schema"], path)
        for definition in schema["definitions"]:
            yield from _of(definition, path)
    elif any(inner in schema for inner in _INNER):
        for inner in _INNER:
            if inner in schema:
                yield from _of(schema[inner], path)
    elif kind not in _BOUNDED and not _has_bound(schema):
        yield f"{path}: {kind}"


def _of_list(schema: Any, path: str) -> Iterator[str]:
    fixed = schema["type"] == "tuple" and schema.get("variadic_item_index") is None
    if not fixed and "max_length" not in schema:
        yield f"{path}: {schema['type']}"
    items = schema.get("items_schema", ())
    parts = items if isinstance(items, list) else [items] if items else []
    for part in (*parts, *(schema[name] for name in ("keys_schema", "values_schema") if name in schema)):
        yield from _of(part, f"{path}[]")


def _anchored(pattern: str) -> bool:
    """pydantic searches; and an alternative would lie outside the anchors."""
    return pattern.startswith("^") and pattern.endswith("$") and "|" not in re.sub(r"\\.|\[[^]]*\]|\(.*\)", "", pattern)


def _has_bound(schema: Any) -> bool:
    if schema["type"] in ("str", "bytes"):
        return "max_length" in schema and _anchored(schema.get("pattern", "^$"))
    if schema["type"] in ("int", "float"):
        return bool({"ge", "gt"} & schema.keys()) and bool({"le", "lt"} & schema.keys())
    return False
