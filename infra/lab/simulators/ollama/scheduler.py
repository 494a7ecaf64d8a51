"""Which models are in memory: Ollama's scheduler, rule by rule.

1. A request whose model is loaded with compatible options goes past the queue to the runner's slots, without bound.
2. Only requests that need a load enter the queue of `max_queue`; full is 503. The one being served is not in it.
3. Loads are one at a time, head of line: while one waits for an eviction, every other model that is not loaded waits.
4. Victim: an idle runner with the shortest keep-alive, else the busy one with the shortest, after its requests have finished.
   A busy victim still takes new requests (rule 1), so a popular one can hold up the load for long.
5. One copy of a model; another load-time option, compared by effective values, is a reload: eviction, then load.
6. A runner that is idle for its keep-alive is unloaded.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import inf

from infra.lab.simulators.ollama.errors import BUSY, CRASHED, OllamaError
from infra.lab.simulators.ollama.memory import Footprint, needed_bytes, place, refusal
from infra.lab.simulators.ollama.parameters import GIGABYTE, ModelParameters, Parameters
from infra.lab.simulators.ollama.slots import Slots
from infra.lab.simulators.ollama.truth import Truth
from shared.clock import Clock

LoadOptions = tuple[tuple[str, int | bool], ...]
"""Effective load-time options, sorted by name."""


@dataclass(frozen=True, slots=True)
class Want:
    """What a request needs of a runner. `keep_alive_seconds` is None when the request does not say."""

    model: ModelParameters
    options: LoadOptions
    context: int
    keep_alive_seconds: float | None = None
    load_fails: bool = False


@dataclass(slots=True, eq=False)
class Runner:
    """One loaded (or loading) model."""

    want: Want
    footprint: Footprint
    slots: Slots
    keep_alive_seconds: float
    ready: asyncio.Future[None]
    gone: asyncio.Future[None]
    references: int = 0
    evicting: bool = False
    dead: OllamaError | None = None
    expires_at: float = inf
    timer: asyncio.Task[None] | None = None
    timer_at: float = inf

    @property
    def name(self) -> str:
        return self.want.model.name


@dataclass(slots=True)
class _Pending:
    want: Want
    future: asyncio.Future[Runner] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Scheduler:
    """The runners of one node. `acquire` and `release` bracket every request."""

    def __init__(self, parameters: Parameters, clock: Clock, truth: Truth) -> None:
        self._node = parameters
        self._clock = clock
        self._truth = truth
        self._runners: dict[str, Runner] = {}
        self._pending: deque[_Pending] = deque()
        self._loader: asyncio.Task[None] | None = None
        self._serving = False
        self._page_cache: dict[str, int] = {}

    def runners(self) -> Iterator[Runner]:
        """Loaded and loading ones, oldest first."""
        yield from self._runners.values()

    @property
    def queued(self) -> int:
        """Requests that wait for a load, without the one being served."""
        return sum(not pending.future.done() for pending in self._pending)

    async def acquire(self, want: Want) -> Runner:
        """A runner that serves `want`, loaded; the caller must `release` it. Raises OllamaError: 503 queue full, 500 no load."""
        runner = self._runners.get(want.model.name)
        if runner is None or runner.want.options != want.options:
            return await self._queue(want)
        self._use(runner, want)
        try:
            await asyncio.shield(runner.ready)
        except BaseException:
            self.release(runner)
            raise
        return runner

    def release(self, runner: Runner) -> None:
        """The request has ended; an idle runner starts its keep-alive, a victim is unloaded."""
        runner.references -= 1
        if runner.references > 0 or runner.gone.done():
            return
        if runner.evicting or runner.keep_alive_seconds == 0:
            self._unload(runner)
        else:
            self._expire_after(runner, runner.keep_alive_seconds)

    def unload(self, name: str) -> None:
        """Expire a model by request (`keep_alive: 0` without input): now, or when its requests have finished."""
        runner = self._runners.get(name)
        if runner is not None:
            runner.keep_alive_seconds = 0
            if runner.references == 0:
                self._unload(runner)

    def crash(self, runner: Runner) -> None:
        """The runner's process dies; its requests fail when they next look."""
        if not runner.gone.done():
            runner.dead = OllamaError(500, CRASHED)
            self._truth.crashes += 1
            self._unload(runner)
            runner.slots.fail(runner.dead)

    async def close(self) -> None:
        """Stop timers and the load in progress."""
        tasks = [task for task in (self._loader, *(runner.timer for runner in self._runners.values())) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for pending in self._pending:
            pending.future.cancel()

    def _use(self, runner: Runner, want: Want) -> None:
        runner.references += 1
        runner.expires_at = inf
        if want.keep_alive_seconds is not None:
            runner.keep_alive_seconds = want.keep_alive_seconds

    async def _queue(self, want: Want) -> Runner:
        room = self._node.max_queue + (0 if self._serving else 1)
        if len(self._pending) >= room and self.queued >= room:
            raise OllamaError(503, BUSY)
        pending = _Pending(want)
        self._pending.append(pending)
        if self._loader is None:
            self._loader = asyncio.get_running_loop().create_task(self._serve_queue())
        try:
            return await pending.future
        except asyncio.CancelledError:
            if pending.future.done() and not pending.future.cancelled() and pending.future.exception() is None:
                self.release(pending.future.result())
            raise

    async def _serve_queue(self) -> None:
        self._serving = True
        while self._pending:
            pending = self._pending.popleft()
            if not pending.future.done():
                await self._serve(pending)
        self._serving = False
        self._loader = None

    async def _serve(self, pending: _Pending) -> None:
        try:
            runner = await self._runner_for(pending.want)
        except Exception as error:
            if not pending.future.done():
                pending.future.set_exception(error)
            return
        if pending.future.done():
            self.release(runner)
        else:
            pending.future.set_result(runner)

    async def _runner_for(self, want: Want) -> Runner:
        needed = needed_bytes(want.model, parallel(want.model, self._node), want.context)
        while True:
            victim = self._runners.get(want.model.name)
            if victim is not None and victim.want.options == want.options:
                self._use(victim, want)
                return victim
            if victim is None and len(self._runners) < self._node.max_loaded_models:
                footprint = place(needed, self._node, (runner.footprint for runner in self._runners.values()))
                if footprint is not None:
                    return await self._load(want, footprint)
                if not self._runners:
                    raise OllamaError(500, refusal(needed, self._node))
            await self._evict(victim or choose_victim(self._runners.values()))

    async def _load(self, want: Want, footprint: Footprint) -> Runner:
        loop = asyncio.get_running_loop()
        keep_alive = self._node.keep_alive_seconds if want.keep_alive_seconds is None else want.keep_alive_seconds
        slots = Slots(parallel(want.model, self._node))
        runner = Runner(want, footprint, slots, _for_ever(keep_alive), loop.create_future(), loop.create_future(), references=1)
        self._runners[runner.name] = runner
        self._truth.loads += 1
        failure = await self._wait_for_load(want)
        if failure is None:
            runner.ready.set_result(None)
            return runner
        self._truth.load_failures += 1
        runner.ready.set_exception(failure)
        runner.ready.exception()
        self._unload(runner)
        raise failure

    async def _wait_for_load(self, want: Want) -> OllamaError | None:
        seconds = self._load_seconds(want.model)
        if seconds > self._node.load_timeout_seconds:
            await self._clock.sleep(self._node.load_timeout_seconds)
            return OllamaError(500, "timed out waiting for llama runner to start")
        if seconds > 0:
            await self._clock.sleep(seconds)
        return OllamaError(500, f"llama runner process has terminated: error loading model {want.model.name}") if want.load_fails else None

    def _load_seconds(self, model: ModelParameters) -> float:
        """Weights ÷ rate + the fixed part; what the page cache holds is read faster."""
        cached = self._page_cache.pop(model.name, None) is not None
        self._page_cache[model.name] = model.weights_bytes
        while len(self._page_cache) > 1 and sum(self._page_cache.values()) > self._node.ram_gb * GIGABYTE / 2:
            self._page_cache.pop(next(iter(self._page_cache)))
        rate = self._node.cached_load_gb_per_second if cached else self._node.load_gb_per_second
        return self._node.load_fixed_seconds + model.size_gb / rate

    async def _evict(self, victim: Runner) -> None:
        self._truth.evictions += 1
        victim.evicting = True
        if victim.references == 0:
            self._unload(victim)
        else:
            await asyncio.shield(victim.gone)

    def _unload(self, runner: Runner) -> None:
        if self._runners.get(runner.name) is runner:
            del self._runners[runner.name]
        if runner.timer is not None:
            runner.timer.cancel()
            runner.timer = None
        if not runner.gone.done():
            runner.gone.set_result(None)

    def _expire_after(self, runner: Runner, seconds: float) -> None:
        """Arm the keep-alive. A timer that would fire no later stays, and looks again when it fires: no task per request."""
        runner.expires_at = self._clock.monotonic() + _for_ever(seconds)
        if runner.expires_at == inf or (runner.timer is not None and runner.timer_at <= runner.expires_at):
            return
        if runner.timer is not None:
            runner.timer.cancel()
        runner.timer_at = runner.expires_at
        runner.timer = asyncio.get_running_loop().create_task(self._expire(runner))

    async def _expire(self, runner: Runner) -> None:
        while (wait := runner.expires_at - self._clock.monotonic()) > 0:
            if wait == inf:
                runner.timer = None
                return
            runner.timer_at = runner.expires_at
            await self._clock.sleep(wait)
        runner.timer = None
        if not runner.gone.done():
            self._truth.expirations += 1
            self._unload(runner)


def choose_victim(runners: Iterable[Runner]) -> Runner:
    """Rule 4: idle before busy, then the shorter keep-alive, then the name. There is at least one."""
    return min(runners, key=lambda runner: (runner.references > 0, runner.keep_alive_seconds, runner.name))


def parallel(model: ModelParameters, node: Parameters) -> int:
    """Sequences of one runner: OLLAMA_NUM_PARALLEL, 1 for embedding models and some families."""
    return 1 if model.serial else node.num_parallel


def _for_ever(seconds: float) -> float:
    """Ollama's negative durations mean for ever."""
    return inf if seconds < 0 else seconds
