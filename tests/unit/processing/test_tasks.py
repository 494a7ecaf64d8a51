"""Tasks: whoever awaits their end gets it, also where a cancellation is lost on the way; a failure that nobody awaits is told."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from infra.lab.virtual_loop import run
from shared.clock import LoopClock
from shared.tasks import beside, ended, in_time
from shared.telemetry.logs import Logger


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


def test_a_call_that_takes_too_long_has_ended() -> None:
    """However deaf it is; one that is in time gives what it gives, and raises what it raises."""

    async def gives(seconds: float) -> float:
        await LoopClock().sleep(seconds)
        return 1 / (seconds - 0.5)

    async def main() -> None:
        before = asyncio.all_tasks()
        assert await in_time(gives(1.0), 2.0) == 2.0
        with pytest.raises(ZeroDivisionError):
            await in_time(gives(0.5), 2.0)
        for slow in (gives(3.0), _deaf(3)):
            with pytest.raises(TimeoutError):
                await in_time(slow, 2.0)
        assert asyncio.all_tasks() == before

    run(main())


def test_what_runs_beside_and_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is ended is not."""
    told: list[str] = []
    monkeypatch.setattr(Logger, "failure", lambda _, event, error, **fields: told.append(f"{event} {fields['what']} {error!r}"))

    async def fails() -> None:
        raise OSError("gone")

    async def main() -> None:
        await ended(beside(_deaf(0), "deaf"))
        task = beside(fails(), "fails")
        await LoopClock().sleep(0.1)
        assert told == ["task_failed fails OSError('gone')"]
        await ended(task)

    run(main())
