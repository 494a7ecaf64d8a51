"""Any OpenAI-compatible server: chat and completions as server-sent events, embeddings, models. The embedded node is one of these."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Any

from services.worker import continuation
from services.worker.backends.base import BackendProbe, Completion, Delta, ModelCall, ModelCallFailed
from services.worker.backends.forced_calls import forced, is_forced
from services.worker.backends.foreign import ModelList, count, entries, mapping, vectors_of, words
from services.worker.backends.http import EMBEDDINGS_BYTES, HttpEndpoint, decode, error_text, streamed, whole
from services.worker.backends.openai_stream import OpenAIStream
from services.worker.settings import WorkerSettings
from shared.clock import Clock
from shared.contracts.chat import ChatMessage, Operation
from shared.contracts.failure import FailureKind as K
from shared.contracts.node import NodeModel
from shared.contracts.step import Step
from shared.contracts.usage import Usage

_PATHS = {Operation.CHAT: "/v1/chat/completions", Operation.GENERATE: "/v1/completions"}
_EFFORT: dict[bool | str, str] = {False: "none", True: "medium"}
NODE_KIND_HEADER = "x-tutti-node"
"""Response header by which our embedded node names itself."""


class OpenAIBackend:
    """One server and, where it needs one, an API key."""

    def __init__(self, settings: WorkerSettings, clock: Clock, endpoint: HttpEndpoint | None = None) -> None:
        self.kind: str = "embedded" if settings.backend == "embedded" else "openai"
        self._settings = settings
        self._clock = clock
        self._listed: frozenset[str] = frozenset()
        self._list = ModelList()
        self._endpoint = endpoint or HttpEndpoint.of(settings, settings.base_url().removesuffix("/v1"))

    def call(self, call: ModelCall) -> AsyncIterator[Delta | Completion]:
        """As `Backend`."""
        if self._listed and call.model not in self._listed:  # llama.cpp ignores the name and would answer with what it has
            raise ModelCallFailed(K.UNKNOWN_MODEL, f"model {call.model!r} is not served here")
        if call.step.operation is Operation.EMBED:
            return self._embed(call)
        if call.step.prefix and call.step.operation is Operation.CHAT and self._settings.continues == "never":
            # Another node may be able to: the kind of failure that is tried elsewhere.
            raise ModelCallFailed(K.BROKEN_STREAM, "this endpoint does not continue a broken answer")
        reader = OpenAIStream(call, self._clock, forced=by_schema(call.step, self._settings))
        return streamed(self._endpoint, _PATHS[call.step.operation], request(call, self._settings), call.trace, reader)

    async def _embed(self, call: ModelCall) -> AsyncIterator[Completion]:
        body = {"model": call.model, "input": list(call.step.texts), "encoding_format": "float"}
        async with self._endpoint.post("/v1/embeddings", body, call.trace) as response:
            answer = decode(await whole(response, EMBEDDINGS_BYTES))
        if answer.get("error"):
            raise ModelCallFailed(K.MODEL_ERROR, error_text(answer))
        rows = sorted(answer.get("data") or (), key=lambda row: count(row.get("index")))
        yield Completion(
            call.answer(embeddings=vectors_of(call.step, [row.get("embedding") for row in rows])),
            Usage(calls=1, prompt_tokens=count(mapping(answer.get("usage")).get("prompt_tokens"))),
        )

    async def probe(self) -> BackendProbe:
        _, headers = await self._endpoint.get_json("/v1/models")
        embedded = headers.get(NODE_KIND_HEADER) == "embedded"
        version = headers.get("server", "")
        return BackendProbe(version=words(version), simulated="simulated" in version, kind="embedded" if embedded else None)

    async def models(self) -> tuple[NodeModel, ...]:
        body, _ = await self._endpoint.get_json("/v1/models")
        listed = entries(body.get("data"))
        tacit = any(mapping(entry).get("owned_by") == "llamacpp" and "n_ctx" not in mapping(entry.get("meta")) for entry in listed)
        props = await self._props() if tacit else {}
        models = tuple(model for entry in listed if (model := self._list.model(entry, lambda entry: node_model(entry, props))) is not None)
        self._listed = frozenset(model.name for model in models)
        return models

    async def _props(self) -> dict[str, Any]:
        """What llama.cpp tells of itself; nothing where that is switched off."""
        try:
            return mapping((await self._endpoint.get_json("/props"))[0])
        except ModelCallFailed:
            return {}

    async def close(self) -> None:
        await self._endpoint.close()


def node_model(entry: dict[str, Any], props: Mapping[str, Any] = MappingProxyType({})) -> NodeModel:
    """A served model. The dialect has no word for operations: a name with `embed` in it is taken for an embedder.

    vLLM and llama.cpp tell the window in the list; llama.cpp's older versions a slot's in `props`, as they do whether the model sees.
    """
    meta = {} if entry.get("meta") is None else entry["meta"]
    slot = mapping(props.get("default_generation_settings"))
    window = count(entry.get("max_model_len")) or count(meta.get("n_ctx")) or count(slot.get("n_ctx")) or None
    seen = mapping(entry.get("architecture")).get("input_modalities")
    sees = "image" in seen if isinstance(seen, list) else mapping(props.get("modalities")).get("vision")
    name = entry["id"]
    return NodeModel(
        name=name,
        size_bytes=meta.get("size") or 0,
        quantisation=words(meta.get("ftype")),
        context_length=count(meta.get("n_ctx_train")) or window,
        window=window,
        abilities={"vision": sees} if isinstance(sees, bool) else {},
        operations=("embed",) if "embed" in name.lower() else ("chat", "generate"),
        resident=True,
    )


def request(call: ModelCall, settings: WorkerSettings) -> dict[str, Any]:
    """The body of one chat or completions call. Pure. Options outside the dialect are sent only where a step sets them."""
    step = call.step
    body: dict[str, Any] = {"model": call.model, "stream": True, "stream_options": {"include_usage": True}} | continuation.sampling(
        step, settings
    )
    if call.thinks and step.options.think is not None:
        body["reasoning_effort"] = _EFFORT.get(step.options.think, step.options.think)
    if step.format is not None:
        body["response_format"] = _response_format(step.format)
    if step.operation is Operation.GENERATE:
        return body | {"prompt": (step.prompt or "") + (step.prefix or "")}
    if step.logprobs:
        body["logprobs"] = True
    if by_schema(step, settings):
        messages, schema = forced(step, [wire_message(message) for message in continuation.messages_of(step)])
        return body | {"messages": messages, "response_format": _response_format(schema)}
    if step.tools:
        body["tools"] = list(step.tools)
        body |= {"tool_choice": "required"} if step.tool_choice == "required" else {}
        body |= {} if step.parallel_tool_calls else {"parallel_tool_calls": False}
    if step.prefix and settings.continues == "flag":
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    return body | {"messages": [wire_message(message) for message in continuation.messages_of(step)]}


def by_schema(step: Step, settings: WorkerSettings) -> bool:
    """Whether the call that must be made is forced by the answer's schema: the embedded node's server takes the word and passes it over."""
    return settings.backend == "embedded" and is_forced(step)


def _response_format(format_: str | dict[str, Any]) -> dict[str, Any]:
    if isinstance(format_, str):
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": format_, "strict": True}}


def wire_message(message: ChatMessage) -> dict[str, Any]:
    """One message; images become content parts with data addresses."""
    wire: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.images:
        parts = [{"type": "image_url", "image_url": {"url": _data_address(image)}} for image in message.images]
        wire["content"] = [{"type": "text", "text": message.content}, *parts]
    if message.tool_calls:
        wire["tool_calls"] = list(message.tool_calls)
    if message.tool_call_id:
        wire["tool_call_id"] = message.tool_call_id
    if message.tool_name:
        wire["name"] = message.tool_name
    return wire


def _data_address(image: str) -> str:
    if image.startswith("data:"):
        return image
    kind = "jpeg" if image.startswith("/9j/") else "png"  # a JPEG's first bytes in base64
    return f"data:image/{kind};base64,{image}"
