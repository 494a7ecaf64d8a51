"""Ollama's dialect, inwards: a chat, a generation or an embedding request becomes a Job. Pure.

What never changes an answer is accepted and does nothing: how long a model stays loaded, how its node runs it, whether a prompt that is
too long is cut (it is refused). What would change it and is not supported is refused by name; what nobody knows is an unknown field.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from services.ingress.dialects.port import EFFORTS, Asked, Strict, Terms, as_many, functions, refuse_unsupported
from shared.contracts.base import MOST, Image, JsonObject, Label, ModelName, Text
from shared.contracts.chat import MOST_CALLS, MOST_TOOLS, ChatMessage, Operation, Options
from shared.contracts.job import Job

_MOST_IMAGES = 16
Number = Annotated[int, Field(ge=-MOST, le=MOST)]
Real = Annotated[float, Field(ge=-1e15, le=1e15)]
KeepAlive = Label | Real | None
Think = bool | Literal["low", "medium", "high", "max"]


def or_none(value: Any) -> Any:
    """Clients send an empty text where they mean nothing."""
    return None if value in ("", {}) else value


Format = Annotated[Literal["json"] | JsonObject | None, BeforeValidator(or_none)]


class _ModelOptions(Strict):
    """`options`. Those behind `stop` say how a node runs a model, which is the node's own matter: they do nothing."""

    temperature: float | None = Field(default=None, ge=0, le=5)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=0, lt=2**31)
    min_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**31), lt=2**31)
    num_predict: int | None = Field(default=None, ge=-2, le=1_000_000)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    repeat_penalty: float | None = Field(default=None, ge=0, le=10)
    stop: Label | Annotated[tuple[Label, ...], Field(max_length=16)] | None = None
    num_ctx: Number | None = None
    num_batch: Number | None = None
    num_gpu: Number | None = None
    main_gpu: Number | None = None
    num_thread: Number | None = None
    num_keep: Number | None = None
    draft_num_predict: Number | None = None
    use_mmap: bool | None = None
    use_mlock: bool | None = None
    low_vram: bool | None = None
    numa: bool | None = None
    f16_kv: bool | None = None
    # Judged by their values.
    repeat_last_n: Number | None = None
    typical_p: Real | None = None
    tfs_z: Real | None = None
    mirostat: Number | None = None
    mirostat_tau: Real | None = None
    mirostat_eta: Real | None = None
    penalize_newline: bool | None = None


class _SaidMessage(Strict):
    """One turn. What a model thought in an earlier turn is not given to it again."""

    role: Literal["system", "user", "assistant", "tool"]
    content: Text = ""
    thinking: Text | None = None
    images: tuple[Image, ...] | None = Field(default=None, max_length=_MOST_IMAGES)
    tool_calls: tuple[JsonObject, ...] | None = Field(default=None, max_length=MOST_CALLS)
    tool_name: Label | None = None
    tool_call_id: Label | None = None


class _Call(Asked):
    """What chat and generate share."""

    stream: bool | None = None
    format: Format = None
    options: _ModelOptions | None = None
    think: Think | None = None
    keep_alive: KeepAlive = None
    truncate: bool | None = None
    shift: bool | None = None
    # Judged by their values.
    logprobs: bool | None = None
    top_logprobs: Number | None = None

    @property
    @abstractmethod
    def empty(self) -> bool:
        """Nothing is asked: the model is to be loaded, or, where `keep_alive` is 0, need not be any longer."""

    @property
    def unloads(self) -> bool:
        """Of an empty one."""
        return self.keep_alive in (0, "0", "0s", "0m")

    def wishes(self) -> bool:
        """Whether this only loads the model."""
        return self.empty


class OllamaChat(_Call):
    """The body of `POST /api/chat`."""

    messages: tuple[_SaidMessage, ...] = Field(default=(), max_length=1_000)
    tools: tuple[JsonObject, ...] | None = Field(default=None, max_length=MOST_TOOLS)

    @property
    def empty(self) -> bool:
        """No message."""
        return not self.messages


class OllamaGenerate(_Call):
    """The body of `POST /api/generate`."""

    prompt: Text = ""
    system: Text | None = None
    images: tuple[Image, ...] | None = Field(default=None, max_length=_MOST_IMAGES)
    # Judged by their values.
    suffix: Text | None = None
    template: Text | None = None
    raw: bool | None = None
    context: tuple[Number, ...] | None = Field(default=None, max_length=1_000_000)

    @property
    def empty(self) -> bool:
        """No prompt."""
        return not self.prompt and not self.images


