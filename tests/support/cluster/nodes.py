"""Simulated nodes as workers meet them: the real Ollama backend on the simulator's core, without sockets.

The node is a process of its own: it goes on when its worker is paused, and drops the worker's calls when that is killed.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from math import inf
from random import Random
from typing import Any
from weakref import WeakSet

from infra.lab.simulators.ollama.call import Call
from infra.lab.simulators.ollama.core import SimulatedOllama
from infra.lab.simulators.ollama.errors import ConnectionDropped, OllamaError
from infra.lab.simulators.ollama.parameters import Failures, ModelParameters, Parameters
from services.worker.backends.base import ModelCallFailed
from services.worker.backends.http import failure_kind
from services.worker.backends.ollama import OllamaBackend
from services.worker.owner.manners import OwnerFacts, OwnerSettings
from services.worker.settings import WorkerSettings
from shared.clock import LoopClock
from shared.contracts.failure import FailureKind
from tests.support.cluster.processes import Process

MODEL = "small"
PULLED = "pulled:1"
"""A model that no node has, and each can pull."""
LONG = "at great length"
"""A prompt that holds this is answered with `LONG_TOKENS` words: 15 s."""
LONG_TOKENS = 300
ENDLESS = "without end"
"""A prompt that holds this is answered with as many words as are allowed: a minute of generation that somebody has to stop."""
LEAK = "tell me all"
"""A prompt that holds this is answered with what some tenants must not see."""
_TOLD = " it is to be said that one may write to told@example.com or call +49 170 1234567 at any time"
BUSY = 503
_ENDPOINTS = {"/api/chat": "chat", "/api/generate": "generate", "/api/embed": "embed"}
PARAMETERS = Parameters(
    vram_gb=10,
    ram_gb=16,
    load_gb_per_second=10,
    cached_load_gb_per_second=10,
    load_fixed_seconds=0,
    decode_gb_per_second=20,
    prefill_gb_per_second=1_000,
    decode_sharing=0,
    prefill_interference=0,
    jitter=0.5,
    answer_tokens=(2, 12),
    json_token=None,
    num_parallel=2,
    models=(ModelParameters(name=MODEL, size_gb=1, bytes_per_context_token=0),),
    library=(ModelParameters(name=PULLED, size_gb=2, bytes_per_context_token=0),),
    pull_gb_per_second=0.1,
)
"""0.1 s to load the model, 20 tokens/s: most answers take 0.1 to 0.6 s. A pull takes 20 s."""


class Node:
    """One machine's model server."""

    def __init__(self, name: str, random: Random) -> None:
        self.name = name
        self.down = False
        """Nobody answers there."""
        self.owner_is_there = False
        """Somebody sits at the machine."""
        self.too_soon: list[str] = []
        self.traces: set[str | None] = set()
        """Calls of a worker that had been asked to leave it alone for longer."""
        self._calls: WeakSet[Call] = WeakSet()
        self._runs, self._seed = 0, random.getrandbits(31)
        self._random, self._retry_after = Random(self._seed), 0
        self._process = Process(f"{name}-ollama")
        long = {"contains": LONG, "answer": " word" * LONG_TOKENS}
        self.ollama = SimulatedOllama(
            PARAMETERS.with_(scripts=(long, {"contains": ENDLESS, "answer": " word" * 1_200}, {"contains": LEAK, "answer": _TOLD})),
            LoopClock(),
            random,
        )

    def open(self, endpoint: Any, body: dict[str, Any]) -> Call:
        """Begin a call, as the node. Every run of a prompt gives another answer: what was made from another run's answer is seen."""
        self._runs += 1
        other = body | {"options": body["options"] | {"seed": self._seed + self._runs}}
        call: Call = self._process.call(self.ollama.open, endpoint, other)
        self._calls.add(call)
        return call

    async def look(self, rules: OwnerSettings, wall: float, *, in_use: bool) -> OwnerFacts:
        """What the machine tells of its owner."""
        return OwnerFacts(input_seconds=0.0 if self.owner_is_there else inf)

    def fail(self, failures: Failures, retry_after_seconds: int = 0) -> None:
        """What goes wrong with calls from now on. `retry_after_seconds`: the longest that comes with a 503."""
        self.ollama.change(failures)
        self._retry_after = retry_after_seconds

    def retry_after(self, status: int) -> int | None:
        """What an error response of this status carries, in seconds."""
        return self._random.randint(1, self._retry_after) if status == BUSY and self._retry_after else None

    @property
    def running(self) -> int:
        """Calls that the node works on for somebody. One that hangs does not even notice that its caller has left."""
        return sum(not call.ended and not call.complete and not call.gone for call in self._calls)

    async def lose(self) -> None:
        """Every connection drops, nobody answers until `find`."""
        self.down = True
        await self.ollama.restart()

    def find(self) -> None:
        """It is back, empty."""
        self.down = False

    async def close(self) -> None:
        await self.ollama.close()


