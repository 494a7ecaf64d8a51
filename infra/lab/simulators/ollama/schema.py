"""A JSON value that obeys a JSON Schema, drawn from a seeded Random.

Common subset: type (one or several), properties, required, additionalProperties, minProperties,
items, prefixItems, minItems, maxItems, uniqueItems,
enum, const, anyOf, oneOf, allOf, local $ref, minLength, maxLength,
minimum, maximum, exclusive bounds, multipleOf, format (date, date-time, time, email, uuid, uri).
`pattern`, `not`, `if` and the like are refused, as Ollama refuses a schema that it cannot turn into a grammar.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from infra.lab.simulators.ollama.words import WORDS

Schema = Mapping[str, Any]

MAX_DEPTH = 32
SHALLOW = 4
"""Below this depth optional parts are left out, so that a recursive schema ends."""
UNSUPPORTED = ("pattern", "not", "if", "patternProperties", "dependentSchemas", "unevaluatedProperties", "contains", "propertyNames")
LOWER_BOUNDS = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
UPPER_BOUNDS = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")
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


def check(schema: Any) -> None:
    """Refuse what `instance` cannot serve, without drawing a value. Raises InvalidSchema."""
    instance(schema, Random(0))


def instance(schema: Any, random: Random) -> Any:
    """One valid value. Raises InvalidSchema."""
    return _Generator(schema, random).value(schema, 0)


class _Generator:
    def __init__(self, root: Any, random: Random) -> None:
        self._root = root
        self._random = random

    def value(self, schema: Any, depth: int) -> Any:
        if schema is True:
            return self._pick(WORDS)
        if not isinstance(schema, Mapping):
            raise InvalidSchema("a schema is an object")
        if depth > MAX_DEPTH:
            raise InvalidSchema("the schema nests without end")
        schema = self._resolved(schema, depth)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._pick(_sequence(schema, "enum"))
        return self._typed(schema, depth)

    def _resolved(self, schema: Schema, depth: int) -> Schema:
        """Follow $ref, merge allOf, choose of anyOf and oneOf (the simplest one when deep)."""
        for keyword in UNSUPPORTED:
            if keyword in schema:
                raise InvalidSchema(f"unsupported keyword {keyword}")
        for _ in range(MAX_DEPTH):
            if "$ref" in schema:
                schema = _merged(_without(schema, "$ref"), self._target(schema["$ref"]))
            elif "allOf" in schema:
                parts = _sequence(schema, "allOf")
                schema = _without(schema, "allOf")
                for part in parts:
                    schema = _merged(schema, part)
            elif "anyOf" in schema or "oneOf" in schema:
                keyword = "anyOf" if "anyOf" in schema else "oneOf"
                options = _sequence(schema, keyword)
                choice = min(options, key=_weight) if depth >= SHALLOW else self._pick(options)
                schema = _merged(_without(schema, keyword), choice)
            else:
                return schema
        raise InvalidSchema("references without end")

    def _target(self, reference: Any) -> Schema:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise InvalidSchema(f"only local references are supported: {reference}")
        target = self._root
        for part in reference[1:].split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(target, Mapping) or name not in target:
                raise InvalidSchema(f"unresolved reference {reference}")
            target = target[name]
        if not isinstance(target, Mapping):
            raise InvalidSchema(f"unresolved reference {reference}")
        return target

    def _typed(self, schema: Schema, depth: int) -> Any:
        kind = schema.get("type", _implied(schema))
        if isinstance(kind, list):
            kind = self._pick(_sequence(schema, "type"))
        makers: dict[str, Callable[[], Any]] = {
            "object": lambda: self._object(schema, depth),
            "array": lambda: self._array(schema, depth),
            "string": lambda: self._string(schema),
            "number": lambda: self._number(schema),
            "integer": lambda: self._integer(schema),
            "boolean": lambda: self._random.random() < 0.5,
            "null": lambda: None,
        }
        if not isinstance(kind, str) or kind not in makers:
            raise InvalidSchema(f"unknown type {kind!r}")
        return makers[kind]()

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        if not isinstance(properties, Mapping) or not isinstance(required, list | tuple):
            raise InvalidSchema("properties is an object, required a list")
        chosen = {name: part for name, part in properties.items() if name in required or (depth < SHALLOW and part is not False)}
        extra = schema.get("additionalProperties", True)
        missing = [name for name in required if name not in properties]
        missing += [f"extra_{number}" for number in range(schema.get("minProperties", 0) - len(chosen) - len(missing))]
        if missing and extra is False:
            raise InvalidSchema(f"required but not allowed: {', '.join(map(str, missing))}")
        chosen.update(dict.fromkeys(missing, extra))
        return {name: self.value(part, depth + 1) for name, part in chosen.items()}

    def _array(self, schema: Schema, depth: int) -> list[Any]:
        prefix = schema.get("prefixItems", [])
        least = schema.get("minItems", 0)
        most = schema.get("maxItems", max(least, 3))
        if not isinstance(prefix, list) or not _is_count(least) or not _is_count(most) or least > most:
            raise InvalidSchema("minItems and maxItems contradict each other")
        count = least if depth >= SHALLOW else self._between(min(max(least, 1), most), min(most, least + 3))
        items = schema.get("items", True)
        if items is False:
            count = min(count, len(prefix))
        values: list[Any] = []
        for number in range(count):
            part = prefix[number] if number < len(prefix) else items
            values.append(self._another(part, values, depth) if schema.get("uniqueItems") else self.value(part, depth + 1))
        return values

    def _another(self, schema: Any, others: list[Any], depth: int) -> Any:
        for _ in range(100):
            value = self.value(schema, depth + 1)
            if value not in others:
                return value
        raise InvalidSchema("not enough different values for uniqueItems")

    def _string(self, schema: Schema) -> str:
        if (known := schema.get("format")) in FORMATS:
            return FORMATS[known]
        least = schema.get("minLength", 0)
        most = schema.get("maxLength", max(least, 24))
        if not _is_count(least) or not _is_count(most) or least > most:
            raise InvalidSchema("minLength and maxLength contradict each other")
        text: str = self._pick(WORDS)
        while len(text) < least or (len(text) < most and self._random.random() < 0.5):
            text += " " + self._pick(WORDS)
        return text[:most].strip().ljust(least, "x")

    def _integer(self, schema: Schema) -> int:
        step = schema.get("multipleOf", 1)
        low, high = self._bounds(schema)
        if "exclusiveMinimum" in schema:
            low = math.floor(max(low, schema["exclusiveMinimum"])) + 1 if schema["exclusiveMinimum"] >= low else low
        if "exclusiveMaximum" in schema:
            high = math.ceil(min(high, schema["exclusiveMaximum"])) - 1 if schema["exclusiveMaximum"] <= high else high
        first, last = math.ceil(low / step), math.floor(high / step)
        if first > last:
            raise InvalidSchema("no integer lies within the bounds")
        return int(self._between(first, last) * step)

    def _number(self, schema: Schema) -> float:
        low, high = self._bounds(schema)
        if "multipleOf" in schema:
            step = schema["multipleOf"]
            first, last = math.ceil(low / step), math.floor(high / step)
            first += first * step == schema.get("exclusiveMinimum")
            last -= last * step == schema.get("exclusiveMaximum")
            if first > last:
                raise InvalidSchema("no number lies within the bounds")
            return self._between(first, last) * float(step)
        if low > high:
            raise InvalidSchema("no number lies within the bounds")
        middle = low + (high - low) * (0.25 + self._random.random() / 2)
        rounded = round(middle, 2)
        return float(rounded if low < rounded < high else middle)

    def _bounds(self, schema: Schema) -> tuple[float, float]:
        lows = [schema[name] for name in ("minimum", "exclusiveMinimum") if name in schema]
        highs = [schema[name] for name in ("maximum", "exclusiveMaximum") if name in schema]
        if not all(isinstance(bound, int | float) for bound in (*lows, *highs)):
            raise InvalidSchema("bounds are numbers")
        low = max(lows) if lows else min(0, min(highs) - 100) if highs else 0
        return low, min(highs) if highs else low + 100

    def _between(self, low: int, high: int) -> int:
        return low + int(self._random.random() * (high - low + 1))

    def _pick(self, options: Any) -> Any:
        return options[int(self._random.random() * len(options))]


def _sequence(schema: Schema, keyword: str) -> list[Any]:
    options = schema[keyword]
    if not isinstance(options, list) or not options:
        raise InvalidSchema(f"{keyword} is a list of at least one")
    return options


def _without(schema: Schema, keyword: str) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name != keyword}


def _merged(one: Schema, other: Any) -> dict[str, Any]:
    """Both at once: properties and required are united, the tighter bound holds, of other keywords the second wins."""
    if not isinstance(other, Mapping):
        raise InvalidSchema("a schema is an object")
    merged = {**one, **other}
    for keywords, tighter in ((LOWER_BOUNDS, max), (UPPER_BOUNDS, min)):
        for keyword in keywords:
            if keyword in one and keyword in other:
                merged[keyword] = tighter(one[keyword], other[keyword])
    if "properties" in one and "properties" in other:
        merged["properties"] = {**one["properties"], **other["properties"]}
    if "required" in one and "required" in other:
        merged["required"] = list(dict.fromkeys([*one["required"], *other["required"]]))
    return merged


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


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
