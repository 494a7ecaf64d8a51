"""Step: one unit of work for one agent, as it travels on `steps.*` and `work.*`."""

from __future__ import annotations

from functools import cache, lru_cache
from operator import attrgetter
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field
from pydantic_core import to_json

from shared.contracts.base import (
    MANY,
    Capability,
    Contract,
    Count,
    EpochSeconds,
    JobId,
    JsonObject,
    Label,
    ModelName,
    NodeId,
    Ordinal,
    Partition,
    PositiveSeconds,
    PriorityClass,
    Seconds,
    Sentence,
    StepId,
    Tenant,
    Text,
)
from shared.contracts.chat import MOST_TOOLS, ChatMessage, Operation, Options, ToolChoice
from shared.contracts.conversation import ContextRef
from shared.contracts.critique import MOST_POLICIES, Critique, Guard
from shared.contracts.job import InputRef, Job, Needs, ReplyTo
from shared.contracts.tasks import ModelTask
from shared.contracts.usage import Price


class Content(NamedTuple):
    """Fields of a request, each as JSON."""

    messages: bytes
    prompt: bytes
    texts: bytes


class Length(NamedTuple):
    """Of a step's input. `bare`: it is words alone; of pictures and tools the model reads more than is counted here."""

    characters: int
    size: int
    """Bytes in UTF-8."""
    bare: bool


class StepRequest(Contract):
    """What a pattern wants done. A field that is added here travels, is part of the step's id, and is taken from a job that has it."""

    agent: Label = "chat"
    capability: Capability = "chat"
    operation: Operation = Operation.CHAT
    model: ModelName = "auto"
    fallback_models: tuple[ModelName, ...] = Field(default=(), max_length=8)
    messages: tuple[ChatMessage, ...] = Field(default=(), max_length=2_000)
    prompt: Text | None = None
    texts: tuple[Text, ...] = Field(default=(), max_length=4_096)
    options: Options = Options()
    format: Literal["json"] | JsonObject | None = None
    tools: tuple[JsonObject, ...] = Field(default=(), max_length=MOST_TOOLS)
    needs: Needs = Needs()
    stream: bool = False
    logprobs: bool = False
    """The answer is to say its `mean_logprob`. No option of a job: a worker that does not know the word answers without it."""
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    idempotent: bool = True
    """It may be done twice. A step of a tool that may not is not tried again once it may have begun."""
    input_ref: InputRef | None = None
    """Messages, prompt, texts, format and tools lie there: the worker fetches them."""
    context: ContextRef | None = None
    """Of the job's conversation: the worker puts it before the messages."""
    critique: Critique | None = None
    """Of operation `critique`: by what its texts are judged."""
    guard: tuple[Guard, ...] = Field(default=(), max_length=MOST_POLICIES)
    """Of a stream: what may not leave."""
    task: ModelTask | None = None
    """Of operation `manage`: what is done to the model on the node that it is bound to."""

    @classmethod
    def of(cls, job: Job, *, valid: bool = False, **own: Any) -> Self:
        """A request with all that has the same name in the job, but for what is given; which nobody checks where it is `valid`, of the job
        as it is.
        """
        fields = {name: getattr(job, name) for name in _shared_with(type(job)) if name not in own} | own
        return cls.of_valid(**fields) if valid else cls(**fields)

    @property
    def is_critique(self) -> bool:
        """It goes to the critics: no node is asked, nothing is claimed, and no call is used."""
        return self.operation is Operation.CRITIQUE

    @property
    def calls_nothing(self) -> bool:
        """No model and no tool has part in it, so that no limit of calls or tokens counts it."""
        return self.is_critique or self.task is not None

    def content(self) -> Content:
        """What may be large in it, as JSON: written once for the step's id and for its record."""
        prompt, texts = self.prompt, self.texts
        return Content(
            to_json(self.messages, exclude_none=True), b"null" if prompt is None else to_json(prompt), to_json(texts) if texts else b"[]"
        )

    def rendered(self, content: Content | None = None) -> bytes:
        """Canonical bytes of everything that decides the answer; part of the step id. Of a blob its digest: it may be written again.

        `content`: of this request, if it is there already.
        """
        behind = to_json(_BEHIND(self), exclude_none=True)[1:]
        shown: bytes = b",".join((_named(_BEFORE(self)), *(content or self.content()), behind))
        if self.input_ref is not None:
            shown += self.input_ref.blob.digest.encode()
        if self.context is not None:
            shown += self.context.identity()
        more = {name: value for name, default in _RENDERED_IF_SET if (value := getattr(self, name)) != default}
        return shown + to_json(more, exclude_none=True) if more else shown

    def length(self) -> Length:
        """Of the input, for the estimate of tokens."""
        characters, size = (0, 0) if self.context is None else (self.context.characters, self.context.longest)
        if (ref := self.input_ref) is not None:
            bare = not (ref.images or ref.tools or self.operation is Operation.EMBED)  # of which only the longest text's bytes are known
            return Length(characters + ref.characters, size + max(ref.characters, ref.longest), bare)
        bare, texts = not self.tools, [self.prompt or "", *self.texts]
        for message in self.messages:
            texts.append(message.content)
            bare = bare and not message.images
        text = "".join(texts)
        own = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
        return Length(characters + len(text), max(characters, size) + own, bare)