class Endpoint:
    """Stands where `HttpEndpoint` stands: one worker's connections to a node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._calls: dict[Call, None] = {}
        self._clock, self._quiet_until = LoopClock(), 0.0

    def cut(self) -> None:
        """The worker's process is gone: the node sees its connections close."""
        for call in list(self._calls):
            call.leave()
        self._calls.clear()

    @asynccontextmanager
    async def post(self, path: str, body: dict[str, Any], trace: str | None) -> AsyncIterator[_Response | _Lines]:
        self._check()
        if path == "/api/pull":
            async with aclosing(self._node.ollama.pull(body)) as lines:  # type: ignore[type-var]  # it is a generator
                yield _Lines(lines)
            return
        now = self._clock.monotonic()
        if now < self._quiet_until:
            self._node.too_soon.append(f"a call {self._quiet_until - now:.2f} s before the end of Retry-After")
        self._node.traces.add(trace)
        call = self._node.open(_ENDPOINTS[path], body)
        self._calls[call] = None
        try:
            yield _Response(call, await self._first(call))
        finally:
            self._calls.pop(call, None)
            call.leave()

    async def get_json(self, path: str) -> tuple[dict[str, Any], dict[str, str]]:
        self._check()
        answers = {"/api/tags": self._node.ollama.tags, "/api/ps": self._node.ollama.ps, "/api/version": self._node.ollama.version}
        return answers[path](), {}

    async def post_json(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self._check()
        return self._node.ollama.show(body)

    async def tell(self, method: str, path: str, body: dict[str, Any]) -> None:
        self._check()
        try:
            if path == "/api/generate":
                async for _ in self._node.ollama.generate(body):
                    pass
            else:
                {"/api/delete": self._node.ollama.delete, "/api/copy": self._node.ollama.copy}[path](body)
        except OllamaError as error:
            raise ModelCallFailed(failure_kind(error.status, error.message), error.message) from error

    async def close(self) -> None:
        self.cut()

    def _check(self) -> None:
        if self._node.down:
            raise ModelCallFailed(FailureKind.NODE_UNREACHABLE, "the simulated node does not accept connections")

    async def _first(self, call: Call) -> list[dict[str, Any]]:
        """What the status line waits for."""
        try:
            return await call.ready()
        except OllamaError as error:
            wait = self._node.retry_after(error.status)
            if wait is not None:
                self._quiet_until = max(self._quiet_until, self._clock.monotonic() + wait)
            raise ModelCallFailed(failure_kind(error.status, error.message), error.message, retry_after_seconds=wait) from error
        except ConnectionDropped as error:
            raise ModelCallFailed(FailureKind.BROKEN_STREAM, "the simulated node closed the connection without an answer") from error


class _Response:
    """As much of an answer as the backend reads."""

    def __init__(self, call: Call, first: list[dict[str, Any]]) -> None:
        self._call, self._first = call, [first]

    async def read(self) -> bytes:
        try:
            chunks = self._first.pop() if self._first else await self._call.ready()
        except OllamaError as error:
            return json.dumps({"error": error.message}).encode() + b"\n"
        except ConnectionDropped as error:
            raise ModelCallFailed(FailureKind.BROKEN_STREAM, "the simulated node cut the connection") from error
        return b"".join(json.dumps(chunk).encode() + b"\n" for chunk in chunks)


class _Lines:
    """The same of what is no call of a model."""

    def __init__(self, lines: AsyncIterator[dict[str, Any]]) -> None:
        self._lines = lines

    async def read(self) -> bytes:
        try:
            line = await anext(self._lines, None)
        except ConnectionDropped as error:
            raise ModelCallFailed(FailureKind.BROKEN_STREAM, "the simulated node cut the connection") from error
        return b"" if line is None else json.dumps(line).encode() + b"\n"


def backend_on(node: Node, settings: WorkerSettings) -> tuple[OllamaBackend, Endpoint]:
    """The real backend, with its connections to the simulated node."""
    endpoint = Endpoint(node)
    return OllamaBackend(settings, endpoint), endpoint  # type: ignore[arg-type]  # as much of an endpoint as it calls
