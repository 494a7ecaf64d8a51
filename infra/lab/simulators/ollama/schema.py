"""A JSON value that obeys a JSON Schema, drawn from a seeded Random. Written here, since libraries (hypothesis-jsonschema, jsf) draw from
randomness of their own, refuse nothing that Ollama refuses, and would have to be in the image: this is what the simulator answers with.

Common subset: type (one or several), properties, required, additionalProperties, minProperties,
items, prefixItems, minItems, maxItems, uniqueItems,
enum, const, anyOf, oneOf, allOf, local $ref, minLength, maxLength,
minimum, maximum, exclusive bounds, multipleOf, format (date, date-time, time, email, uuid, uri).
`pattern`, `not`, `if` and the like are refused, as Ollama refuses a schema that it cannot turn into a grammar.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, TypeVar

from infra.lab.simulators.ollama.words import WORDS

Schema = Mapping[str, Any]
T = TypeVar("T")

MAX_DEPTH = 32
SHALLOW = 4
"""Below this depth optional parts are left out, so that a recursive schema ends."""
MOST = 100_000
"""Items of an array, letters of a string, properties that are asked for."""
UNSUPPORTED = ("pattern", "not", "if", "patternProperties", "dependentSchemas", "unevaluatedProperties", "contains", "propertyNames")
TIGHTER: dict[str, Callable[[Any, Any], Any]] = {
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems"), min),
    "properties": lambda one, other: {**one, **other},
    "required": lambda one, other: list(dict.fromkeys([*one, *other])),
}
"""Where two schemas hold at once; of other keywords the second wins."""
FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "email": "someone@example.org",
    "uuid": "6f1c2a34-9b7d-4c1e-8f20-3a5b6c7d8e9f",
    "uri": "https://example.org/",
}


class InvalidSchema(ValueError):
    """The schema is contradictory, too deep, or outside the subset."""


def instance(schema: Any, random: Random) -> Any:
    """One valid value. Raises InvalidSchema."""
    try:
        return _Generator(schema, random).value(schema, 0)
    except InvalidSchema:
        raise
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:  # a keyword has a value of the wrong kind
        raise InvalidSchema(f"this is no schema: {error}") from error


class _Generator:
    def __init__(self, root: Any, random: Random) -> None:
        self._root = root
        self._random = random

    def value(self, schema: Any, depth: int) -> Any:
        if schema is True:
            return self._pick(WORDS)
        if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
            raise InvalidSchema("a schema is an object, and does not nest without end")
        schema = self._resolved(schema, depth)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._pick(schema["enum"])
        kind = schema.get("type", _implied(schema))
        match self._pick(kind) if isinstance(kind, list) else kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "string":
                return self._string(schema)
            case "number":
                return float(self._number(schema, schema.get("multipleOf")))
            case "integer":
                return int(self._number(schema, schema.get("multipleOf", 1)))
            case "boolean":
                return self._random.random() < 0.5
            case "null":
                return None
        raise InvalidSchema(f"unknown type {kind!r}")

    def _resolved(self, schema: Schema, depth: int) -> Schema:
        """Follow $ref, merge allOf, choose of anyOf and oneOf (the simplest one when deep)."""
        if unknown := [keyword for keyword in UNSUPPORTED if keyword in schema]:
            raise InvalidSchema(f"unsupported keyword {unknown[0]}")
        for _ in range(MAX_DEPTH):
            keyword = next((name for name in ("$ref", "allOf", "anyOf", "oneOf") if name in schema), None)
            if keyword is None:
                return schema
            rest, found = {name: value for name, value in schema.items() if name != keyword}, schema[keyword]
            if keyword == "$ref":
                parts = [self._target(found)]
            elif keyword == "allOf":
                parts = found
            else:
                parts = [min(found, key=_weight) if depth >= SHALLOW else self._pick(found)]
            schema = rest
            for part in parts:
                both = {name: TIGHTER[name](schema[name], part[name]) for name in TIGHTER if name in schema and name in part}
                schema = {**schema, **part, **both}
        raise InvalidSchema("references without end")

    def _target(self, reference: str) -> Schema:
        if not reference.startswith("#"):
            raise InvalidSchema(f"only local references are supported: {reference}")
        target = self._root
        for part in reference[1:].split("/")[1:]:
            target = target[part.replace("~1", "/").replace("~0", "~")]
        found: Schema = target
        return found

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        properties, required, extra = schema.get("properties", {}), schema.get("required", []), schema.get("additionalProperties", True)
        chosen = {name: part for name, part in properties.items() if name in required or (depth < SHALLOW and part is not False)}
        missing = [name for name in required if name not in properties]
        missing += [f"extra_{number}" for number in range(_least_most(schema, "Properties", 0)[0] - len(chosen) - len(missing))]
        if missing and extra is False:
            raise InvalidSchema(f"required but not allowed: {', '.join(map(str, missing))}")
        return {name: self.value(part, depth + 1) for name, part in {**chosen, **dict.fromkeys(missing, extra)}.items()}

    def _array(self, schema: Schema, depth: int) -> list[Any]:
        prefix, items = schema.get("prefixItems", []), schema.get("items", True)
        least, most = _least_most(schema, "Items", 3)
        count = least if depth >= SHALLOW else self._between(min(max(least, 1), most), min(most, least + 3))
        values: list[Any] = []
        for number in range(min(count, len(prefix)) if items is False else count):
            value = self.value(part := prefix[number] if number < len(prefix) else items, depth + 1)
            for _ in range(100):
                if not schema.get("uniqueItems") or value not in values:
                    break
                value = self.value(part, depth + 1)
            else:
                raise InvalidSchema("not enough different values for uniqueItems")
            values.append(value)
        return values

    def _string(self, schema: Schema) -> str:
        if (known := schema.get("format")) in FORMATS:
            return FORMATS[known]
        least, most = _least_most(schema, "Length", 24)
        text = self._pick(WORDS)
        while len(text) < least or (len(text) < most and self._random.random() < 0.5):
            text += " " + self._pick(WORDS)
        return text[:most].strip().ljust(least, "x")

    def _number(self, schema: Schema, step: float | None) -> float:
        """Of `step` a whole multiple; without one a little rounded, from the middle of the bounds."""
        lows = [schema[name] for name in ("minimum", "exclusiveMinimum") if name in schema]
        highs = [schema[name] for name in ("maximum", "exclusiveMaximum") if name in schema]
        low = max(lows) if lows else min(0, min(highs) - 100) if highs else 0
        high = min(highs, default=low + 100)
        if step is None and low <= high:
            middle = low + (high - low) * (0.25 + self._random.random() / 2)
            return float(rounded if low < (rounded := round(middle, 2)) < high else middle)
        step = step or 1
        first, last = math.ceil(low / step), math.floor(high / step)
        first += first * step <= schema.get("exclusiveMinimum", -math.inf)
        last -= last * step >= schema.get("exclusiveMaximum", math.inf)
        if first > last:
            raise InvalidSchema("no number lies within the bounds")
        return self._between(first, last) * step

    def _between(self, low: int, high: int) -> int:
        return low + int(self._random.random() * (high - low + 1))

    def _pick(self, options: Sequence[T]) -> T:
        return options[int(self._random.random() * len(options))]


def _least_most(schema: Schema, what: str, usual: int) -> tuple[int, int]:
    """Raises InvalidSchema of bounds that contradict each other, or are beyond MOST."""
    least = schema.get(f"min{what}", 0)
    most = schema.get(f"max{what}", max(least, usual))
    if not 0 <= least <= min(most, MOST):
        raise InvalidSchema(f"min{what} and max{what} contradict each other, or are too large")
    return least, most


def _implied(schema: Schema) -> str:
    if "properties" in schema or "required" in schema or "additionalProperties" in schema:
        return "object"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    return "number" if "minimum" in schema or "maximum" in schema else "string"


def _weight(schema: Any) -> int:
    """Scalars before containers and references: the way out of a recursion."""
    if not isinstance(schema, Mapping):
        return 0
    return 2 if "$ref" in schema else 1 if _implied(schema) in ("object", "array") or schema.get("type") in ("object", "array") else 0
