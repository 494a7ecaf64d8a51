"""The end of tasks: whoever awaits it gets it, also where a cancellation is lost on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from infra.lab.virtual_loop import run
from shared.clock import LoopClock
from shared.tasks import ended


async def _deaf(times: int) -> None:
    """Goes on after so many cancellations."""
    for _ in range(times + 1):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            times -= 1
            if times < 0:
                raise


async def _fails() -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise OSError from None


async def _returns() -> None:
    """Has ended before."""


@pytest.mark.parametrize("work", [lambda: _deaf(0), lambda: _deaf(3), _fails, _returns], ids=["heeds", "deaf", "fails", "over"])
def test_they_have_ended_whatever_with(work: Any) -> None:
    async def main() -> None:
        tasks = [asyncio.create_task(_begun(work())) for _ in range(3)]
        await LoopClock().sleep(0)
        async with asyncio.timeout(10.0):
            await ended(*tasks)
        assert all(task.done() for task in tasks)

    run(main())


async def _begun(work: Coroutine[Any, Any, None]) -> None:
    await work


def test_nothing_to_end_is_over_at_once() -> None:
    run(ended())


def test_who_waits_may_be_cancelled_himself() -> None:
    """The tasks are told all the same."""

    async def main() -> None:
        task = asyncio.create_task(_deaf(1))
        waiting = asyncio.create_task(ended(task))
        await LoopClock().sleep(0.1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await ended(task)

    run(main())