@lru_cache(256)
def _named(names: tuple[Any, ...]) -> bytes:
    """Of what comes before the content, the same for most jobs: its JSON, without the list's end."""
    return to_json(names)[:-1]


@cache
def _shared_with(job: type[Job]) -> tuple[str, ...]:
    return tuple(name for name in StepRequest.model_fields if name in job.model_fields)


_RENDERED_ALWAYS = (
    "agent", "capability", "operation", "model", "fallback_models", "messages", "prompt", "texts", "options", "format", "tools", "needs",
    "stream",
)  # fmt: skip
"""In this order since the first version: ids of steps in flight depend on it."""
_BEFORE, _BEHIND = attrgetter(*_RENDERED_ALWAYS[:5]), attrgetter(*_RENDERED_ALWAYS[8:])
_RENDERED_IF_SET = tuple(
    (name, field.default) for name, field in StepRequest.model_fields.items() if name not in (*_RENDERED_ALWAYS, "input_ref", "context")
)
"""What was added since; a request without it has the id that it always had."""


class Step(StepRequest):
    """One attempt of a step: the request, and what its router and worker need beside. Neither looks anything up."""

    job: JobId
    id: StepId
    attempt: Ordinal = 1
    home: Partition
    tenant: Tenant = "default"
    priority_class: PriorityClass = PriorityClass.STANDARD
    prefix: Text | None = None
    """Text of the answer that earlier attempts have produced and the caller has seen: the model goes on from its end.

    The outcome's answer is the whole text, prefix included."""
    reply: ReplyTo | None = None
    avoid: tuple[NodeId, ...] = Field(default=(), max_length=MANY)
    prefix_tokens: Count | None = None
    """Tokens of `prefix` as the nodes that wrote it counted them; None: nobody said."""
    deadline_at: EpochSeconds | None = None
    """Only of a user: an instant that this cluster made of a duration would be another one on each machine."""
    seconds_left: Seconds | None = None
    """Until the job's deadline where no user gave an instant; counted from when this is read, less the header `waited`."""
    lease_seconds: PositiveSeconds = 20.0
    estimated_tokens: Count = 0
    likely_output: Count | None = None
    """Tokens that answers of this agent have had of late for this tenant; None: not known."""
    unplaced_seconds: Seconds = 0.0
    """How long this attempt has already waited for a node that could run it, before its last delay (header `waited`)."""
    missing: tuple[Sentence, ...] = Field(default=(), max_length=64)
    """What the job's planner has been told that no node has."""
    prices: dict[ModelName, Price] = Field(default={}, max_length=16)
    """What its models cost, as their cards say: of a node that has no price of its own."""
    beyond_window: Count | None = None
    """An earlier attempt did not fit a window of so many tokens (0: of unknown size): only a larger one will do."""

    def to_bytes(self, content: Content | None = None) -> bytes:
        """Compact JSON without absent fields. `content`: that of its request, if it is there already."""
        if content is None:
            return super().to_bytes()
        rest = self.encoded(exclude=_CONTENT)
        given = [b'"%b":%b' % (name.encode(), value) for name, value in content._asdict().items() if value != b"null"]
        return b"%b,%b}" % (rest[:-1], b",".join(given))


_CONTENT = set(Content._fields)