class OllamaEmbed(Asked):
    """The body of `POST /api/embed`."""

    input: Text | Annotated[tuple[Text, ...], Field(max_length=512)] = ()
    truncate: bool | None = None
    options: _ModelOptions | None = None
    keep_alive: KeepAlive = None
    dimensions: Number | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """One is as many."""
        return as_many(self.input)


class OllamaEmbeddings(Asked):
    """The body of `POST /api/embeddings`, the older form for one text."""

    prompt: Text = ""
    options: _ModelOptions | None = None
    keep_alive: KeepAlive = None
    truncate: bool | None = None


class OfOneModel(Strict):
    """What is asked of one model, by its name; `name` is the older word."""

    model: Annotated[ModelName | None, BeforeValidator(or_none)] = None
    name: Annotated[ModelName | None, BeforeValidator(or_none)] = None

    @model_validator(mode="after")
    def _named(self) -> OfOneModel:
        if self.model is None and self.name is None:
            raise ValueError("model is required")
        return self

    @property
    def asked(self) -> str:
        """The name, however it is spelled."""
        return self.model or self.name or ""


class ModelNamed(OfOneModel):
    """The body of `POST /api/show`."""

    verbose: bool | None = None
    system: Text | None = None
    template: Text | None = None
    options: JsonObject | None = None


_HARMLESS: dict[str, tuple[Any, ...]] = {
    "logprobs": (False,),
    "top_logprobs": (0,),
    "suffix": ("",),
    "template": ("",),
    "raw": (False,),
    "context": ((),),
    "dimensions": (0,),
    "repeat_last_n": (64,),
    "typical_p": (1.0,),
    "tfs_z": (1.0,),
    "mirostat": (0,),
    "penalize_newline": (False, True),
}
"""Values with which a parameter asks for nothing that would not happen anyway; with any other it is refused."""
_LOADING = Options(max_tokens=1)
"""One token: the model is loaded then."""


def chat(request: OllamaChat, terms: Terms) -> Job:
    """Raises UnsupportedParameter, and as `Terms.job`."""
    if request.empty:
        return _loading(request, terms)
    return _job(request, terms, messages=tuple(map(_message, request.messages)), tools=functions(request.tools or ()))


def generate(request: OllamaGenerate, terms: Terms) -> Job:
    """One with pictures is a chat of one turn: the same template, and models see them there. Raises as `chat`."""
    if request.empty:
        return _loading(request, terms)
    if not request.images:
        kind = Operation.CHAT if terms.pattern else Operation.GENERATE
        return _job(request, terms, prompt=request.prompt, system=request.system, operation=kind)
    return _job(request, terms, messages=(ChatMessage(role="user", content=request.prompt, images=request.images),), system=request.system)


def embed(request: OllamaEmbed, terms: Terms) -> Job:
    """Of at least one text. Raises as `chat`."""
    return _embedding(request, request.texts, terms)


def embeddings(request: OllamaEmbeddings, terms: Terms) -> Job:
    """Raises as `chat`."""
    return _embedding(request, (request.prompt,), terms)


def _job(request: _Call, terms: Terms, **own: Any) -> Job:
    refuse_unsupported(request, _HARMLESS)
    return terms.job(options=_options(request), format=request.format, stream=request.stream is not False, **own)


def _loading(request: _Call, terms: Terms) -> Job:
    """A chat of one token."""
    messages = (ChatMessage(role="user", content="."),)
    return _job(request, terms, messages=messages).changed(options=_LOADING, format=None, stream=False, pattern="single")


def _embedding(request: OllamaEmbed | OllamaEmbeddings, texts: tuple[str, ...], terms: Terms) -> Job:
    refuse_unsupported(request, _HARMLESS)
    return terms.embedding(texts or ("",))


def _options(request: _Call) -> Options:
    given = request.options or _ModelOptions()
    refuse_unsupported(given, _HARMLESS)
    return Options(
        temperature=given.temperature,
        top_p=given.top_p,
        top_k=given.top_k,
        min_p=given.min_p,
        seed=given.seed,
        max_tokens=given.num_predict if (given.num_predict or 0) > 0 else None,
        stop=() if given.stop is None else as_many(given.stop),
        presence_penalty=given.presence_penalty,
        frequency_penalty=given.frequency_penalty,
        repeat_penalty=given.repeat_penalty,
        think=request.think if isinstance(request.think, bool) else EFFORTS[request.think],
    )


def _message(message: _SaidMessage) -> ChatMessage:
    return ChatMessage(
        role=message.role,
        content=message.content,
        images=message.images or (),
        tool_calls=message.tool_calls or (),
        tool_name=message.tool_name,
        tool_call_id=message.tool_call_id,
    )
