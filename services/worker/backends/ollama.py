"""Ollama's native API: chat, generate, embed, and the probes that never load a model.

Streaming is always on, wherever the caller stands: only so can a call be cancelled and a hang be told from slow work. An error line
after status 200 is a failure, and so is a stream that ends without `done`. Durations on the wire are nanoseconds; a count of 0 is omitted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from pydantic_core import from_json, to_json

from services.worker import continuation
from services.worker.backends import ollama_models
from services.worker.backends.base import BackendProbe, Completion, Delta, ModelCall, ModelCallFailed
from services.worker.backends.forced_calls import forced, forced_calls, is_forced
from services.worker.backends.foreign import MeanLogprob, count, nanoseconds, vectors_of, within, words
from services.worker.backends.http import (
    EMBEDDINGS_BYTES,
    MAX_BODY_BYTES,
    HttpEndpoint,
    decode,
    decode_lines,
    error_text,
    failure_kind,
    streamed,
    whole,
)
from services.worker.backends.ollama_tasks import OllamaTasks, disk_free
from services.worker.settings import WorkerSettings
from shared.contracts.base import free_json
from shared.contracts.chat import ChatMessage, FinishReason, Operation
from shared.contracts.failure import FailureKind as K
from shared.contracts.node import NodeModel
from shared.contracts.step import Step
from shared.contracts.usage import Timings, Usage

_PATHS = {Operation.CHAT: "/api/chat", Operation.GENERATE: "/api/generate"}
_CONTINUED = ("model", "keep_alive", "truncate", "shift", "options", "stream")
"""What the call that goes on with a begun answer has of the chat."""
_OPTION_NAMES = {"max_tokens": "num_predict"}


class OllamaBackend:
    """One Ollama server."""

    kind: str = "ollama"

    def __init__(self, settings: WorkerSettings, endpoint: HttpEndpoint | None = None) -> None:
        self._settings = settings
        self._endpoint = endpoint or HttpEndpoint.of(settings, settings.base_url())
        self._tasks = OllamaTasks(self._endpoint, settings.keep_alive, settings.profile)
        stays = settings.keep_alive.startswith("-")  # then all do, pinned or not
        self._shown = ollama_models.ShownModels(
            self._endpoint, lambda model: settings.profile(model).get("num_ctx"), self._tasks.pinned, adopts=not stays
        )

    def call(self, call: ModelCall) -> AsyncIterator[Delta | Completion]:
        """As `Backend`."""
        if call.step.task is not None:
            return self._tasks.perform(call)
        if call.step.operation is Operation.EMBED:
            return self._embed(call)
        reader = _StreamReader(call, allow_cloud=self._settings.allow_cloud)
        if call.step.prefix:
            return self._continued(call, reader)
        return streamed(self._endpoint, _PATHS[call.step.operation], self._request(call), call.trace, reader)

    async def _continued(self, call: ModelCall, reader: _StreamReader) -> AsyncIterator[Delta | Completion]:
        path, body = await _continuing(self._endpoint, call.step, self._request(call), call.trace)
        async with aclosing(streamed(self._endpoint, path, body, call.trace, reader)) as pieces:
            async for piece in pieces:
                yield piece

    def _request(self, call: ModelCall) -> dict[str, Any]:
        return request(call, self._settings) | {"keep_alive": self._tasks.keep_alive(call.model)}

    async def _embed(self, call: ModelCall) -> AsyncIterator[Completion]:
        async with self._endpoint.post("/api/embed", self._request(call), call.trace) as response:
            body = decode(await whole(response, EMBEDDINGS_BYTES))
        if "error" in body:
            raise ModelCallFailed(K.MODEL_ERROR, error_text(body))
        vectors = vectors_of(call.step, body.get("embeddings") or ())
        loading, total = nanoseconds(body.get("load_duration")), nanoseconds(body.get("total_duration"))
        yield Completion(
            call.answer(embeddings=vectors),
            Usage(calls=1, prompt_tokens=count(body.get("prompt_eval_count"))),
            Timings(load_ms=loading, prefill_ms=max(0.0, total - loading)),
        )

    async def probe(self) -> BackendProbe:
        body, _ = await self._endpoint.get_json("/api/version")
        version = words(body.get("version"))
        return BackendProbe(version=version, simulated="simulated" in version, manages=True, disk_free_bytes=disk_free(self._settings))

    async def models(self) -> tuple[NodeModel, ...]:
        return await self._shown.list(allow_cloud=self._settings.allow_cloud)

    @property
    def pinned(self) -> set[str]:
        """Models that are to stay in memory; who is told of a pin adds to it."""
        return self._tasks.pinned

    async def warm(self, model: str) -> None:
        """Into memory, or to stay there, without a question. Raises ModelCallFailed."""
        await self._tasks.warm(model)

    async def unload(self, model: str) -> None:
        """Out of memory when its last call ends. Raises ModelCallFailed."""
        await self._endpoint.post_json("/api/generate", {"model": model, "keep_alive": 0, "stream": False})

    async def close(self) -> None:
        await self._endpoint.close()


def request(call: ModelCall, settings: WorkerSettings) -> dict[str, Any]:
    """The body of one call. Pure."""
    step = call.step
    body: dict[str, Any] = {
        "model": call.model,
        "keep_alive": settings.keep_alive,
        "truncate": settings.truncate_prompts,
        "shift": settings.truncate_prompts,
        "options": settings.profile(call.model) if step.operation is Operation.EMBED else options(step, settings, call.model),
    }
    if step.operation is Operation.EMBED:
        del body["shift"]
        return body | {"input": list(step.texts)}
    body["stream"] = True
    if step.format is not None:
        body["format"] = step.format
    if call.thinks and step.options.think is not None:
        body["think"] = step.options.think
    if step.logprobs:
        body["logprobs"] = True
    if step.operation is Operation.GENERATE and not step.prefix:
        system = "\n\n".join(message.content for message in step.messages if message.role == "system")
        return body | {"prompt": step.prompt or ""} | ({"system": system} if system else {})
    if is_forced(step):
        messages, schema = forced(step, [wire_message(message) for message in continuation.messages_of(step)])
        return body | {"messages": messages, "format": schema}
    if step.tools:
        body["tools"] = list(step.tools)
    return body | {"messages": [wire_message(message) for message in continuation.messages_of(step)]}


def options(step: Step, settings: WorkerSettings, model: str) -> dict[str, Any]:
    """Ollama's option names, and the model's load-time profile unchanged."""
    given = continuation.sampling(step, settings)
    return settings.profile(model) | {_OPTION_NAMES.get(name, name): value for name, value in given.items()}


def wire_message(message: ChatMessage) -> dict[str, Any]:
    """One message in Ollama's form: bare base64 images, tool arguments as objects."""
    wire: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.images:
        wire["images"] = [image.partition(";base64,")[2] or image for image in message.images]
    if message.tool_calls:
        wire["tool_calls"] = [_wire_tool_call(call) for call in message.tool_calls]
    if message.tool_name:
        wire["tool_name"] = message.tool_name
    if message.tool_call_id:
        wire["tool_call_id"] = message.tool_call_id
    return wire


