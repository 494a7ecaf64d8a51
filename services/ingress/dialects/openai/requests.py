"""OpenAI's chat dialect, inwards: a chat completion request becomes a Job. Pure.

Every field of the public API is known here. Hints that never change the answer are accepted and do nothing; what would change it and is
not supported is refused by name; what nobody knows is an unknown field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from services.ingress.dialects.port import (
    EFFORTS,
    Asked,
    Effort,
    Strict,
    Terms,
    Unread,
    UnsupportedParameter,
    as_many,
    function_name,
    functions,
    named_tools,
    refuse_unsupported,
)
from shared.contracts.base import MOST, Image, JsonObject, JsonValue, Label, ModelName, PublicId, Sentence, Text
from shared.contracts.cache import CacheControl
from shared.contracts.chat import MOST_CALLS, MOST_TOOLS, ChatMessage, Options, ToolChoice
from shared.contracts.job import Job

_MAX_METADATA = 16


Number = Annotated[int, Field(ge=-MOST, le=MOST)]


class _ImageUrl(Strict):
    """`url` is a data URL; `detail` is a hint."""

    url: Text
    detail: Literal["auto", "low", "high", "original"] | None = None


class AnyPart(Strict):
    """Text, a refusal (as text) or an image: of a chat's message, of a response's item. Audio and files are refused by name."""

    type: Label
    text: Text | None = None
    refusal: Text | None = None
    image_url: _ImageUrl | Text | None = None


class _ContentPart(AnyPart):
    """Of a chat's message. What is unread are hints."""

    type: Literal["text", "image_url", "refusal", "input_audio", "file"]
    image_url: _ImageUrl | None = None
    input_audio: Unread = None
    file: Unread = None
    prompt_cache_breakpoint: Unread = None
    cache_control: Unread = None


class _AskedMessage(Strict):
    """One turn of the conversation. What a model thought in an earlier turn is not given to it again."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Text | Annotated[tuple[_ContentPart, ...], Field(max_length=10_000)] | None = None
    name: Label | None = None
    tool_calls: tuple[JsonObject, ...] | None = Field(default=None, max_length=MOST_CALLS)
    tool_call_id: Label | None = None
    refusal: Text | None = None
    annotations: Unread = None
    audio: Unread = None
    function_call: Unread = None
    reasoning_content: Text | None = None
    reasoning: Text | None = None


class _StreamOptions(Strict):
    """`include_usage`: one more chunk with the usage before the end."""

    include_usage: bool = False
    include_obfuscation: bool = False


class _JsonSchema(Strict):
    """`strict` is what happens anyway."""

    name: Label | None = None
    description: Text | None = None
    schema_: JsonObject = Field(default_factory=dict, alias="schema")
    strict: bool | None = None


class _ResponseFormat(Strict):
    """text, json_object, or json_schema with a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: _JsonSchema | None = None


class Sampled(Asked):
    """What chats and completions share: how an answer is drawn, streamed and counted."""

    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Label | Annotated[tuple[Label, ...], Field(max_length=16)] | None = None
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    user: str | None = Field(default=None, max_length=512)

    def wishes(self) -> bool:
        """Whether a stream ends with its usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def options(self, max_tokens: int | None, think: Effort = None) -> Options:
        """As models take them."""
        return Options(
            temperature=self.temperature,
            top_p=self.top_p,
            seed=folded_seed(self.seed),
            max_tokens=max_tokens,
            stop=() if self.stop is None else as_many(self.stop),
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            think=think,
        )


class ChatRequest(Sampled):
    """The body of `POST /v1/chat/completions`."""

    model: ModelName = "auto"
    messages: tuple[_AskedMessage, ...] = Field(min_length=1, max_length=1_000)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    response_format: _ResponseFormat | None = None
    tools: tuple[JsonObject, ...] | None = Field(default=None, max_length=MOST_TOOLS)
    tool_choice: Label | JsonObject | None = None
    metadata: dict[Label, Sentence] | None = Field(default=None, max_length=_MAX_METADATA)
    safety_identifier: str | None = Field(default=None, max_length=512)
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    # Hints: they may make an answer faster or cheaper elsewhere, and never another one.
    prompt_cache_key: str | None = Field(default=None, max_length=1_024)
    prompt_cache_options: Unread = None
    prompt_cache_retention: str | None = Field(default=None, max_length=64)
    prediction: Unread = None
    # Accepted where they change nothing.
    n: Number | None = None
    logprobs: bool | None = None
    parallel_tool_calls: bool | None = None
    store: bool | None = None
    service_tier: Label | None = None
    modalities: tuple[Label, ...] | None = Field(default=None, max_length=16)
    top_logprobs: Number | None = None
    logit_bias: JsonObject | None = None
    verbosity: Label | None = None
    functions: tuple[JsonObject, ...] | None = Field(default=None, max_length=128)
    function_call: JsonValue = None
    # tutti's own.
    input: JsonObject | None = None
    """What the pattern takes that a model `tutti/<pattern>` names."""
    conversation: PublicId | None = None
    """What was said in it before stands in front of `messages`, which are the new ones."""
    cache: CacheControl | None = None
    """Whether the answer may be one that was given before, and whether it is kept."""
    # Known, not supported.
    audio: Unread = None
    moderation: Unread = None
    web_search_options: Unread = None


def to_job(request: ChatRequest, terms: Terms) -> Job:
    """The job that answers the request. Raises UnsupportedParameter, and as `Terms.job`."""
    refuse_unsupported(request, _HARMLESS)
    tools, choice = _tools(request)
    return terms.job(
        request.input,
        messages=tuple(_messages(request.messages)),
        conversation=request.conversation,
        cache=request.cache,
        options=request.options(request.max_completion_tokens or request.max_tokens, EFFORTS[request.reasoning_effort]),
        format=_format(request.response_format),
        tools=tools,
        tool_choice=choice if tools else "auto",
        parallel_tool_calls=request.parallel_tool_calls is not False or not tools,
        stream=bool(request.stream),
        metadata=metadata_of(request.metadata, request.user, request.safety_identifier),
    )


_HARMLESS: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "store": (False,),
    "service_tier": ("auto", "default"),
    "modalities": (("text",),),
    "logit_bias": ({},),
    "verbosity": ("medium",),
    "functions": ((),),
    "function_call": ("none", "auto"),
    "audio": (),
    "moderation": (),
    "web_search_options": (),
}
"""Values with which a parameter asks for nothing that would not happen anyway; with any other it is refused."""


def folded_seed(seed: int | None) -> int | None:
    """OpenAI's seeds have 64 bits, models' have 32: folded, so that equal seeds stay equal."""
    if seed is None or -(2**31) <= seed < 2**31:
        return seed
    return (seed ^ seed >> 32) & 0x7FFF_FFFF


def _format(wanted: _ResponseFormat | None) -> Literal["json"] | dict[str, Any] | None:
    if wanted is None:
        return None
    schema = None if wanted.json_schema is None else wanted.json_schema.schema_
    return format_of(wanted.type, schema, "response_format", "json_schema.schema")


def format_of(kind: str, schema: dict[str, Any] | None, param: str, where: str) -> Literal["json"] | dict[str, Any] | None:
    """Of a job. `where`: the schema's place in `param`. Raises UnsupportedParameter."""
    if kind == "text":
        return None
    if kind == "json_object":
        return "json"
    if not schema:
        raise UnsupportedParameter(param, f"{param} json_schema needs {where}")
    return schema


