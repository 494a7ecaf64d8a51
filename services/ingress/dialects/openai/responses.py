"""OpenAI's chat dialect, outwards: results, deltas and problems become JSON and server-sent events. Pure; bytes out."""

from __future__ import annotations

from typing import Any

from pydantic_core import to_json

from services.ingress.dialects.port import Inquired, ModelShown, Told, origin
from services.ingress.http import sse
from services.ingress.problems import Problem, rendered
from shared.contracts.chat import Answer, FinishReason
from shared.contracts.usage import Usage
from shared.errors import Unsupported

SIMULATED = "simulated"

_FINISH = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.TOOL_CALLS: "tool_calls",
    FinishReason.BUDGET: "length",
}
"""The dialect has no word for a budget; to a client it is a length limit."""


def usage(found: Usage) -> dict[str, int]:
    """Token counts; what was wasted by retries is not the caller's."""
    return {
        "prompt_tokens": found.prompt_tokens,
        "completion_tokens": found.completion_tokens,
        "total_tokens": found.prompt_tokens + found.completion_tokens,
    }


def completion_id(job: str) -> str:
    """Of the completion; the job's id is in it."""
    return f"chatcmpl-{job}"


def completion(told: Told, answer: Answer, consumed: Usage) -> bytes:
    """A whole `chat.completion`."""
    calls = tool_calls(told.job, answer)
    message: dict[str, Any] = {"role": "assistant", "content": None if calls and not answer.text else answer.text, "refusal": None}
    if calls:
        message["tool_calls"] = calls
    if answer.thinking:
        message["reasoning_content"] = answer.thinking
    body = {
        "id": completion_id(told.job),
        "object": "chat.completion",
        "created": told.created,
        "model": answer.model or told.model,
        "system_fingerprint": SIMULATED if answer.simulated else None,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason(answer)}],
        "usage": usage(consumed),
        "tutti": origin(answer),
    }
    return to_json(body)


def finish_reason(answer: Answer) -> str:
    """In the dialect's words."""
    return "tool_calls" if answer.tool_calls else _FINISH[answer.finish_reason]


def tool_calls(job: str, answer: Answer) -> list[dict[str, Any]]:
    """Each with id, type, and arguments as JSON text, whatever the backend gave."""
    return [_tool_call(job, number, call) for number, call in enumerate(answer.tool_calls)]


def _tool_call(job: str, number: int, call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function") or {}
    arguments = function.get("arguments", {})
    if not isinstance(arguments, str):
        arguments = to_json(arguments).decode()
    return {
        "id": call.get("id") or f"call_{job}_{number}",
        "type": "function",
        "function": {"name": function.get("name", ""), "arguments": arguments},
    }


class ChunkWriter:
    """The chunks of one stream. What does not change is rendered once: a chunk costs one JSON string.

    Where nobody says which model answers its name is as the client spelled it. A stream has one name, the first that is told.
    """

    __slots__ = ("_after", "_before", "_head", "_include_usage", "_told")

    def __init__(self, told: Told) -> None:
        self._told = told
        self._include_usage: bool = told.wishes
        self._head: dict[str, Any] = {}
        self._before = self._after = b""

    @property
    def begun(self) -> bool:
        """The first chunk has been rendered."""
        return bool(self._head)

    def begin(self, model: str | None, simulated: bool) -> bytes:
        """The first chunk: the role, and from now on in every chunk the model that answers."""
        self._head = {
            "id": completion_id(self._told.job),
            "object": "chat.completion.chunk",
            "created": self._told.created,
            "model": model or self._told.model,
            "system_fingerprint": SIMULATED if simulated else None,
        }
        self._before = b"data: " + to_json(self._head)[:-1] + b',"choices":[{"index":0,"delta":'
        usage_field = b',"usage":null' if self._include_usage else b""
        self._after = b',"logprobs":null,"finish_reason":null}]' + usage_field + b"}\n\n"
        return self._before + b'{"role":"assistant","content":"","refusal":null}' + self._after

    def text(self, text: str) -> bytes:
        """New text."""
        return self._before + b'{"content":' + to_json(text) + b"}" + self._after

    def thinking(self, text: str) -> bytes:
        """New thinking, in the field that most clients read it from."""
        return self._before + b'{"reasoning_content":' + to_json(text) + b"}" + self._after

    def last(self, answer: Answer, consumed: Usage) -> bytes:
        """Tool calls if any, the finish reason, the usage if asked for, the end mark. The first chunk too where nothing came before."""
        parts = [] if self.begun else [self.begin(answer.model, answer.simulated)]
        calls = tool_calls(self._told.job, answer)
        if calls:
            delta = {"tool_calls": [{"index": number, **call} for number, call in enumerate(calls)]}
            parts.append(self._before + to_json(delta) + self._after)
        choice = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": finish_reason(answer)}
        no_usage = {"usage": None} if self._include_usage else {}
        parts.append(sse.data(to_json({**self._head, "choices": [choice], **no_usage, "tutti": origin(answer)})))
        if self._include_usage:
            parts.append(sse.data(to_json({**self._head, "choices": [], "usage": usage(consumed)})))
        return b"".join([*parts, sse.DONE])

    def failed(self, found: Problem) -> bytes:
        """An error after the stream began: an event with the error object, then the end mark."""
        return sse.data(rendered(found)) + sse.DONE


def models(asked: Inquired) -> bytes:
    """The list."""
    return to_json({"object": "list", "data": [_model(one) for one in asked.known.all()]})


def model(asked: Inquired) -> bytes:
    """One of it."""
    return to_json(_model(asked.known.one(asked.params["model"])))


def unsupported(_: Inquired) -> bytes:
    """Of what OpenAI has and this cluster has not."""
    raise Unsupported("this is not supported: the cluster chats, completes and embeds")


def _model(found: ModelShown) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": found.name, "object": "model", "created": 0, "owned_by": "tutti", "available": found.available}
    if found.window is not None:
        shown["context_length"] = found.window
    return shown | ({"simulated": True} if found.simulated else {})
