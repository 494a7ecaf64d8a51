"""Job: what a user asks for. The smallest valid one is `{"prompt": "hello"}`."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from shared.contracts.base import (
    Capability,
    Contract,
    Correlation,
    Count,
    Instant,
    JsonObject,
    Label,
    ModelName,
    NodeId,
    Partition,
    PositiveSeconds,
    PriorityClass,
    PublicId,
    Sentence,
    Tenant,
    Text,
    TopicName,
)
from shared.contracts.batch import BatchLine
from shared.contracts.blob import BlobRef
from shared.contracts.cache import CacheControl
from shared.contracts.callback import Callback
from shared.contracts.chat import MOST_TOOLS, TOOLS, ChatMessage, Operation, Options, ToolChoice
from shared.contracts.limits import Limits


class Needs(Contract):
    """What a node must have besides the capability. Filters, not topics."""

    model_config = ConfigDict(extra="forbid")

    min_vram_bytes: Count | None = None
    min_context: Count | None = None
    tags: tuple[Capability, ...] = Field(default=(), max_length=16)
    node: NodeId | None = None
    prefers: tuple[Capability, ...] | None = Field(default=None, max_length=16)
    """Tags that count where a live node has them all; else any node will do."""
    at_most: PriorityClass | None = None
    """The most urgent class that its steps are served in; the job's own where that is less urgent."""


class Job(Contract):
    """Exactly one of `prompt`, `messages`, `texts` is the input. Unknown fields are refused: a misspelt one must not be lost silently."""

    model_config = ConfigDict(extra="forbid")
    _beside: ClassVar = {"tenant"}

    id: PublicId | None = None
    tenant: Tenant = "default"
    prompt: Text | None = Field(default=None, min_length=1)
    system: Text | None = None
    messages: tuple[ChatMessage, ...] | None = Field(default=None, min_length=1, max_length=1_000)
    texts: tuple[Text, ...] | None = Field(default=None, min_length=1, max_length=512)
    operation: Operation | None = None
    conversation: PublicId | None = None
    """Its name within the tenant: the job begins when its turn comes, and its models read what was said before."""
    pattern: str = Field(default="single", pattern=r"^[a-z][a-z0-9_-]{0,31}$", max_length=32)
    input: JsonObject = Field(default_factory=dict)
    """What the pattern needs besides: its own model checks it (`shared/patterns`)."""
    chain: tuple[JsonObject, ...] = Field(default=(), max_length=12)
    """The older spelling of the chain's input `{"steps": [...]}`."""
    model: ModelName = "auto"
    fallback_models: tuple[ModelName, ...] = Field(default=(), max_length=8)
    capability: Capability | None = None
    options: Options = Options()
    format: Literal["json"] | JsonObject | None = None
    tools: tuple[JsonObject, ...] = Field(default=(), max_length=MOST_TOOLS)
    """The caller's own: what the model calls is the answer, and the caller's to do."""
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    """Whether one answer may call several tools; where not, its first call counts."""
    stream: bool = False
    needs: Needs = Needs()
    limits: Limits = Limits()
    deadline_at: Instant | None = None
    deadline_seconds: PositiveSeconds | None = None
    """Instead of an instant: counted from when the job is accepted, by nobody's wall clock."""
    not_before: Instant | None = None
    callback: Callback | None = None
    """Whom its end is told over HTTP."""
    cache: CacheControl | None = None
    """Whether its steps may be answered from the cache, and what of them it may keep. Absent: as its tenant has it, else neither."""
    metadata: dict[Label, Sentence] = Field(default_factory=dict, max_length=32)

    def record(self) -> bytes:
        """As tutti writes it in records: without what is as it is by default, but for whose it is, which stands before all that is his."""
        rest = self.encoded(exclude_defaults=True, exclude=self._beside)
        return b'{"tenant":"%b"' % self.tenant.encode() + (b"}" if rest == b"{}" else b"," + rest[1:])

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self._check_input()
        if self.deadline_at is not None and self.deadline_seconds is not None:
            raise ValueError("deadline_at and deadline_seconds exclude each other")
        if self.chain and (self.input or self.pattern != "chain"):
            raise ValueError('`chain` is the older spelling of pattern chain\'s `input`, {"steps": [...]}: only one of both may be given')
        if self.conversation is not None and self.kind is not Operation.CHAT:
            raise ValueError("a conversation is of chats: prompt or messages without operation, or operation chat")
        if self.cache is not None:
            self.check_scope(self.cache)
        return self

    def check_scope(self, control: CacheControl) -> None:
        """Raises ValueError where nothing says whose session, or whose user's, this job is."""
        if control.scope == "session" and self.conversation is None:
            raise ValueError("cache scope session needs a conversation: its name tells sessions apart")
        if control.scope == "user" and not self.metadata.get("user"):
            raise ValueError("cache scope user needs metadata.user: it tells users apart")

    def _check_input(self) -> None:
        if (self.prompt is not None) + (self.messages is not None) + (self.texts is not None) != 1:
            given = [name for name in ("prompt", "messages", "texts") if getattr(self, name) is not None]
            raise ValueError(f"exactly one of prompt, messages, texts is needed; given: {', '.join(given) or 'none'}")
        if self.texts is not None and self.operation not in (None, Operation.EMBED):
            raise ValueError("texts are for operation embed")
        if self.operation is Operation.EMBED and self.texts is None:
            raise ValueError("operation embed needs texts")
        if self.operation is Operation.GENERATE and self.prompt is None:
            raise ValueError("operation generate needs a prompt")
        if self.operation is Operation.TOOL or self.capability == TOOLS:
            raise ValueError("steps of tools are the engine's own: pattern tools has a model use them, or calls one")
        if self.operation is Operation.CRITIQUE:
            raise ValueError("critiques are the engine's own: gates and policies ask for them")
        if self.operation is Operation.MANAGE:
            raise ValueError("tasks on models are the engine's own: pattern models asks for them")
        if self.tool_choice != "auto" and not self.tools:
            raise ValueError("tool_choice required needs tools")

    @property
    def kind(self) -> Operation:
        """The operation, derived from the input when not given."""
        return self.operation or (Operation.EMBED if self.texts is not None else Operation.CHAT)

    @property
    def needed_capability(self) -> str:
        """What its steps need, derived from the operation when not given."""
        return self.capability or ("embed" if self.kind is Operation.EMBED else "chat")

    @property
    def turns(self) -> tuple[ChatMessage, ...]:
        """What a model that chats reads, the system's words first."""
        messages = self.messages or ()
        if self.prompt is not None and self.kind is Operation.CHAT:
            messages = (ChatMessage(role="user", content=self.prompt),)
        if self.system and self.kind is not Operation.EMBED:
            messages = (ChatMessage(role="system", content=self.system), *messages)
        return messages

    @property
    def pattern_input(self) -> dict[str, Any]:
        """`input`, however it is spelled."""
        return {"steps": self.chain} if self.chain else self.input


