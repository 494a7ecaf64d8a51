"""OpenAI's responses, inwards: what a model is to answer, with items instead of messages, becomes a Job. Pure.

A response is a durable job under another name: `resp_` and the job's id. With `store`, or as part of a `conversation`, others may go on
from it (`previous_response_id`): the cluster keeps what was said. Parameters are judged as those of chats are.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AliasChoices, Field

from services.ingress.dialects.openai.requests import AnyPart, Number, content_of, folded_seed, format_of, metadata_of
from services.ingress.dialects.port import EFFORTS, Asked, Strict, Terms, Unread, UnsupportedParameter, functions, refuse_unsupported
from shared.contracts.base import JsonObject, JsonValue, Label, ModelName, PublicId, Sentence, Text
from shared.contracts.chat import MOST_TOOLS, ChatMessage, Options, ToolChoice
from shared.contracts.job import Job

PREFIX = "resp_"
_MOST_ITEMS = 2_000


class _ItemPart(AnyPart):
    """A piece of an item's content."""

    type: Literal["input_text", "output_text", "text", "refusal", "input_image", "input_file", "input_audio", "summary_text"]
    image_url: Text | None = None
    detail: Label | None = None
    file_id: Unread = None
    file_data: Unread = None
    file_url: Unread = None
    filename: Unread = None
    annotations: Unread = None
    logprobs: Unread = None


class _SaidItem(Strict):
    """A message, a call, or a call's output. What a model reasoned earlier is not given to it again."""

    type: Literal["message", "function_call", "function_call_output", "reasoning", "item_reference"] = "message"
    id: Label | None = None
    status: Label | None = None
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: Text | Annotated[tuple[_ItemPart, ...], Field(max_length=10_000)] | None = None
    call_id: Label | None = None
    name: Label | None = None
    arguments: Text | None = None
    output: Text | Annotated[tuple[_ItemPart, ...], Field(max_length=10_000)] | None = None
    summary: Unread = None
    encrypted_content: Unread = None
    phase: Unread = None
    caller: Unread = None
    namespace: Unread = None
    async_: Annotated[Unread, Field(validation_alias=AliasChoices("async", "async_"))] = None


class _TextFormat(Strict):
    """text, json_object, or json_schema with a schema."""

    type: Literal["text", "json_object", "json_schema"]
    name: Label | None = None
    description: Text | None = None
    schema_: JsonObject | None = Field(default=None, alias="schema")
    strict: bool | None = None


class _TextConfig(Strict):
    """How the text is to be."""

    format: _TextFormat | None = None
    verbosity: Label | None = None


class _Reasoning(Strict):
    """How much a model thinks; summaries are not made."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Unread = None
    generate_summary: Unread = None


class _ConversationNamed(Strict):
    """`{"id": ...}`, the longer spelling."""

    id: PublicId


class Echo(NamedTuple):
    """What a response repeats of its request."""

    background: bool = False
    previous: str | None = None
    store: bool = False
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    metadata: dict[str, str] | None = None


class ResponseRequest(Asked):
    """The body of `POST /v1/responses`."""

    model: ModelName = "auto"
    input: Text | Annotated[tuple[_SaidItem, ...], Field(max_length=_MOST_ITEMS)]
    instructions: Text | None = None
    stream: bool | None = None
    stream_options: JsonObject | None = None
    background: bool | None = None
    store: bool | None = None
    previous_response_id: Annotated[str, Field(pattern=rf"^{PREFIX}[A-Za-z0-9._:-]{{1,128}}$", max_length=134)] | None = None
    conversation: PublicId | _ConversationNamed | None = None
    max_output_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    tools: tuple[JsonObject, ...] | None = Field(default=None, max_length=MOST_TOOLS)
    tool_choice: Label | JsonObject | None = None
    parallel_tool_calls: bool | None = None
    text: _TextConfig | None = None
    reasoning: _Reasoning | None = None
    metadata: dict[Label, Sentence] | None = Field(default=None, max_length=16)
    user: str | None = Field(default=None, max_length=512)
    safety_identifier: str | None = Field(default=None, max_length=512)
    pattern_input: JsonObject | None = None
    """tutti's own: what the pattern takes that a model `tutti/<pattern>` names."""
    # Hints.
    prompt_cache_key: str | None = Field(default=None, max_length=1_024)
    prompt_cache_retention: str | None = Field(default=None, max_length=64)
    prompt_cache_options: Unread = None
    include: tuple[Label, ...] | None = Field(default=None, max_length=16)
    # Accepted where they change nothing.
    service_tier: Label | None = None
    truncation: Label | None = None
    top_logprobs: Number | None = None
    max_tool_calls: Number | None = None
    prompt: JsonValue = None
    context_management: JsonValue = None
    moderation: Unread = None
    access_programs: Unread = None
    background_options: Unread = None
    image: Unread = None

    @property
    def continues(self) -> str | None:
        return None if self.previous_response_id is None else self.previous_response_id.removeprefix(PREFIX)

    @property
    def later(self) -> bool:
        return bool(self.background)

    def wishes(self) -> Echo:
        """What its response repeats."""
        return Echo(
            bool(self.background),
            self.previous_response_id,
            bool(self.store),
            self.max_output_tokens,
            self.temperature,
            self.top_p,
            self.metadata,
        )


