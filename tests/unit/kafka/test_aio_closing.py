"""Giving up a client never ends its owner: not by aiokafka's own errors, not by its cancelled tasks."""

from __future__ import annotations

import asyncio

import pytest

from shared.kafka.client.aio_closing import close_client, unless_cancelled


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
    asyncio.run(close_client(Client(error)))  # type: ignore[arg-type]


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