def _wire_tool_call(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function") or {}
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = from_json(arguments, allow_inf_nan=False)
        except ValueError as error:
            raise ModelCallFailed(K.BAD_REQUEST, "the arguments of an earlier tool call are not JSON") from error
    return {"function": {"name": function.get("name", ""), "arguments": arguments}}


def tool_calls(asked: ModelCall, calls: list[dict[str, Any]], first: int) -> tuple[dict[str, Any], ...]:
    """Ollama's tool calls in OpenAI's form: an id (derived when missing) and arguments as JSON text."""
    return tuple(
        asked.tool_call(
            first + index,
            call.get("id"),
            call.get("function", {}).get("name", ""),
            to_json(free_json(call.get("function", {}).get("arguments") or {})).decode(),
        )
        for index, call in enumerate(calls)
    )


class _StreamReader:
    """Folds the lines of one chat or generate stream."""

    def __init__(self, call: ModelCall, *, allow_cloud: bool) -> None:
        self._call = call
        self._allow_cloud = allow_cloud
        self._forced = is_forced(call.step)
        """What it writes is the call, no text."""
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._tools: tuple[dict[str, Any], ...] = ()
        self._logprobs = MeanLogprob()
        self._pieces = 0
        self._characters = 0
        self._done: dict[str, Any] | None = None

    @property
    def done(self) -> bool:
        """The last line was read."""
        return self._done is not None

    def read(self, lines: list[bytes]) -> Delta | None:
        """One delta for all lines of a network read; None when they hold nothing to show."""
        text, thinking, tools, pieces = len(self._text), len(self._thinking), len(self._tools), self._pieces
        for line in decode_lines(lines):
            message = line.get("message")
            if message is None or len(message) > 2 or not self._pieces or line.get("done") or "error" in line or "logprobs" in line:
                self._fold(line)
            elif message.get("content") and "role" in message:  # these two alone, by far the most lines
                self._text.append(message["content"])
                self._pieces += 1
            else:
                self._fold(line)
        if self._pieces == pieces:
            return None
        said, thought = "".join(self._text[text:]), "".join(self._thinking[thinking:])
        self._characters += len(said) + len(thought)
        within(self._characters, len(self._tools))
        return Delta("" if self._forced else said, thought or None, self._tools[tools:], self._pieces - pieces)

    def _fold(self, line: dict[str, Any]) -> None:
        if "error" in line:
            raise ModelCallFailed(_mid_stream_kind(line), error_text(line))
        if line.get("remote_host") and not self._allow_cloud:
            raise ModelCallFailed(K.UNSUPPORTED, "the model runs on another host, which this node does not allow")
        message = line.get("message") or line
        text, thinking, calls = message.get("content") or line.get("response"), message.get("thinking"), message.get("tool_calls")
        if text:
            self._text.append(text)
        if thinking:
            self._thinking.append(thinking)
        elif self._call.step.logprobs:
            self._logprobs.add(line.get("logprobs"))
        if calls:
            several = self._call.step.parallel_tool_calls
            self._tools += tool_calls(self._call, calls if several else calls[: 1 - len(self._tools)], len(self._tools))
        if text or thinking or calls:
            self._pieces += 1
        if line.get("done"):
            self._done = line

    def completion(self) -> Completion:
        """The whole answer. Raises BROKEN_STREAM when the stream ended without `done`."""
        done = self._done
        if done is None:
            raise ModelCallFailed(K.BROKEN_STREAM, "the stream ended before the answer did")
        counted = "eval_count" in done or not self._pieces
        text = "".join(self._text)
        if self._forced:
            self._tools, text = forced_calls(self._call, text), ""
        read = count(done.get("prompt_eval_count"))
        return Completion(
            self._call.answer(
                text=text,
                thinking="".join(self._thinking) or None,
                tool_calls=self._tools,
                finish_reason=self._finish_reason(done.get("done_reason")),
                mean_logprob=self._logprobs.mean,
            ),
            Usage(
                calls=1,
                prompt_tokens=read,
                completion_tokens=count(done.get("eval_count")) if counted else self._pieces,
                estimated=not counted,
            ),
            Timings(
                load_ms=nanoseconds(done.get("load_duration")),
                prefill_ms=nanoseconds(done.get("prompt_eval_duration")),
                decode_ms=nanoseconds(done.get("eval_duration")),
            ),
            # Older versions hide how much of the prompt was cached; a speed computed from the whole count is then too high.
            max(0, read - count(done["prompt_eval_cached_count"])) if "prompt_eval_cached_count" in done else None,
        )

    def _finish_reason(self, reason: str | None) -> FinishReason:
        if self._tools:
            return FinishReason.TOOL_CALLS
        return FinishReason.LENGTH if reason == "length" else FinishReason.STOP


def _mid_stream_kind(line: dict[str, Any]) -> K:
    status = line.get("status_code") or line.get("StatusCode")
    return failure_kind(status, error_text(line)) if isinstance(status, int) and status >= 400 else K.MODEL_ERROR


async def _continuing(endpoint: HttpEndpoint, step: Step, chat: dict[str, Any], trace: str | None) -> tuple[str, dict[str, Any]]:
    """(path, body) of the call that makes Ollama go on with an answer that is begun; `chat` is the one with the beginning as its last
    message. Raises ModelCallFailed.

    Many templates leave the assistant's last message open, so that the model writes on; others close it, and the model, asked to continue,
    says nothing at all. So Ollama renders the conversation without the answer (`_debug_render_only`, which runs no model), and the model is
    given that text and the beginning of the answer as they are (`raw`). Where this is not to be had (an older server, tools, images, an
    answer that the caller began himself), the beginning is sent as the last message.
    """
    if step.tools or continuation.begun_by_caller(step) or any(message.images for message in step.messages):
        return "/api/chat", chat
    asked = chat | {
        "messages": chat["messages"][:-1],
        "stream": False,
        "options": chat["options"] | {"num_predict": 1},  # a server that does not know the word answers, shortly
        "_debug_render_only": True,
    }
    async with endpoint.post("/api/chat", asked, trace) as response:
        rendered = (decode(await whole(response, MAX_BODY_BYTES)).get("_debug_info") or {}).get("rendered_template")
    if not isinstance(rendered, str) or not rendered:
        return "/api/chat", chat
    return "/api/generate", {name: chat[name] for name in _CONTINUED} | {"raw": True, "prompt": rendered + (step.prefix or "")}