_HARMLESS: dict[str, tuple[Any, ...]] = {
    "service_tier": ("auto", "default"),
    "truncation": ("disabled",),
    "top_logprobs": (0,),
    "max_tool_calls": (),
    "prompt": (),
    "context_management": (),
    "moderation": (),
    "access_programs": (),
    "background_options": (),
    "image": (),
}


def to_job(request: ResponseRequest, terms: Terms) -> Job:
    """The job that answers the request. Raises UnsupportedParameter, and as `Terms.job`."""
    refuse_unsupported(request, _HARMLESS)
    if request.previous_response_id is not None and request.conversation is not None:
        raise UnsupportedParameter("conversation", "conversation and previous_response_id exclude each other")
    tools, choice = _tools(request)
    return terms.job(
        request.pattern_input,
        "pattern_input",
        messages=_messages(request),
        conversation=terms.conversation or _conversation(request, terms.identifier),
        options=Options(
            temperature=request.temperature,
            top_p=request.top_p,
            seed=folded_seed(request.seed),
            max_tokens=request.max_output_tokens,
            think=None if request.reasoning is None else EFFORTS[request.reasoning.effort],
        ),
        format=_format(request.text),
        tools=tools,
        tool_choice=choice if tools else "auto",
        parallel_tool_calls=request.parallel_tool_calls is not False or not tools,
        stream=bool(request.stream),
        metadata=metadata_of(request.metadata, request.user, request.safety_identifier),
    )


def _conversation(request: ResponseRequest, job: str) -> str | None:
    named = request.conversation
    if named is not None:
        return named if isinstance(named, str) else named.id
    return PREFIX + job if request.store and request.previous_response_id is None else None


def _messages(request: ResponseRequest) -> tuple[ChatMessage, ...]:
    """In order; a call's output gets the name of the call that it answers, calls that follow one another are one turn."""
    found = [ChatMessage(role="system", content=request.instructions)] if request.instructions else []
    if isinstance(request.input, str):
        return (*found, ChatMessage(role="user", content=request.input))
    names: dict[str, str] = {}
    for number, item in enumerate(request.input):
        match item.type:
            case "function_call":
                names[item.call_id or ""] = item.name or ""
                function = {"name": item.name or "", "arguments": item.arguments or "{}"}
                call = {"id": item.call_id or "", "type": "function", "function": function}
                if found and found[-1].role == "assistant":
                    found[-1] = found[-1].changed(tool_calls=(*found[-1].tool_calls, call))
                else:
                    found.append(ChatMessage(role="assistant", tool_calls=(call,)))
            case "function_call_output":
                text, _ = content_of(item.output, f"input.{number}.content")
                name = names.get(item.call_id or "") or None
                found.append(ChatMessage(role="tool", content=text, tool_call_id=item.call_id, tool_name=name))
            case "message":
                text, images = content_of(item.content, f"input.{number}.content")
                role: Any = "system" if item.role == "developer" else item.role or "user"
                found.append(ChatMessage(role=role, content=text, images=images))
            case "item_reference":
                raise UnsupportedParameter(f"input.{number}", "items are given whole: references are not supported")
    if not found:
        raise UnsupportedParameter("input", "input is a text or a list of items, not an empty one")
    return tuple(found)


def _format(text: _TextConfig | None) -> Literal["json"] | dict[str, Any] | None:
    wanted = None if text is None else text.format
    return None if wanted is None else format_of(wanted.type, wanted.schema_, "text.format", "a schema")


def _tools(request: ResponseRequest) -> tuple[tuple[dict[str, Any], ...], ToolChoice]:
    """In the form of chats: there a function is inside, here its fields are the tool's own."""
    tools = functions(map(_tool, request.tools or ()))
    match request.tool_choice:
        case None | "auto":
            return tools, "auto"
        case "none":
            return (), "auto"
        case "required" if tools:
            return tools, "required"
        case {"type": "function", "name": str(name)} if chosen := tuple(t for t in tools if t["function"]["name"] == name):
            return chosen, "required"
        case {"type": "allowed_tools", "mode": "auto" | "required" as mode, "tools": list(allowed)}:
            names = [tool.get("name") for tool in allowed if isinstance(tool, dict)]
            if chosen := tuple(tool for tool in tools if tool["function"]["name"] in names):
                return chosen, mode
    raise UnsupportedParameter("tool_choice", "tool_choice is none, auto, required, or names a function of `tools`")


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = {name: tool[name] for name in ("name", "description", "parameters", "strict") if tool.get(name) is not None}
    return {"type": tool.get("type"), "function": function}
