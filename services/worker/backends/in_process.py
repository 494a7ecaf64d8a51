"""A model endpoint inside the worker, for benches and tests: no network, no thought, answers derived from the input. Marked simulated."""

from __future__ import annotations

from collections.abc import AsyncIterator
from hashlib import blake2b

from services.worker.backends.base import BackendProbe, Completion, Delta, ModelCall, ModelCallFailed
from shared.contracts.chat import Answer, Operation
from shared.contracts.failure import FailureKind as K
from shared.contracts.node import NodeModel
from shared.contracts.step import Step
from shared.contracts.usage import Usage

CHAT_MODEL = "in-process"
EMBED_MODEL = "in-process-embed"
DIMENSIONS = 8
WINDOW = 32_768
"""Tokens."""


class InProcessBackend:
    """Answers at once. The same input gives the same answer, on every node."""

    kind: str = "in_process"

    def __init__(self, models: tuple[str, ...] = ()) -> None:
        self._models = models or (CHAT_MODEL, EMBED_MODEL)

    async def call(self, call: ModelCall) -> AsyncIterator[Delta | Completion]:
        if call.model not in self._models:
            raise ModelCallFailed(K.UNKNOWN_MODEL, f"model {call.model!r} not found")
        if call.step.operation is Operation.EMBED:
            vectors = tuple(_vector(text) for text in call.step.texts)
            yield Completion(
                Answer(embeddings=vectors, model=call.model, node=call.node, simulated=True), Usage(calls=1, prompt_tokens=len(vectors))
            )
            return
        text = answer_text(call.step)
        if call.step.prefix:
            text = text.removeprefix(call.step.prefix)
            yield Delta(text)
        elif call.step.stream:
            for word in text.split(" "):
                yield Delta(word if word == "simulated" else f" {word}")
        yield Completion(
            Answer(text=text, model=call.model, node=call.node, simulated=True), Usage(calls=1, prompt_tokens=8, completion_tokens=3)
        )

    async def probe(self) -> BackendProbe:
        return BackendProbe(version="in-process", simulated=True)

    async def models(self) -> tuple[NodeModel, ...]:
        return tuple(
            NodeModel(
                name=name,
                context_length=WINDOW,
                window=WINDOW,
                abilities={"vision": False, "tools": True, "thinking": False},
                operations=("embed",) if "embed" in name else ("chat", "generate"),
                resident=True,
            )
            for name in self._models
        )

    async def close(self) -> None:
        return None


def answer_text(step: Step) -> str:
    """The answer to a step's input: says that it is simulated, and differs where the input differs."""
    seen = step.prompt or "".join(message.content for message in step.messages)
    digest = blake2b(seen.encode(), digest_size=6).hexdigest()
    return f'{{"simulated": "{digest}"}}' if step.format is not None else f"simulated answer {digest}"


def _vector(text: str) -> tuple[float, ...]:
    raw = blake2b(text.encode(), digest_size=DIMENSIONS).digest()
    return tuple(byte / 127.5 - 1.0 for byte in raw)
