"""The simulated node: takes requests as dictionaries, gives Ollama's chunks as dictionaries. No HTTP; time and randomness are injected.

    node = SimulatedOllama(PROFILES["workstation"], clock=LoopClock(), random=Random(7))
    async for chunk in node.chat({"model": "llama3.2:1b", "messages": [{"role": "user", "content": "hello"}]}): ...

Every request runs as a task of its own, as in a real node: closing the iterator (or cancelling its reader) is a client that leaves,
which the node notices at once while the request waits, and at the next token once it runs.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from random import Random
from typing import Any

from infra.lab.simulators.ollama import wire
from infra.lab.simulators.ollama.call import Call, Chunk
from infra.lab.simulators.ollama.errors import ConnectionDropped, OllamaError, model_not_found
from infra.lab.simulators.ollama.inference import Engine
from infra.lab.simulators.ollama.library import Library
from infra.lab.simulators.ollama.parameters import FailureMode, Failures, Parameters, Script, Trigger
from infra.lab.simulators.ollama.requests import Endpoint, find_model, read
from infra.lab.simulators.ollama.scheduler import Scheduler
from infra.lab.simulators.ollama.serving import Run, Serving
from infra.lab.simulators.ollama.truth import Truth
from shared.clock import Clock
from shared.model_names import canonical


class SimulatedOllama:
    """One node. Create it on the loop it shall run on; `close` it there."""

    def __init__(self, parameters: Parameters, clock: Clock, random: Random) -> None:
        self.parameters = parameters
        self.scripts: tuple[Script, ...] = parameters.scripts
        self.truth = Truth()
        self._clock = clock
        self._random = random
        self._started = clock.wall()
        self._tasks: set[asyncio.Task[None]] = set()
        self._faults = Faults(parameters.failures, random)
        self._library = Library(parameters, clock, self.truth)
        self._start()

    def _start(self) -> None:
        self._scheduler = Scheduler(self.parameters, self._clock, self.truth)
        self._engine = Engine(self.parameters, self._clock, self._random)
        self._serving = Serving(self.parameters, self._scheduler, self._engine, self._clock, self.truth)

    def open(self, endpoint: Endpoint, request: Any) -> Call:
        """Begin a request; its chunks, or its error, come through the call. Never raises and never waits."""
        call = Call()
        self.truth.begin(endpoint)
        task = asyncio.get_running_loop().create_task(self._run(call, endpoint, request))
        call.task = task
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._done(call, done))
        return call

    async def chat(self, request: Mapping[str, Any]) -> AsyncIterator[Chunk]:
        """POST /api/chat. Raises OllamaError (at first, or in mid-stream) and ConnectionDropped. `stream: false` gives one chunk."""
        async for chunk in self._read("chat", request):
            yield chunk

    async def generate(self, request: Mapping[str, Any]) -> AsyncIterator[Chunk]:
        """POST /api/generate; as `chat`."""
        async for chunk in self._read("generate", request):
            yield chunk

    async def embed(self, request: Mapping[str, Any]) -> Chunk:
        """POST /api/embed. Raises OllamaError and ConnectionDropped."""
        async for chunk in self._read("embed", request):
            return chunk
        raise ConnectionDropped

    async def _read(self, endpoint: Endpoint, request: Mapping[str, Any]) -> AsyncIterator[Chunk]:
        call = self.open(endpoint, request)
        try:
            while chunks := await call.ready():
                for chunk in chunks:
                    yield chunk
        finally:
            call.leave()

    async def _run(self, call: Call, endpoint: Endpoint, request: Any) -> None:
        work = read(endpoint, request, self.parameters)
        if request.get("_debug_render_only"):
            # As a server that does not tell how it renders: no template is simulated.
            call.put(wire.chunk(work, self._clock.wall()), last=True)
            return
        call.streamed = work.stream and not work.empty and endpoint != "embed"
        failure = None if work.empty else self._faults.draw(work.model.name, work.prompt)
        if failure is not None:
            self.truth.failures[failure] += 1
        measured = wire.Measured(self._clock.monotonic())
        await self._serving.serve(Run(call, work, self.scripts, failure, self._faults.failures, measured))

    def _done(self, call: Call, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.truth.end()
        self.truth.clients_gone += call.gone
        error = None if task.cancelled() else task.exception()
        if task.cancelled():
            error = ConnectionDropped()
        elif isinstance(error, OllamaError):
            self.truth.errors[str(error.status)] += 1
        elif error is not None and not isinstance(error, ConnectionDropped):
            self.truth.errors["internal"] += 1
        call.end(error)

    async def pull(self, request: Any) -> AsyncIterator[Chunk]:
        """POST /api/pull: lines; the last is success, or an error. Raises OllamaError, ConnectionDropped."""
        self.truth.requests["pull"] += 1
        async for line in self._library.pull(request):
            self._look()
            yield line

    def delete(self, request: Any) -> None:
        """DELETE /api/delete. Raises OllamaError 400, 404."""
        self._scheduler.unload(self._library.delete(request))
        self._look()

    def copy(self, request: Any) -> None:
        """POST /api/copy. Raises OllamaError 400, 404."""
        self._library.copy(request)
        self._look()

    def _look(self) -> None:
        """What lies on the disk now."""
        if self.parameters.models != self._library.models:
            self.parameters = self.parameters.with_(models=self._library.models)

    def tags(self) -> Chunk:
        """GET /api/tags."""
        return wire.tags(self.parameters.models, self._started)

    def ps(self) -> Chunk:
        """GET /api/ps."""
        return wire.running(list(self._scheduler.runners()), self._clock.monotonic(), self._clock.wall())

    def show(self, request: Mapping[str, Any]) -> Chunk:
        """POST /api/show. Raises OllamaError 400, 404."""
        name = request.get("model") or request.get("name")
        if not isinstance(name, str) or not name:
            raise OllamaError(400, "model is required")
        model = find_model(self.parameters, name)
        if model is None:
            raise model_not_found(canonical(name))
        return wire.show(model, self._started)

    def version(self) -> Chunk:
        """GET /api/version."""
        return {"version": wire.VERSION}

    def control(self) -> Chunk:
        """The truth about the node, and what is set to go wrong. Not part of Ollama."""
        runners = [
            {"model": runner.name, "references": runner.references, "waiting": runner.slots.waiting, "slots": runner.slots.count}
            for runner in self._scheduler.runners()
        ]
        return {
            "profile": self.parameters.name,
            "truth": self.truth.as_dict(),
            "queued": self._scheduler.queued,
            "runners": runners,
            "failures": self._faults.failures.model_dump(mode="json"),
            "scripts": len(self.scripts),
        }

    def change(self, failures: Failures | None = None, scripts: tuple[Script, ...] | None = None, *, reset: bool = False) -> None:
        """Replace failures or scripts from the next request on; `reset` sets the counters to 0."""
        if failures is not None:
            self._faults.change(failures)
        if scripts is not None:
            self.scripts = scripts
        if reset:
            self.truth.reset()

    async def restart(self) -> None:
        """The server process dies and comes back empty: every connection drops, no model is loaded."""
        self._library.restart()
        await self.close()
        self._start()

    async def close(self) -> None:
        """Drop every request and stop every timer."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._scheduler.close()


class Faults:
    """Which failure, if any, strikes a request: triggers first, in order, then chance, mode by mode. `change` replaces them at run time."""

    def __init__(self, failures: Failures, random: Random) -> None:
        self._random = random
        self.change(failures)

    def change(self, failures: Failures) -> None:
        """From the next request on. Triggers count from the start again."""
        self.failures = failures
        self._matches: Counter[int] = Counter()
        self._struck: Counter[int] = Counter()

    def draw(self, model: str, prompt: str) -> FailureMode | None:
        """The failure of one request; at most one."""
        for number, trigger in enumerate(self.failures.triggers):
            if _matches(trigger, model, prompt) and self._strikes(number, trigger):
                return trigger.mode
        chances = self.failures.chances
        return next((mode for mode in FailureMode if (chance := chances.get(mode)) and self._random.random() < chance), None)

    def _strikes(self, number: int, trigger: Trigger) -> bool:
        self._matches[number] += 1
        if self._matches[number] % trigger.every or (trigger.times is not None and self._struck[number] >= trigger.times):
            return False
        self._struck[number] += 1
        return True


def _matches(trigger: Trigger, model: str, prompt: str) -> bool:
    return trigger.contains in prompt and trigger.model in ("", model)
