"""Tasks that nobody awaits before their end, and their end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from shared.telemetry import logs

T = TypeVar("T")

log = logs.get(__name__)

_AGAIN_SECONDS = 1.0


def beside(running: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
    """Runs until it is cancelled (`ended`). Should it fail, the log says so at once."""

    def told(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.failure("task_failed", error, what=what)

    task = asyncio.create_task(running)
    task.add_done_callback(told)
    return task


async def in_time(call: Coroutine[Any, Any, T], seconds: float) -> T:
    """What it gives. Raises TimeoutError when it takes longer: then it has ended, as `wait_for` cannot promise of aiokafka's calls."""
    task = asyncio.create_task(call)
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        await ended(task)
    if task.cancelled():
        raise TimeoutError
    return task.result()


async def ended(*tasks: asyncio.Task[Any]) -> None:
    """Cancel these; return when they have ended, whatever with.

    A cancellation may get lost in a library, and the task goes on: then it is cancelled again. *Trace:* Python 3.11's `wait_for` drops one
    that comes with the answer, and who awaits a task that takes it for its own never hears of it. A home that was given away went on so,
    its planner waited for its end inside a rebalance, and was thrown out of the group for good.
    """
    left = list(tasks)
    while left:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=_AGAIN_SECONDS)
        left = [task for task in left if not task.done()]
    for task in tasks:
        if not task.cancelled():
            task.exception()  # asked for, so that nobody complains that it was not
