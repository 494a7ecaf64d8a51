"""A virtual event loop that knows processes: every callback belongs to one, and a process can be killed or paused between any two.

A killed process runs no `finally`, a paused one not even a timer: its callbacks are held back, and run in their old order after a wake.
So a kill falls on any await, as SIGKILL does, and a woken process finds that time has jumped, as after SIGCONT.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from enum import Enum
from typing import Any
from weakref import WeakSet

from infra.lab.virtual_loop import VirtualLoop


class State(Enum):
    RUNNING = "running"
    PAUSED = "paused"
    KILLED = "killed"
    BURIED = "buried"
    """Killed, and let run again only so that its tasks can end."""


class Process:
    """What runs in its context belongs to it. `name` is that of one life: a restarted instance is another process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = State.RUNNING
        self.steps = 0
        """Callbacks run so far."""
        self.tasks: WeakSet[asyncio.Task[Any]] = WeakSet()
        self._held: list[_Callback] = []
        self._trap: tuple[int, Callable[[], None]] | None = None

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine as this process."""
        context = Context()
        context.run(_CURRENT.set, self)
        return asyncio.get_running_loop().create_task(work, context=context)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call as this process: what it schedules belongs to it."""
        context = copy_context()
        context.run(_CURRENT.set, self)
        return context.run(function, *args)

    def trap(self, steps: int, action: Callable[[], None]) -> None:
        """After so many more callbacks do this instead of going on; it belongs to no process."""
        self._trap = (self.steps + steps, action)

    def disarm(self) -> None:
        """Forget the trap."""
        self._trap = None

    def run(self, callback: _Callback) -> None:
        """Run it now, or hold it back."""
        _LAST.append(callback)
        if self._trap is not None and self.steps >= self._trap[0]:
            (_, action), self._trap = self._trap, None
            Context().run(action)
        if self.state in (State.PAUSED, State.KILLED):
            self._held.append(callback)
            return
        self.steps += 1
        callback.function(*callback.args)

    def pause(self) -> None:
        if self.state is State.RUNNING:
            self.state = State.PAUSED

    def wake(self) -> None:
        """Everything that was held back is due now."""
        if self.state is State.PAUSED:
            self.state = State.RUNNING
            self._release()

    def kill(self) -> None:
        self.state = State.KILLED

    async def bury(self) -> None:
        """End the tasks of a killed process, whatever their `finally` awaits."""
        self.state = State.BURIED
        for _ in range(_BURIAL_ROUNDS):
            left = [task for task in self.tasks if not task.done()]
            if not left:
                return
            for task in left:
                task.cancel()
            self._release()
            for _ in range(_BURIAL_TURNS):
                await asyncio.sleep(0)
        raise AssertionError(f"{self.name} does not end: {[task for task in self.tasks if not task.done()]}")

    def _release(self) -> None:
        held, self._held = self._held, []
        loop = asyncio.get_running_loop()
        for callback in held:
            if callback.handle is None or not callback.handle.cancelled():
                loop.call_soon(callback.function, *callback.args, context=callback.context)


class _Callback:
    __slots__ = ("args", "context", "function", "handle", "process")

    def __init__(self, process: Process, function: Callable[..., Any], args: tuple[Any, ...], context: Context) -> None:
        self.process, self.function, self.args, self.context = process, function, args, context
        self.handle: asyncio.Handle | None = None

    def __call__(self) -> None:
        self.process.run(self)


_LAST: deque[_Callback] = deque(maxlen=8)
"""The last callbacks, for the report of a busy loop."""


def _owners() -> list[str]:
    """Who ran lately, and what."""
    return [f"{c.process.name}: {getattr(c.function, '__self__', c.function)!r}"[:300] for c in _LAST]


_CURRENT: ContextVar[Process | None] = ContextVar("process", default=None)
_TURN_SECONDS = 1e-6
_REST_SECONDS = 1e-4
_MOST_TURNS_WITHOUT_REST = 20_000
_BURIAL_ROUNDS = 50
_BURIAL_TURNS = 8


class ProcessLoop(VirtualLoop):
    """Asks a callback's process before running it. Callbacks without a process run always."""

    def __init__(self) -> None:
        super().__init__()
        self.set_task_factory(_make_task)
        self._restless = 0

    def advance(self, seconds: float) -> None:
        """A turn of the loop takes a moment: who waits for an instant that is closer than a float can tell gets there."""
        super().advance(max(seconds, _TURN_SECONDS))
        self._restless = 0 if seconds > _REST_SECONDS else self._restless + 1
        if self._restless > _MOST_TURNS_WITHOUT_REST:
            self._restless = 0
            raise RuntimeError(f"a busy loop: {_MOST_TURNS_WITHOUT_REST} turns without a rest; the last were {_owners()}")

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:  # type: ignore[override]
        context = copy_context() if context is None else context
        process = context.get(_CURRENT)
        if process is None:
            return super().call_soon(callback, *args, context=context)
        owned = _Callback(process, callback, args, context)
        owned.handle = super().call_soon(owned, context=context)
        return owned.handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        context = copy_context() if context is None else context
        process = context.get(_CURRENT)
        if process is None:
            return super().call_at(when, callback, *args, context=context)
        owned = _Callback(process, callback, args, context)
        timer = super().call_at(when, owned, context=context)
        owned.handle = timer
        return timer


def _make_task(loop: asyncio.AbstractEventLoop, work: Any, context: Context | None = None) -> asyncio.Task[Any]:
    task = asyncio.Task(work, loop=loop, context=context) if context is not None else asyncio.Task(work, loop=loop)
    process = (context or copy_context()).get(_CURRENT)
    if process is not None:
        process.tasks.add(task)
    return task


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """Like asyncio.run, under virtual time, with processes."""
    with asyncio.Runner(loop_factory=ProcessLoop) as runner:
        return runner.run(main)