def _tools(request: ChatRequest) -> tuple[tuple[dict[str, Any], ...], ToolChoice]:
    """The tools that the model may call, and whether it must. Of a named one, or a list of allowed ones, only those."""
    tools = functions(request.tools or ())
    match request.tool_choice:
        case None | "auto":
            return tools, "auto"
        case "none":
            return (), "auto"
        case "required":
            return named_tools(tools, None), "required"
        case {"type": "function", "function": {"name": str(name)}}:
            return named_tools(tools, [name]), "required"
        case {"type": "allowed_tools", "allowed_tools": {"mode": "auto" | "required" as mode, "tools": list(allowed)}}:
            return named_tools(tools, [function_name(tool) if isinstance(tool, dict) else "" for tool in allowed]), mode
    raise UnsupportedParameter("tool_choice", "tool_choice is none, auto, required, a function's name or allowed_tools")


def metadata_of(given: Mapping[str, str] | None, user: str | None, safety_identifier: str | None = None) -> dict[str, str]:
    """Of a job: what the caller notes, and whom he names."""
    named = {"user": user, "safety_identifier": safety_identifier}
    return {**(given or {}), **{name: value for name, value in named.items() if value is not None}}


def _messages(messages: tuple[_AskedMessage, ...]) -> list[ChatMessage]:
    """In order; a tool's answer gets the name of the call that it answers."""
    names: dict[str, str] = {}
    found = []
    for number, message in enumerate(messages):
        for call in message.tool_calls or ():
            names[str(call.get("id"))] = function_name(call)
        found.append(_message(message, number, names))
    return found


def _message(message: _AskedMessage, number: int, names: dict[str, str]) -> ChatMessage:
    if message.role == "function" or message.function_call is not None:
        raise UnsupportedParameter(f"messages.{number}", "functions are not supported; use tools")
    if message.audio is not None:
        raise UnsupportedParameter(f"messages.{number}.audio")
    role: Any = "system" if message.role == "developer" else message.role
    content = message.content
    if isinstance(content, str) and message.tool_calls is None and message.tool_call_id is None:
        return ChatMessage(role=role, content=content)
    text, images = content_of(content or message.refusal, f"messages.{number}.content")
    return ChatMessage(
        role=role,
        content=text,
        images=images,
        tool_calls=message.tool_calls or (),
        tool_call_id=message.tool_call_id,
        tool_name=names.get(message.tool_call_id or "") or None,
    )


def content_of(content: str | Sequence[AnyPart] | None, place: str) -> tuple[str, tuple[str, ...]]:
    """(text, images in base64). Raises UnsupportedParameter at `place`."""
    if content is None or isinstance(content, str):
        return content or "", ()
    texts, images = [], []
    for part in content:
        match part.type.removeprefix("input_"):
            case "audio" | "file":
                raise UnsupportedParameter(place, f"content of type {part.type} is not supported")
            case "image" | "image_url":
                images.append(image_of(part.image_url.url if isinstance(part.image_url, _ImageUrl) else part.image_url, place))
            case _:
                texts.append(part.text or part.refusal or "")
    return "\n".join(texts), tuple(images)


_IMAGE: TypeAdapter[str] = TypeAdapter(Image)


def image_of(url: str | None, place: str) -> str:
    """Base64 of a data URL. Addresses are refused: the cluster fetches nothing on a caller's behalf."""
    try:
        if url is not None and url.startswith("data:image/"):
            return _IMAGE.validate_python(url).partition(",")[2]
    except ValidationError:
        pass
    raise UnsupportedParameter(place, "images are supported as data URLs in base64 only: data:image/png;base64,...")
