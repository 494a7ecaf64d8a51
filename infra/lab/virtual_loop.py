"""An event loop whose time is virtual: when nothing is ready to run, time jumps to the next timer. A test of hours takes milliseconds."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from functools import wraps
from typing import Any, TypeVar

T = TypeVar("T")


class _JumpingSelector(selectors.SelectSelector):
    """Never waits, nor looks: it tells the loop how far to jump instead."""

    def __init__(self) -> None:
        super().__init__()
        self.loop: VirtualLoop | None = None

    def select(self, timeout: float | None = None) -> Any:
        if self.loop is not None:
            if timeout is None:
                raise RuntimeError("deadlock: nothing is scheduled and nothing will ever happen")
            self.loop.advance(timeout)
        return []


_MOST_TURNS = 5_000
"""Turns in one moment, after which time goes on by itself."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time starts at 0. Threads and sockets are not for this loop."""

    def __init__(self) -> None:
        self._virtual_now = 0.0
        self._still = 0
        selector = _JumpingSelector()
        super().__init__(selector)
        self._clock_resolution = 1e-6  # asyncio's own is finer than a float after some months: a due timer would never count as due
        selector.loop = self

    def time(self) -> float:
        return self._virtual_now

    def advance(self, seconds: float) -> None:
        """Move time forward; called by the selector. A timer that counts as due a moment early must not be set anew for ever."""
        self._still = 0 if seconds > self._clock_resolution else self._still + 1
        self._virtual_now += max(0.0, seconds) if self._still < _MOST_TURNS else self._clock_resolution


def run(main: Coroutine[Any, Any, T]) -> T:
    """Like asyncio.run, under virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def within(opened: Callable[[], AbstractAsyncContextManager[T]]) -> Callable[[Callable[[T], Awaitable[None]]], Callable[[], None]]:
    """A decorator: the async test gets what `opened` gives, in a loop of its own under virtual time."""

    def decorate(test: Callable[[T], Awaitable[None]]) -> Callable[[], None]:
        async def body() -> None:
            async with opened() as world:
                await test(world)

        @wraps(test)
        def wrapper() -> None:
            run(body())

        # pytest would ask for the arguments of the test behind it.
        del wrapper.__wrapped__
        return wrapper

    return decorate