class Input(Contract):
    """What the model of a single step reads. In a blob: the JSON of this."""

    messages: tuple[ChatMessage, ...] = Field(default=(), max_length=1_001)
    """With the job's `system` as the first."""
    prompt: Text | None = None
    texts: tuple[Text, ...] = Field(default=(), max_length=512)
    format: Literal["json"] | JsonObject | None = None
    tools: tuple[JsonObject, ...] = Field(default=(), max_length=MOST_TOOLS)


class InputRef(Contract):
    """An Input above the inline bound, and what planner and router must know of it without reading it."""

    blob: BlobRef
    characters: Count
    """Of all texts."""
    longest: Count
    """Bytes in UTF-8 that the model reads at once: of an embedding's longest text, else all."""
    fewest_tokens: Count
    """That those have by any tokenizer."""
    images: bool = False
    tools: bool = False


OF_THE_INPUT = frozenset({"prompt", "system", "messages", "texts", "format", "tools"})
"""What of a job goes into the blob."""


class HeldJob(Job):
    """A job as it lies in records of tutti's own: what its models read may lie in a blob. Then `operation` is said, and none of it is here.

    Its pattern's `input` stays: what may be picked, by which agents. `line`: of a batch, which is told of its end.
    """

    input_ref: InputRef | None = None
    line: BatchLine | None = None

    def _check_input(self) -> None:
        if self.input_ref is None:
            super()._check_input()
        elif self.operation is None or any(getattr(self, name) for name in OF_THE_INPUT):
            raise ValueError("a job by reference says its operation, and holds nothing of what lies in its blob")


class ReplyTo(Contract):
    """Where a caller waits. `multiplex`: the reader accepts records that carry chunks of several jobs (tutti's own ingress).

    `reads_events`: it learns the end from the job's settle event, and needs a final only where none is appended.
    """

    topic: TopicName
    partition: Partition | None = None
    correlation: Correlation = b""
    dialect: Literal["tutti", "spring"] = "tutti"
    multiplex: bool = False
    reads_events: bool = False
