"""JSON Schema (draft 2020-12) of bounded work: what of it says how a value looks; whoever calls this serves others meanwhile.

The usual libraries do what a schema says however long that takes (an expression that backtracks, references that double at each level, a
reference to be fetched), and schemas come from callers. Not checked are the words not in `WORDS`: expressions, `unevaluated…`,
`dependent…`, `if`, `contains`, `uniqueItems`, `format`; references lead only into the schema itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

MOST_WORK = 20_000
"""Comparisons and visits of one check; about 20 ms."""
_DEEPEST = 80
_MOST_FAULTS = 4


class NotDecided(Exception):
    """The schema asks for more work than a check may do."""


def schema_faults(value: Any, schema: Mapping[str, Any]) -> list[str]:
    """What is wrong with a value, as sentences for its author, at most four; empty where it fits. Raises NotDecided."""
    walk, found = _Walk(schema), list[str]()
    for fault in walk.faults(value, schema, ""):
        found.append(fault)
        if len(found) == _MOST_FAULTS:
            break
    return found


def unchecked(schema: Any, depth: int = 0) -> str | None:
    """The first word of a schema that is not checked here, or not as it is written; None where all are."""
    if isinstance(schema, bool):
        return None
    if not isinstance(schema, dict) or depth > _DEEPEST:
        return "a schema that is no object"
    for word, said in schema.items():
        if word in _SILENT:
            continue
        if word not in WORDS or not _is_well_formed(word, said):
            return str(word)[:64]
    for inner in _inner(schema):
        if (wrong := unchecked(inner, depth + 1)) is not None:
            return wrong
    return None


def _inner(schema: Mapping[str, Any]) -> Iterator[Any]:
    for word, said in schema.items():
        if word in {"properties", "$defs", "definitions"} and isinstance(said, dict):
            yield from said.values()
        elif word in {"anyOf", "allOf", "oneOf", "prefixItems"}:
            yield from said
        elif word in {"items", "additionalProperties", "not"}:
            yield said


def _is_well_formed(word: str, said: Any) -> bool:
    return isinstance(said, WORDS[word][0]) and not (isinstance(said, bool) and bool not in WORDS[word][0])


class _Walk:
    """One check: its root, and the work that it may still do."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root, self._left = root, MOST_WORK

    def spend(self, work: int = 1) -> None:
        self._left -= work
        if self._left < 0:
            raise NotDecided("the schema asks for too much work")

    def faults(self, value: Any, schema: Any, at: str, depth: int = 0) -> Iterator[str]:
        """`at`: where in the answer the value lies."""
        self.spend()
        if depth > _DEEPEST:
            raise NotDecided("the JSON, or its schema, is nested too deep")
        if schema is False:
            yield f"{_named(at)} must not be there"
        if isinstance(schema, dict):
            here = _Here(schema, at, depth + 1)
            for word, said in schema.items():
                if word in WORDS and _is_well_formed(word, said):
                    yield from WORDS[word][1](self, value, said, here)

    def fits(self, value: Any, schema: Any, at: str, depth: int) -> bool:
        return next(self.faults(value, schema, at, depth), None) is None

    def same(self, one: Any, other: Any) -> bool:
        """Equal as JSON: 1 is 1.0, and true is no number."""
        self.spend()
        if isinstance(one, bool) or isinstance(other, bool):
            return one is other
        if isinstance(one, list) and isinstance(other, list):
            return len(one) == len(other) and all(map(self.same, one, other))
        if isinstance(one, dict) and isinstance(other, dict):
            return one.keys() == other.keys() and all(self.same(one[name], other[name]) for name in one)
        return bool(one == other)

    def target(self, reference: str) -> Any:
        """What a reference leads to; a schema that allows all where it leads nowhere here."""
        found: Any = self._root
        if not reference.startswith("#"):
            return True
        for part in reference[1:].strip("/").split("/") if reference != "#" else ():
            self.spend()
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            elif isinstance(found, dict) and name in found:
                found = found[name]
            else:
                return True
        return found


Found = Iterator[str]


class _Here(NamedTuple):
    """Where a word is checked: the schema that it stands in, where in the answer the value lies, and how deep."""

    schema: Mapping[str, Any]
    at: str
    depth: int


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "number": _is_number,
    "integer": lambda value: _is_number(value) and (isinstance(value, int) or value.is_integer()),
}


def _named(at: str) -> str:
    return f"`{at[-80:].lstrip('.')}`" if at else "the answer"


def _type(walk: _Walk, value: Any, said: Any, here: _Here) -> Found:
    names = [said] if isinstance(said, str) else said[: len(_TYPES)]
    if not any(_TYPES[name](value) for name in names if isinstance(name, str) and name in _TYPES):
        yield f"{_named(here.at)} is not of type {' or '.join(map(str, names))[:80]}"


def _enum(walk: _Walk, value: Any, said: Any, here: _Here) -> Found:
    if not any(walk.same(value, one) for one in said):
        shown = ", ".join(str(one)[:40] for one in said[:8])
        yield f"{_named(here.at)} is none of the allowed values: {shown}{', …' if len(said) > 8 else ''}"


def _const(walk: _Walk, value: Any, said: Any, here: _Here) -> Found:
    if not walk.same(value, said):
        yield f"{_named(here.at)} is not {str(said)[:80]}"


