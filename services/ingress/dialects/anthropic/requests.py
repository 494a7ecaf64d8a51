"""Anthropic's dialect, inwards: a message request becomes a Job. Pure.

Hints that never change the answer (`cache_control`, `service_tier`, `speed`) are accepted and do nothing; what would change it and is not
supported is refused by name; what nobody knows is an unknown field.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import to_json

from services.ingress.dialects.port import (
    EFFORTS,
    Asked,
    Effort,
    Strict,
    Terms,
    Unread,
    UnsupportedParameter,
    functions,
    named_tools,
    refuse_unsupported,
)
from shared.contracts.base import JsonObject, JsonValue, Label, PublicId, Sentence, Text
from shared.contracts.chat import MOST_TOOLS, ChatMessage, Options, ToolChoice
from shared.contracts.job import Job

_MOST_BLOCKS = 10_000


class _ImageSource(Strict):
    """`base64` only: the cluster fetches nothing on a caller's behalf."""

    type: Literal["base64", "url", "file"]
    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp"] | None = None
    data: Text | None = None
    url: Unread = None
    file_id: Unread = None


class _Block(Strict):
    """One piece of a message: text, an image, a call of a tool, its result, or what a model thought (which is not given to it again)."""

    type: Literal["text", "image", "tool_use", "tool_result", "thinking", "redacted_thinking", "document", "search_result"]
    text: Text | None = None
    source: JsonObject | None = None
    id: Label | None = None
    name: Label | None = None
    input: JsonObject | None = None
    tool_use_id: Label | None = None
    content: Text | Annotated[tuple[JsonObject, ...], Field(max_length=_MOST_BLOCKS)] | None = None
    is_error: bool | None = None
    thinking: Text | None = None
    signature: Text | None = None
    data: Text | None = None
    cache_control: Unread = None
    citations: Unread = None
    title: Unread = None
    context: Unread = None
    caller: Unread = None


class _SaidTurn(Strict):
    """One turn of the conversation; `system` in the midst of one is a newer word."""

    role: Literal["user", "assistant", "system"]
    content: Text | Annotated[tuple[_Block, ...], Field(max_length=_MOST_BLOCKS)]


class _CallersTool(Strict):
    """A tool of the caller's own. Tools that Anthropic runs have another `type`, and are refused."""

    name: Label
    description: Text | None = None
    input_schema: JsonObject = Field(default_factory=dict)
    type: Label | None = None
    strict: bool | None = None
    cache_control: Unread = None
    eager_input_streaming: Unread = None
    defer_loading: Unread = None
    input_examples: Unread = None
    allowed_callers: Unread = None

    @model_validator(mode="before")
    @classmethod
    def _is_the_callers(cls, given: Any) -> Any:
        """Said before anything is said of the fields that such a tool has."""
        kind = given.get("type", "custom") if isinstance(given, dict) else "custom"
        if kind not in (None, "custom"):
            raise ValueError(f"tools of type {str(kind)[:64]} are not supported; supported are the caller's own")
        return given


class _Choice(Strict):
    """Whether the model may, must, or must not call a tool."""

    type: Literal["auto", "any", "tool", "none"]
    name: Label | None = None
    disable_parallel_tool_use: bool = False


class _Thinking(Strict):
    """`budget_tokens` and `display` are hints: a model that thinks knows whether, not how long."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    display: Label | None = None


class _OutputFormat(Strict):
    """An answer that fits a schema."""

    type: Literal["json_schema"]
    schema_: JsonObject = Field(alias="schema")


class _OutputConfig(Strict):
    """How the answer is to be."""

    format: _OutputFormat | None = None
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None


class _Metadata(Strict):
    """Whose request it is, in the caller's words."""

    user_id: Sentence | None = None


class Counted(Asked):
    """The body of `POST /v1/messages/count_tokens`: what is read."""

    messages: tuple[_SaidTurn, ...] = Field(min_length=1, max_length=1_000)
    system: Text | Annotated[tuple[_Block, ...], Field(max_length=_MOST_BLOCKS)] | None = None
    tools: tuple[_CallersTool, ...] = Field(default=(), max_length=MOST_TOOLS)
    tool_choice: _Choice | None = None
    thinking: _Thinking | None = None
    output_config: _OutputConfig | None = None
    # Judged by their values.
    mcp_servers: Annotated[tuple[JsonObject, ...], Field(max_length=64)] | None = None
    context_management: Unread = None


class MessagesRequest(Counted):
    """The body of `POST /v1/messages`."""

    max_tokens: int = Field(ge=1, le=1_000_000)
    stream: bool = False
    stop_sequences: tuple[Label, ...] = Field(default=(), max_length=16)
    temperature: float | None = Field(default=None, ge=0, le=1)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=0, lt=2**31)
    metadata: _Metadata = _Metadata()
    service_tier: Literal["auto", "standard_only"] | None = None
    cache_control: Unread = None
    speed: Literal["standard", "fast"] | None = None
    diagnostics: Unread = None
    user_profile_id: Unread = None
    workspace_id: Unread = None
    # Judged by their values.
    container: JsonValue = None
    inference_geo: Label | None = None
    # tutti's own.
    input: JsonObject | None = None
    """What the pattern takes that a model `tutti/<pattern>` names."""
    conversation: PublicId | None = None
    """What was said in it before stands in front of `messages`, which are the new ones."""


