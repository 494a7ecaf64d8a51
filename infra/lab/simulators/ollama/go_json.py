"""Fields of a request as Ollama's Go server decodes them, and what it says when one has the wrong type (worded as 0.34
does). Written here: no library of Python's speaks as encoding/json does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import inf
from typing import Any

from infra.lab.simulators.ollama.errors import bad_request

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_GO_TYPES = {"messages": "[]api.Message", "tools": "api.Tools", "options": "map[string]interface {}"}


class Fields:
    """The body of one request. Every method raises OllamaError 400 for a field of the wrong type; absent and null are the same."""

    def __init__(self, struct: str, body: Any) -> None:
        if not isinstance(body, Mapping):
            raise bad_request(f"json: cannot unmarshal {_kind(body)} into Go value of type api.{struct}")
        self._struct = struct
        self._body = body

    def get(self, name: str) -> Any:
        """Whatever it is."""
        return self._body.get(name)

    def text(self, name: str) -> str:
        """A string; empty when absent."""
        return text_of(self._struct, self._body, name)

    def objects(self, name: str) -> list[Mapping[str, Any]]:
        """A list of objects; empty when absent."""
        found: list[Mapping[str, Any]] = self._of(name, list, [])
        if wrong := [part for part in found if not isinstance(part, Mapping)]:
            raise self._wrong(name, wrong[0])
        return found

    def object(self, name: str) -> Mapping[str, Any]:
        """An object; empty when absent."""
        found: Mapping[str, Any] = self._of(name, Mapping, {})
        return found

    def _of(self, name: str, kind: type, absent: Any) -> Any:
        value = self._body.get(name)
        if value is not None and not isinstance(value, kind):
            raise self._wrong(name, value)
        return absent if value is None else value

    def _wrong(self, name: str, value: Any) -> Exception:
        return _mismatch(self._struct, name, value, _GO_TYPES.get(name, "string"))


def text_of(struct: str, body: Mapping[str, Any], name: str) -> str:
    """A string field of an object inside the body. Raises OllamaError 400."""
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _mismatch(struct, name, value, "string")
    return value


def keep_alive(value: Any) -> float | None:
    """Seconds, infinite for negative ones; None when not given. Numbers are seconds, strings are Go durations. Raises OllamaError 400."""
    if value is None:
        return None
    seconds = _go_seconds(value) if isinstance(value, str) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise bad_request(f"Unsupported type: '{'bool' if isinstance(value, bool) else _kind(value)}'")
    return inf if seconds < 0 else float(seconds)


def _go_seconds(text: str) -> float:
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return 0.0
    parts = _DURATION.findall(rest)
    if not parts or "".join(number + unit for number, unit in parts) != rest:
        missing = re.fullmatch(r"[\d.]+", rest)
        raise bad_request(f'time: {"missing unit in" if missing else "invalid"} duration "{text}"')
    return sign * sum(float(number) * _UNITS[unit] for number, unit in parts)


def _mismatch(struct: str, name: str, value: Any, wanted: str) -> Exception:
    return bad_request(f"json: cannot unmarshal {_kind(value)} into Go struct field {struct}.{name} of type {wanted}")


def _kind(value: Any) -> str:
    """What Go calls a JSON value."""
    if isinstance(value, bool):
        return "bool"
    return {str: "string", int: "number", float: "number", list: "array", dict: "object"}.get(type(value), "null")
