"""The port to a model endpoint, and what all backends share: the call, what it yields, how it fails."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from shared.contracts.chat import Answer
from shared.contracts.failure import FailureKind
from shared.contracts.node import NodeModel
from shared.contracts.step import Step
from shared.contracts.tasks import TaskProgress
from shared.contracts.usage import Timings, Usage
from shared.contracts.verdict import Flagged
from shared.errors import TuttiError

MAX_MESSAGE_CHARS = 300


class ModelCallFailed(TuttiError):
    """The endpoint did not answer the call."""

    code = "model_call_failed"

    def __init__(
        self, kind: FailureKind, message: str, *, retry_after_seconds: float | None = None, flagged: tuple[Flagged, ...] = ()
    ) -> None:
        super().__init__(message[:MAX_MESSAGE_CHARS])
        self.kind = kind
        self.retry_after_seconds = retry_after_seconds
        self.flagged = flagged


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One call: the step's input for one model. `trace` is sent to the endpoint as `traceparent`.

    `node` and `simulated` are what the answer has to say of its origin. `thinks`: the model can, as its endpoint says.
    """

    step: Step
    model: str
    trace: str | None = None
    node: str | None = None
    simulated: bool = False
    thinks: bool = False

    def answer(self, **said: Any) -> Answer:
        """With whose it is."""
        return Answer(model=self.model, node=self.node, simulated=self.simulated, **said)

    def tool_call(self, number: int, given: Any, name: str, arguments: str) -> dict[str, Any]:
        """The answer's call of this number, in OpenAI's form. `given`: its id; one is derived where the endpoint has none."""
        named = given or f"call_{self.step.id[:12]}_{self.step.attempt}_{number}"
        return {"id": named, "type": "function", "function": {"name": name, "arguments": arguments}}


class Delta(NamedTuple):
    """A piece of the answer. `tokens` counts the endpoint's pieces in it, an estimate of tokens."""

    text: str = ""
    thinking: str | None = None
    tool_calls: tuple[dict[str, Any], ...] = ()
    tokens: int = 1
    progress: TaskProgress | None = None
    """Of a task on a model; then there is nothing else in it."""


@dataclass(frozen=True, slots=True)
class Completion:
    """The end of a call. Timings are the endpoint's own where it reports them, milliseconds; the runner adds queue, first token, total.

    `prefilled_tokens`: prompt tokens that were really read, without cached ones; None when unknown.
    """

    answer: Answer
    usage: Usage = field(default_factory=Usage)
    timings: Timings = field(default_factory=Timings)
    prefilled_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class BackendProbe:
    """What a probe found. It neither loads nor runs a model."""

    version: str = ""
    simulated: bool = False
    manages: bool = False
    """It pulls, deletes, copies and loads models at a word."""
    disk_free_bytes: int | None = None
    """Where it keeps them; None where nobody can tell."""
    kind: str | None = None
    """Set where the endpoint says that it is of another kind than configured (the embedded node)."""


class Backend(Protocol):
    """A model endpoint. Every method raises only `ModelCallFailed`."""

    @property
    def kind(self) -> str: ...

    def call(self, call: ModelCall) -> AsyncIterator[Delta | Completion]:
        """Deltas, then exactly one Completion. Cancelling the consumer closes the connection before it unwinds."""
        ...

    async def probe(self) -> BackendProbe:
        """Ask for the version. Raises NODE_UNREACHABLE when nobody answers in a few seconds."""
        ...

    async def models(self) -> tuple[NodeModel, ...]:
        """The models on the node, resident ones marked."""
        ...

    async def close(self) -> None:
        """Close every connection. Idempotent."""
        ...


class Around:
    """Base of a backend before another one: what it says nothing of goes straight through."""

    def __init__(self, inner: Backend) -> None:
        self._inner = inner

    @property
    def kind(self) -> str:
        return self._inner.kind

    def call(self, call: ModelCall) -> AsyncIterator[Delta | Completion]:
        return self._inner.call(call)

    async def probe(self) -> BackendProbe:
        return await self._inner.probe()

    async def models(self) -> tuple[NodeModel, ...]:
        return await self._inner.models()

    async def close(self) -> None:
        await self._inner.close()