_HARMLESS: dict[str, tuple[Any, ...]] = {"container": (), "mcp_servers": ((),), "context_management": (), "inference_geo": ()}


def to_job(request: MessagesRequest, terms: Terms) -> Job:
    """The job that answers the request. Raises UnsupportedParameter, and as `Terms.job`."""
    refuse_unsupported(request, _HARMLESS)
    tools, choice = _tools(request)
    given = request.output_config or _OutputConfig()
    return terms.job(
        request.input,
        messages=turns(request),
        conversation=request.conversation,
        options=Options(
            temperature=request.temperature,
            top_p=request.top_p,
            top_k=request.top_k,
            max_tokens=request.max_tokens,
            stop=request.stop_sequences,
            think=_think(request.thinking, given),
        ),
        format=None if given.format is None else given.format.schema_,
        tools=tools,
        tool_choice=choice if tools else "auto",
        parallel_tool_calls=request.tool_choice is None or not request.tool_choice.disable_parallel_tool_use or not tools,
        stream=request.stream,
        metadata={} if request.metadata.user_id is None else {"user": request.metadata.user_id},
    )


def turns(request: Counted) -> tuple[ChatMessage, ...]:
    """What the model reads, the system's words first. Raises UnsupportedParameter."""
    system = request.system if isinstance(request.system, str) else _text(request.system or (), "system")
    names: dict[str, str] = {}
    found = [ChatMessage(role="system", content=system)] if system else []
    for number, turn in enumerate(request.messages):
        found += _turn(turn, f"messages.{number}", names)
    return tuple(found)


def _turn(turn: _SaidTurn, place: str, names: dict[str, str]) -> Iterator[ChatMessage]:
    """A turn is several messages where it answers tools; their results come before what the caller says. `names`: of calls, by id."""
    if isinstance(turn.content, str):
        yield ChatMessage(role=turn.role, content=turn.content)
        return
    calls, images, texts = [], [], []
    for block in turn.content:
        match block.type:
            case "text":
                texts.append(block.text or "")
            case "image":
                images.append(_image(block, place))
            case "tool_use":
                names[block.id or ""] = block.name or ""
                function = {"name": block.name or "", "arguments": block.input or {}}
                calls.append({"id": block.id or "", "type": "function", "function": function})
            case "tool_result":
                name = names.get(block.tool_use_id or "") or None
                yield ChatMessage(role="tool", content=_result(block, place), tool_call_id=block.tool_use_id, tool_name=name)
            case "document" | "search_result":
                raise UnsupportedParameter(f"{place}.content", f"content of type {block.type} is not supported; give its text")
    if texts or images or calls:
        yield ChatMessage(role=turn.role, content="\n".join(texts), images=tuple(images), tool_calls=tuple(calls))


def _text(blocks: tuple[_Block, ...], place: str) -> str:
    if any(block.type != "text" for block in blocks):
        raise UnsupportedParameter(place, f"{place} is text")
    return "\n".join(block.text or "" for block in blocks)


def _result(block: _Block, place: str) -> str:
    """As text: a model reads no other from a tool."""
    if block.content is None or isinstance(block.content, str):
        text = block.content or ""
    elif all(part.get("type") == "text" for part in block.content):
        text = "\n".join(str(part.get("text", "")) for part in block.content)
    else:
        raise UnsupportedParameter(f"{place}.content", "a tool's result is text")
    return f"error: {text}" if block.is_error else text


def _image(block: _Block, place: str) -> str:
    source = _ImageSource.model_validate(block.source or {})
    if source.type != "base64" or not source.data:
        raise UnsupportedParameter(f"{place}.content", "images are supported in base64 only")
    return source.data


def _tools(request: Counted) -> tuple[tuple[dict[str, Any], ...], ToolChoice]:
    """The tools that the model may call, and whether it must. Of a named one, only that."""
    tools, choice = functions(map(_tool, request.tools)), request.tool_choice
    if choice is None or choice.type == "auto":
        return tools, "auto"
    if choice.type == "none":
        return (), "auto"
    return named_tools(tools, None if choice.type == "any" else [choice.name or ""]), "required"


def _tool(tool: _CallersTool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description or "", "parameters": tool.input_schema}
    return {"type": "function", "function": function}


def _think(thinking: _Thinking | None, given: _OutputConfig) -> Effort:
    if thinking is not None and thinking.type == "disabled":
        return False
    if given.effort is not None and thinking is not None:
        return EFFORTS[given.effort]
    return None if thinking is None else True


def characters(request: Counted) -> int:
    """Of all that the model reads, tools too."""
    tools, _ = _tools(request)
    said = sum(len(turn.content) + len(to_json(turn.tool_calls)) for turn in turns(request))
    return said + len(to_json(tools))
