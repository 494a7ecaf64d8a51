"""The end of tasks that somebody else runs."""

from __future__ import annotations

import asyncio
from typing import Any

_AGAIN_SECONDS = 1.0


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
