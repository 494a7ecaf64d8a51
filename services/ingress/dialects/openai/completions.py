"""OpenAI's completions, the older form: one prompt becomes a Job, its answer a text_completion, whole or streamed. Pure."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from pydantic_core import to_json

from services.ingress.dialects.openai.requests import Number, Sampled, metadata_of
from services.ingress.dialects.openai.responses import SIMULATED, finish_reason, usage
from services.ingress.dialects.port import Terms, Told, Unread, UnsupportedParameter, as_many, origin, refuse_unsupported
from services.ingress.http import sse
from services.ingress.problems import Problem, rendered
from shared.contracts.base import JsonObject, Text
from shared.contracts.chat import Answer, Operation
from shared.contracts.job import Job
from shared.contracts.usage import Usage


class CompletionRequest(Sampled):
    """The body of `POST /v1/completions`."""

    prompt: Text | Annotated[tuple[Text, ...], Field(max_length=512)] | Annotated[tuple[Number, ...], Field(max_length=1_000_000)]
    # Accepted where they change nothing.
    n: Number | None = None
    best_of: Number | None = None
    echo: bool | None = None
    logprobs: Number | None = None
    logit_bias: JsonObject | None = None
    suffix: Unread = None


_HARMLESS: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "logprobs": (0,),
    "logit_bias": ({},),
    "suffix": (),
}


def to_job(request: CompletionRequest, terms: Terms) -> Job:
    """The job that answers the request. Raises UnsupportedParameter, and as `Terms.job`."""
    refuse_unsupported(request, _HARMLESS)
    prompts = as_many(request.prompt)
    if len(prompts) != 1 or not isinstance(prompts[0], str):
        raise UnsupportedParameter("prompt", "prompt is one text: several, or tokens, are not supported")
    return terms.job(
        prompt=prompts[0],
        operation=Operation.CHAT if terms.pattern else Operation.GENERATE,
        options=request.options(request.max_tokens),
        stream=bool(request.stream),
        metadata=metadata_of(None, request.user),
    )


def answer(told: Told, found: Answer, consumed: Usage) -> bytes:
    """A whole `text_completion`."""
    choice = {"index": 0, "text": found.text, "logprobs": None, "finish_reason": finish_reason(found)}
    head = _head(told, found.model, simulated=found.simulated)
    return to_json(head | {"choices": [choice], "usage": usage(consumed), "tutti": origin(found)})


class TextWriter:
    """The chunks of one stream. What a model thinks has no place in this form."""

    __slots__ = ("_after", "_before", "_head", "_told")

    def __init__(self, told: Told) -> None:
        self._told = told
        self._head: dict[str, Any] = {}
        self._before, self._after = b"", b',"logprobs":null,"finish_reason":null}]}\n\n'

    @property
    def begun(self) -> bool:
        """The model that answers is known."""
        return bool(self._head)

    def begin(self, model: str | None, simulated: bool) -> bytes:
        """Nothing goes out before the first piece."""
        self._head = _head(self._told, model, simulated=simulated)
        self._before = b"data: " + to_json(self._head)[:-1] + b',"choices":[{"index":0,"text":'
        return b""

    def text(self, text: str) -> bytes:
        """New text."""
        return self._before + to_json(text) + self._after

    def thinking(self, text: str) -> bytes:
        """Left out."""
        return b""

    def last(self, answer: Answer, consumed: Usage) -> bytes:
        """The finish reason, the usage if asked for, the end mark."""
        if not self.begun:
            self.begin(answer.model, answer.simulated)
        choice = {"index": 0, "text": "", "logprobs": None, "finish_reason": finish_reason(answer)}
        end = sse.data(to_json(self._head | {"choices": [choice], "tutti": origin(answer)}))
        if self._told.wishes:
            end += sse.data(to_json(self._head | {"choices": [], "usage": usage(consumed)}))
        return end + sse.DONE

    def failed(self, found: Problem) -> bytes:
        """An error after the stream began: an event with the error object, then the end mark."""
        return sse.data(rendered(found)) + sse.DONE


def _head(told: Told, model: str | None, *, simulated: bool) -> dict[str, Any]:
    mark = SIMULATED if simulated else None
    name = model or told.model
    return {"id": f"cmpl-{told.job}", "object": "text_completion", "created": told.created, "model": name, "system_fingerprint": mark}
