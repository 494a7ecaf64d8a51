"""Reads the bodies of /api/chat, /api/generate and /api/embed; what is wrong with one is said in Ollama's status and words."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Literal

from infra.simulators.ollama import schema
from infra.simulators.ollama.errors import OllamaError, bad_request, model_not_found
from infra.simulators.ollama.parameters import ModelParameters, Parameters
from infra.simulators.ollama.scheduler import LoadOptions

Endpoint = Literal["chat", "generate", "embed"]

_LOAD_OPTIONS: dict[str, tuple[type, ...]] = {
    "num_ctx": (int,),
    "num_batch": (int,),
    "num_gpu": (int,),
    "main_gpu": (int,),
    "use_mmap": (bool,),
    "num_thread": (int,),
    "draft_num_predict": (int,),
}
_NUMBER = (int, float)
_PREDICT_OPTIONS: dict[str, tuple[type, ...]] = {
    "num_keep": (int,),
    "seed": (int,),
    "num_predict": (int,),
    "top_k": (int,),
    "top_p": _NUMBER,
    "min_p": _NUMBER,
    "typical_p": _NUMBER,
    "repeat_last_n": (int,),
    "temperature": _NUMBER,
    "repeat_penalty": _NUMBER,
    "presence_penalty": _NUMBER,
    "frequency_penalty": _NUMBER,
    "stop": (list,),
}
_GO_NAMES = {int: "integer", bool: "boolean", list: "array", float: "float32"}
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


@dataclass(frozen=True, slots=True)
class Work:
    """One checked request. `prompt` is all text that the model reads; `last_user` and `last_tool` the newest message, by its role."""

    endpoint: Endpoint
    name: str
    model: ModelParameters
    prompt: str
    last_user: str
    load_options: LoadOptions
    context: int
    keep_alive_seconds: float | None
    last_tool: str = ""
    empty: bool = False
    stream: bool = True
    format: Literal["json"] | Mapping[str, Any] | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    think: bool = False
    seed: int | None = None
    num_predict: int | None = None
    stop: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    dimensions: int | None = None


def read(endpoint: Endpoint, body: Any, node: Parameters) -> Work:
    """Check a request. Raises OllamaError 400, 404, 500 (wrong option type) or 501 (no embeddings)."""
    if not isinstance(body, Mapping):
        raise bad_request("json: cannot unmarshal value into Go value of type api.ChatRequest")
    name = _text(body, "model")
    if not name:
        raise bad_request("model is required")
    model = find_model(node, name)
    _check_capability(endpoint, body, model)
    options = _options(body)
    load_options, context = _load_options(options, model, node)
    texts = _texts(body) if endpoint == "embed" else ()
    prompt, newest, role = _input(endpoint, body, texts)
    return Work(
        endpoint=endpoint,
        name=name,
        model=model,
        prompt=prompt,
        last_user=newest if role == "user" else "",
        last_tool=newest if role == "tool" else "",
        load_options=load_options,
        context=context,
        keep_alive_seconds=keep_alive(body.get("keep_alive")),
        empty=not (texts or newest or prompt),
        stream=body.get("stream") is not False,
        format=_format(body.get("format")),
        tools=tuple(_list(body, "tools")),
        think=bool(body.get("think")),
        seed=options.get("seed"),
        num_predict=options.get("num_predict"),
        stop=tuple(str(mark) for mark in options.get("stop") or () if mark),
        texts=texts,
        dimensions=_dimensions(body),
    )


def find_model(node: Parameters, name: str) -> ModelParameters:
    """By name, `:latest` understood. Raises OllamaError 404."""
    wanted = canonical(name)
    for model in node.models:
        if canonical(model.name) == wanted:
            return model
    raise model_not_found(name)


def canonical(name: str) -> str:
    """With its tag."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def keep_alive(value: Any) -> float | None:
    """Seconds, infinite for negative ones; None when not given. Numbers are seconds, strings are Go durations. Raises OllamaError 400."""
    if value is None:
        return None
    seconds = _go_seconds(value) if isinstance(value, str) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise bad_request(f"time: invalid duration {json.dumps(value)}")
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


