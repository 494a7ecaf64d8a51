"""Reads the server-sent events of one chat or completions stream: text, thinking, tool calls in pieces, usage, errors, the end."""

from __future__ import annotations

from typing import Any

from services.worker.backends.base import Completion, Delta, ModelCall, ModelCallFailed
from services.worker.backends.forced_calls import forced_calls
from services.worker.backends.foreign import MeanLogprob, count, mapping, milliseconds, within
from services.worker.backends.http import decode, error_text
from shared.clock import Clock
from shared.contracts.chat import FinishReason
from shared.contracts.failure import FailureKind as K
from shared.contracts.usage import Timings, Usage

_REASONS = {"length": FinishReason.LENGTH, "tool_calls": FinishReason.TOOL_CALLS, "function_call": FinishReason.TOOL_CALLS}


class OpenAIStream:
    """A fold of `data:` lines. `done`: `[DONE]` was read."""

    def __init__(self, call: ModelCall, clock: Clock, *, forced: bool = False) -> None:
        """`forced`: the text is a call."""
        self._call, self._forced = call, forced
        self._clock = clock
        self._began = clock.monotonic()
        self._first: float | None = None
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._tools: dict[int, dict[str, Any]] = {}
        self._logprobs = MeanLogprob()
        self._pieces = 0
        self._characters = 0
        self._reason: str | None = None
        self._usage: dict[str, Any] = {}
        self._timings: dict[str, Any] = {}
        self.done = False

    def read(self, lines: list[bytes]) -> Delta | None:
        """One delta for all lines of a network read; None when they hold nothing to show."""
        text, thinking, pieces = len(self._text), len(self._thinking), self._pieces
        for line in lines:
            if line.startswith(b"data:"):
                self._data(line[5:].strip())
        if self._pieces == pieces:
            return None
        if self._first is None:
            self._first = self._clock.monotonic()
        said, thought = "".join(self._text[text:]), "".join(self._thinking[thinking:])
        self._characters += len(said) + len(thought)
        within(self._characters, len(self._tools))
        return Delta("" if self._forced else said, thought or None, (), self._pieces - pieces)

    def _data(self, data: bytes) -> None:
        if data == b"[DONE]":
            self.done = True
            return
        event = decode(data)
        if event.get("error"):
            raise ModelCallFailed(K.MODEL_ERROR, error_text(event))
        self._usage = mapping(event.get("usage")) or self._usage
        self._timings = mapping(event.get("timings")) or self._timings
        for choice in (event.get("choices") or ())[:1]:
            self._choice(choice)

    def _choice(self, choice: dict[str, Any]) -> None:
        delta = choice.get("delta") or {}
        text, calls = delta.get("content") or choice.get("text"), delta.get("tool_calls")
        thinking = delta.get("reasoning_content") or delta.get("reasoning")  # llama.cpp, DeepSeek; vLLM, OpenRouter
        if text:
            self._text.append(text)
        if thinking:
            self._thinking.append(thinking)
        elif self._call.step.logprobs:
            self._logprobs.add(mapping(choice.get("logprobs")).get("content"))
        for call in calls or ():
            self._tool(call)
        if text or thinking or calls:
            self._pieces += 1
        self._reason = choice.get("finish_reason") or self._reason

    def _tool(self, piece: dict[str, Any]) -> None:
        """The name comes once, the arguments in pieces that are concatenated; `index` tells the calls apart."""
        call = self._tools.setdefault(piece.get("index", 0), {"id": "", "name": "", "arguments": ""})
        function = piece.get("function") or {}
        call["id"] = piece.get("id") or call["id"]
        call["name"] = function.get("name") or call["name"]
        arguments = function.get("arguments") or ""
        call["arguments"] += arguments
        self._characters += len(arguments)

    def completion(self) -> Completion:
        """The whole answer. Raises BROKEN_STREAM when neither `[DONE]` nor a finish reason came."""
        if not self.done and self._reason is None:
            raise ModelCallFailed(K.BROKEN_STREAM, "the stream ended before the answer did")
        text, calls = "".join(self._text), self._tool_calls()
        if self._forced:
            text, calls = "", forced_calls(self._call, text)
        answer = self._call.answer(
            text=text,
            thinking="".join(self._thinking) or None,
            tool_calls=calls,
            finish_reason=FinishReason.TOOL_CALLS if calls else _REASONS.get(self._reason or "", FinishReason.STOP),
            mean_logprob=self._logprobs.mean,
        )
        return Completion(
            answer, self._counted(), self._timed(), count(self._timings.get("prompt_n")) if "prompt_n" in self._timings else None
        )

    def _tool_calls(self) -> tuple[dict[str, Any], ...]:
        calls = sorted(self._tools.items())
        return tuple(self._call.tool_call(index, call["id"], call["name"], call["arguments"] or "{}") for index, call in calls)

    def _counted(self) -> Usage:
        if not self._usage:
            return Usage(calls=1, completion_tokens=self._pieces, estimated=True)
        return Usage(
            calls=1,
            prompt_tokens=count(self._usage.get("prompt_tokens")),
            completion_tokens=count(self._usage.get("completion_tokens")),
        )

    def _timed(self) -> Timings:
        """llama.cpp reports its own timings; elsewhere the first piece divides reading from writing."""
        if "predicted_ms" in self._timings:
            return Timings(prefill_ms=milliseconds(self._timings.get("prompt_ms")), decode_ms=milliseconds(self._timings["predicted_ms"]))
        now = self._clock.monotonic()
        first = self._first if self._first is not None else now
        return Timings(prefill_ms=(first - self._began) * 1e3, decode_ms=(now - first) * 1e3)
