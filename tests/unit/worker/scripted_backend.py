"""A model endpoint whose every call follows a script: pieces, pauses, failures. It tells which calls it saw and which were closed early."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from services.worker.backends.base import BackendProbe, Completion, Delta, ModelCall, ModelCallFailed
from shared.clock import LoopClock
from shared.contracts.chat import Answer, FinishReason
from shared.contracts.failure import FailureKind
from shared.contracts.node import NodeModel
from shared.contracts.usage import Usage


@dataclass
class Script:
    """`pieces` with `pause` seconds before each; then `failure`, or silence when `hangs`, or the answer."""

    pieces: tuple[str, ...] = ("hello", " world")
    pause: float = 0.0
    hangs: bool = False
    failure: FailureKind | None = None
    finish_reason: FinishReason = FinishReason.STOP


@dataclass
class ScriptedBackend:
    """Plays `script`, or the one listed for the step's job."""

    script: Script = field(default_factory=Script)
    by_job: dict[str, Script] = field(default_factory=dict)
    known: tuple[str, ...] = ("small", "other")
    window: int | None = None
    reachable: bool = True
    kind: str = "ollama"
    calls: list[ModelCall] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    closed_at: list[float] = field(default_factory=list)
    """Loop times at which a call was closed before its end."""

    async def call(self, call: ModelCall) -> AsyncIterator[Delta | Completion]:
        self.calls.append(call)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            async for piece in self._play(call):
                yield piece
        except (asyncio.CancelledError, GeneratorExit):
            self.closed_at.append(asyncio.get_running_loop().time())
            raise
        finally:
            self.running -= 1

    async def _play(self, call: ModelCall) -> AsyncIterator[Delta | Completion]:
        script = self.by_job.get(call.step.job, self.script)
        if not self.reachable:
            raise ModelCallFailed(FailureKind.NODE_UNREACHABLE, "nobody there")
        if call.model not in self.known:
            raise ModelCallFailed(FailureKind.UNKNOWN_MODEL, f"model {call.model!r} not found")
        for piece in script.pieces:
            if script.pause:
                await LoopClock().sleep(script.pause)
            yield Delta(piece)
        if script.hangs:
            await asyncio.Event().wait()
        if script.failure is not None:
            raise ModelCallFailed(script.failure, "as scripted")
        tokens = len(script.pieces)
        answer = Answer(text="".join(script.pieces), finish_reason=script.finish_reason, model=call.model, node=call.node)
        yield Completion(answer, Usage(calls=1, prompt_tokens=5, completion_tokens=tokens))

    async def probe(self) -> BackendProbe:
        if not self.reachable:
            raise ModelCallFailed(FailureKind.NODE_UNREACHABLE, "nobody there")
        return BackendProbe(version="0.34.0")

    async def models(self) -> tuple[NodeModel, ...]:
        return tuple(
            NodeModel(name=name, window=self.window, operations=("embed",) if "embed" in name else ("chat", "generate"))
            for name in self.known
        )

    async def close(self) -> None:
        return None
