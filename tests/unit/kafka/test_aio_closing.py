"""Giving up a client never ends its owner: not by aiokafka's own errors, not by its cancelled tasks."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from infra.lab import virtual_loop
from shared.kafka.client import aio_closing
from shared.kafka.client.aio_closing import give_up, unless_cancelled


class Client:
    """Closes as it is told to."""

    def __init__(self, error: BaseException | None) -> None:
        self._error = error

    async def close(self) -> None:
        if self._error is not None:
            raise self._error


@pytest.mark.parametrize(
    "error", [None, RuntimeError("unable to perform operation on <TCPTransport closed=True>"), OSError(), asyncio.CancelledError()]
)
def test_whatever_closing_raises_the_owner_goes_on(error: BaseException | None) -> None:
    """uvloop's RuntimeError on a closed transport ended a planner once, in an outage."""

    async def stops() -> None:
        """At once."""

    asyncio.run(give_up(stops, Client(error), "client"))  # type: ignore[arg-type]


def test_a_cancellation_of_ours_is_ours() -> None:
    """The owner that is cancelled while it closes stays cancelled."""

    entered = asyncio.Event()

    async def never() -> None:
        entered.set()
        await asyncio.Event().wait()

    async def scenario() -> None:
        task = asyncio.create_task(unless_cancelled(never()))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())


def test_who_is_cancelled_while_he_closes_knows_it_and_the_closing_ends() -> None:
    """A client that awaits a task of its own, which takes the cancellation for its own, hides it from whoever closes: not from us."""

    async def scenario() -> None:
        entered, over, client = asyncio.Event(), asyncio.Event(), Client(None)

        async def its_own() -> None:
            entered.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                """Taken for its own."""

        async def stop() -> None:
            task = asyncio.create_task(its_own())
            asyncio.get_running_loop().call_later(0.05, task.cancel)
            await task
            over.set()

        owner = asyncio.create_task(give_up(stop, client, "client"))  # type: ignore[arg-type]
        await entered.wait()
        owner.cancel()
        with pytest.raises(asyncio.CancelledError):
            await owner
        assert not over.is_set()
        await over.wait()

    asyncio.run(scenario())


def test_what_does_not_stop_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the bound, though the first cancellations get lost in it; its client is closed all the same, and cut off no later."""
    monkeypatch.setattr(aio_closing, "STOP_SECONDS", 0.05)
    said: list[str] = []

    async def deaf(name: str) -> None:
        for _ in range(2):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            said.append(name)
        await asyncio.Event().wait()

    class Closes:
        async def close(self) -> None:
            await deaf("client")

    async def scenario() -> None:
        async with asyncio.timeout(20.0):
            await give_up(lambda: deaf("what uses it"), Closes(), "client")  # type: ignore[arg-type]

    virtual_loop.run(scenario())
    assert said == ["what uses it"] * 2 + ["client"] * 2
