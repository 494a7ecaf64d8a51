"""Reads the bodies of /api/chat, /api/generate and /api/embed; what is wrong with one is said in Ollama's status and words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from infra.lab.simulators.ollama import schema
from infra.lab.simulators.ollama.errors import OllamaError, bad_request, embedder_not_found, model_not_found
from infra.lab.simulators.ollama.go_json import Fields, keep_alive, text_of
from infra.lab.simulators.ollama.parameters import ModelParameters, Parameters
from infra.lab.simulators.ollama.scheduler import LoadOptions
from shared.model_names import canonical

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


@dataclass(frozen=True, slots=True)
class Work:
    """One checked request. `prompt` is all text that the model reads; `last_user` and `last_tool` the newest message, by its role.

    A last message of the assistant is the beginning of the answer (`begun`), which the model goes on with; it is none of the above.
    """

    endpoint: Endpoint
    name: str
    model: ModelParameters
    prompt: str
    last_user: str
    load_options: LoadOptions
    context: int
    keep_alive_seconds: float | None
    last_tool: str = ""
    question: str = ""
    """`prompt` without what is begun: what the answer is derived from."""
    begun: str = ""
    empty: bool = False
    truncate: bool = True
    """An overlong prompt is cut in silence instead of being refused."""
    shift: bool = True
    """The answer may go on beyond the window (its beginning is forgotten) instead of ending there."""
    stream: bool = True
    format: Literal["json"] | Mapping[str, Any] | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    think: bool = False
    logprobs: bool = False
    seed: int | None = None
    num_predict: int | None = None
    stop: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    dimensions: int | None = None


def read(endpoint: Endpoint, body: Any, node: Parameters) -> Work:
    """Check a request. Raises OllamaError 400, 404, 500 (option or format of a wrong type) or 501 (no embeddings)."""
    fields = Fields(f"{endpoint.capitalize()}Request", body)
    name = fields.text("model")
    if not name:
        raise bad_request("model is required")
    model = find_model(node, name)
    if model is None:
        raise embedder_not_found(name) if endpoint == "embed" else model_not_found(name)
    _check_capability(endpoint, fields, model)
    options = _options(fields)
    load_options, context = _load_options(options, model, node)
    texts = _texts(fields.get("input")) if endpoint == "embed" else ()
    prompt, question, begun, newest, role = _input(endpoint, fields, texts)
    return Work(
        endpoint=endpoint,
        name=name,
        model=model,
        prompt=prompt,
        last_user=newest if role == "user" else "",
        last_tool=newest if role == "tool" else "",
        question=question,
        begun=begun,
        load_options=load_options,
        context=context,
        keep_alive_seconds=keep_alive(fields.get("keep_alive")),
        empty=not (texts or newest or prompt),
        truncate=fields.get("truncate") is not False,
        shift=fields.get("shift") is not False,
        stream=fields.get("stream") is not False,
        format=_format(fields.get("format")),
        tools=tuple(fields.objects("tools")),
        think=bool(fields.get("think")),
        logprobs=fields.get("logprobs") is True,
        seed=options.get("seed"),
        num_predict=options.get("num_predict"),
        stop=tuple(str(mark) for mark in options.get("stop") or () if mark),
        texts=texts,
        dimensions=_dimensions(fields.get("dimensions")),
    )


def find_model(node: Parameters, name: str) -> ModelParameters | None:
    """By name, `:latest` understood."""
    wanted = canonical(name)
    return next((model for model in node.models if canonical(model.name) == wanted), None)


def _check_capability(endpoint: Endpoint, fields: Fields, model: ModelParameters) -> None:
    if endpoint == "embed":
        if "embedding" not in model.capabilities:
            raise OllamaError(501, "This server does not support embeddings. Start it with `--embeddings`")
        return
    if keep_alive(fields.get("keep_alive")) == 0 and not (fields.get("prompt") or fields.get("messages")):
        return  # it is unloaded, whatever it can do
    if "completion" not in model.capabilities:
        raise bad_request(f'"{model.name}" does not support {endpoint}')
    if fields.get("tools") and "tools" not in model.capabilities:
        raise bad_request(f"registry.ollama.ai/library/{canonical(model.name)} does not support tools")
    if fields.get("think") and "thinking" not in model.capabilities:
        raise bad_request(f'"{model.name}" does not support thinking')


def _options(fields: Fields) -> dict[str, Any]:
    options = fields.object("options")
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


def _input(endpoint: Endpoint, fields: Fields, texts: tuple[str, ...]) -> tuple[str, str, str, str, str]:
    """All text that the model reads, the same without what is begun, that, the newest message before it, and its role."""
    if endpoint == "embed":
        whole = "\n".join(texts)
        return whole, whole, "", "", ""
    if endpoint == "generate":
        prompt = fields.text("prompt")
        whole = f"{fields.text('system')}{prompt}" if prompt else ""
        return whole, whole, "", prompt, "user"
    messages = fields.objects("messages")
    if not messages:
        return "", "", "", "", ""
    contents = [text_of("ChatRequest.messages", message, "content") for message in messages]
    parts = [f"{message.get('role', '')}: {content}" for message, content in zip(messages, contents, strict=True)]
    roles = [str(message.get("role", "")) for message in messages]
    if len(messages) > 1 and roles[-1] == "assistant" and not messages[-1].get("tool_calls"):
        return "\n".join(parts), "\n".join(parts[:-1]), contents[-1], contents[-2], roles[-2]
    return "\n".join(parts), "\n".join(parts), "", contents[-1], roles[-1]


def _texts(value: Any) -> tuple[str, ...]:
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
        raise OllamaError(500, f'invalid format: {json.dumps(json.dumps(value))}; expected "json" or a valid JSON Schema object')
    try:
        schema.instance(value, Random(0))
    except schema.InvalidSchema as error:
        raise bad_request(_llama_server_error(f"JSON schema conversion failed:\n{error}")) from error
    return value


def _llama_server_error(message: str) -> str:
    """The engine's own error body, which Ollama passes on as a text."""
    return json.dumps(
        {"error": {"code": 400, "message": f"Field 'json_schema': \"json_schema\": {message}", "type": "invalid_request_error"}}
    )


def _dimensions(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