def _check_capability(endpoint: Endpoint, body: Mapping[str, Any], model: ModelParameters) -> None:
    if endpoint == "embed":
        if "embedding" not in model.capabilities:
            raise OllamaError(501, "This server does not support embeddings. Start it with `--embeddings`")
        return
    if "completion" not in model.capabilities:
        raise bad_request(f'"{model.name}" does not support {endpoint}')
    if body.get("tools") and "tools" not in model.capabilities:
        raise bad_request(f"registry.ollama.ai/library/{model.name} does not support tools")
    if body.get("think") and "thinking" not in model.capabilities:
        raise bad_request(f'"{model.name}" does not support thinking')


def _options(body: Mapping[str, Any]) -> dict[str, Any]:
    options = body.get("options") or {}
    if not isinstance(options, Mapping):
        raise bad_request("json: cannot unmarshal value into Go struct field .options of type map[string]interface {}")
    known = {name: value for name, value in options.items() if value is not None and (name in _LOAD_OPTIONS or name in _PREDICT_OPTIONS)}
    for name, value in known.items():
        kinds = _LOAD_OPTIONS.get(name) or _PREDICT_OPTIONS[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise OllamaError(500, f'option "{name}" must be of type {_GO_NAMES[kinds[-1]]}')
    return known


def _load_options(options: Mapping[str, Any], model: ModelParameters, node: Parameters) -> tuple[LoadOptions, int]:
    """Effective values: an automatic `num_ctx` or `num_batch` equals the same value said explicitly."""
    given = {name: options[name] for name in _LOAD_OPTIONS if name in options}
    context = max(4, min(given.get("num_ctx", node.default_context), model.context_length))
    given["num_ctx"] = context
    given.setdefault("num_batch", node.default_batch)
    return tuple(sorted(given.items())), context


def _input(endpoint: Endpoint, body: Mapping[str, Any], texts: tuple[str, ...]) -> tuple[str, str, str]:
    """All text that the model reads, the newest message and its role."""
    if endpoint == "embed":
        return "\n".join(texts), "", ""
    if endpoint == "generate":
        prompt = _text(body, "prompt")
        return f"{_text(body, 'system')}{prompt}" if prompt else "", prompt, "user"
    messages = _list(body, "messages")
    if not messages:
        return "", "", ""
    parts = [f"{message.get('role', '')}: {_text(message, 'content')}" for message in messages]
    return "\n".join(parts), _text(messages[-1], "content"), str(messages[-1].get("role", ""))


def _texts(body: Mapping[str, Any]) -> tuple[str, ...]:
    value = body.get("input")
    if isinstance(value, str):
        return (value,) if value else ()
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise bad_request("invalid input type")
    return tuple(value)


def _format(value: Any) -> Literal["json"] | Mapping[str, Any] | None:
    if value is None or value == "":
        return None
    if value == "json":
        return "json"
    if not isinstance(value, Mapping):
        raise bad_request(f'invalid format: {json.dumps(value)}; expected "json" or a valid JSON Schema object')
    try:
        schema.check(value)
    except schema.InvalidSchema as error:
        raise bad_request(f"invalid JSON schema in format: {error}") from error
    return value


def _dimensions(body: Mapping[str, Any]) -> int | None:
    value = body.get("dimensions")
    if value is None or value == 0:
        return None
    if not isinstance(value, int) or value < 0:
        raise bad_request("dimensions must be a positive integer")
    return value


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise bad_request(f"json: cannot unmarshal value into Go struct field .{name} of type string")
    return value


def _list(body: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(part, Mapping) for part in value):
        raise bad_request(f"json: cannot unmarshal value into Go struct field .{name} of type []api.{name}")
    return value