def _bound(kind: Callable[[Any], bool], size: Callable[[Any], Any], fits: Callable[[Any, Any], bool], words: str) -> Any:
    def check(walk: _Walk, value: Any, said: Any, here: _Here) -> Found:
        if kind(value) and not fits(size(value), said):
            yield f"{_named(here.at)} {words} {said}"

    return check


def _required(walk: _Walk, value: Any, said: Any, here: _Here) -> Found:
    if isinstance(value, dict):
        walk.spend(len(said))
        yield from (f"{_named(here.at)} lacks `{str(name)[:80]}`" for name in said if isinstance(name, str) and name not in value)


def _properties(walk: _Walk, value: Any, said: Any, here: _Here) -> Found:
    if isinstance(value, dict):
        walk.spend(len(said))
        for name, inner in said.items():
            if name in value:
                yield from walk.faults(value[name], inner, f"{here.at}.{name[:40]}", here.depth)


def _additional(walk: _Walk, value: Any, said: Any, here: _Here) -> Found:
    known = here.schema.get("properties", {})
    if isinstance(value, dict) and isinstance(known, dict) and "patternProperties" not in here.schema:
        walk.spend(len(value))
        for name, inner in value.items():  # in this order: faults go into prompts, which must be the same at each run
            if name not in known:
                yield from walk.faults(inner, said, f"{here.at}.{name[:40]}", here.depth)


def _items(walk: _Walk, value: Any, said: Any, here: _Here) -> Found:
    if isinstance(value, list):
        first = here.schema.get("prefixItems")
        for index in range(len(first) if isinstance(first, list) else 0, len(value)):
            yield from walk.faults(value[index], said, f"{here.at}[{index}]", here.depth)


def _prefix(walk: _Walk, value: Any, said: Any, here: _Here) -> Found:
    if isinstance(value, list):
        for index, (item, inner) in enumerate(zip(value, said, strict=False)):
            yield from walk.faults(item, inner, f"{here.at}[{index}]", here.depth)


def _all_of(walk: _Walk, value: Any, said: Any, here: _Here) -> Found:
    for inner in said:
        yield from walk.faults(value, inner, here.at, here.depth)


def _any_of(walk: _Walk, value: Any, said: Any, here: _Here) -> Found:
    if not any(walk.fits(value, inner, here.at, here.depth) for inner in said):
        yield f"{_named(here.at)} fits none of the {len(said)} allowed forms"


def _one_of(walk: _Walk, value: Any, said: Any, here: _Here) -> Found:
    fitting = sum(walk.fits(value, inner, here.at, here.depth) for inner in said)
    if fitting != 1:
        yield f"{_named(here.at)} fits {fitting} of the {len(said)} allowed forms, and must fit one"


def _not(walk: _Walk, value: Any, said: Any, here: _Here) -> Found:
    if walk.fits(value, said, here.at, here.depth):
        yield f"{_named(here.at)} has a form that is not allowed"


def _ref(walk: _Walk, value: Any, said: Any, here: _Here) -> Found:
    yield from walk.faults(value, walk.target(said), here.at, here.depth)


def _least(a: Any, b: Any) -> bool:
    return bool(a >= b)


def _most(a: Any, b: Any) -> bool:
    return bool(a <= b)


_TEXT, _LIST, _MAP = _TYPES["string"], _TYPES["array"], _TYPES["object"]
_NUMBER, _COUNT, _ANY_SCHEMA = (int, float), (int,), (dict, bool)
WORDS: dict[str, tuple[tuple[type, ...], Callable[[_Walk, Any, Any, _Here], Found]]] = {
    "type": ((str, list), _type),
    "enum": ((list,), _enum),
    "const": ((object, bool), _const),
    "required": ((list,), _required),
    "properties": ((dict,), _properties),
    "additionalProperties": (_ANY_SCHEMA, _additional),
    "items": (_ANY_SCHEMA, _items),
    "prefixItems": ((list,), _prefix),
    "allOf": ((list,), _all_of),
    "anyOf": ((list,), _any_of),
    "oneOf": ((list,), _one_of),
    "not": (_ANY_SCHEMA, _not),
    "$ref": ((str,), _ref),
    "minLength": (_COUNT, _bound(_TEXT, len, _least, "is shorter than")),
    "maxLength": (_COUNT, _bound(_TEXT, len, _most, "is longer than")),
    "minItems": (_COUNT, _bound(_LIST, len, _least, "has fewer items than")),
    "maxItems": (_COUNT, _bound(_LIST, len, _most, "has more items than")),
    "minProperties": (_COUNT, _bound(_MAP, len, _least, "has fewer fields than")),
    "maxProperties": (_COUNT, _bound(_MAP, len, _most, "has more fields than")),
    "minimum": (_NUMBER, _bound(_is_number, lambda value: value, _least, "is less than")),
    "maximum": (_NUMBER, _bound(_is_number, lambda value: value, _most, "is more than")),
    "exclusiveMinimum": (_NUMBER, _bound(_is_number, lambda value: value, lambda a, b: bool(a > b), "is not more than")),
    "exclusiveMaximum": (_NUMBER, _bound(_is_number, lambda value: value, lambda a, b: bool(a < b), "is not less than")),
}
"""Word → (of what type its value is, its check)."""
_SILENT = frozenset({"$schema", "$id", "$defs", "definitions", "title", "description", "default", "examples", "$comment", "deprecated"})
"""They say nothing about a value."""
