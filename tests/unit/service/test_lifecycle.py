"""The life of a service: how it ends decides the exit code, and nothing ends it silently."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import cast

import httpx
import pytest

from infra.lab.virtual_loop import run
from shared.clock import LoopClock
from shared.errors import ConfigurationError, ConsumerGaveUp
from shared.kafka.port import Log
from shared.service import Readiness
from shared.service.lifecycle import EXIT_ANEW, EXIT_FAILED, EXIT_OK, EXIT_SETTINGS, Life
from shared.service.process import KEPT_SECONDS, UNHEARD, word_of

Course = Callable[[asyncio.Event], Awaitable[object]]


class Scripted:
    """A service that does what the test says."""

    name = "scripted"

    def __init__(self, course: Course) -> None:
        self._course = course

    async def run(self, stop: asyncio.Event) -> None:
        await self._course(stop)

    def readiness(self) -> Readiness:
        return Readiness(ready=True)

    def asgi(self) -> None:
        return None


async def waits(stop: asyncio.Event) -> None:
    await stop.wait()


async def hangs(stop: asyncio.Event) -> None:
    await LoopClock().sleep(1e6)


async def drains(stop: asyncio.Event) -> None:
    await stop.wait()
    await LoopClock().sleep(9.0)


async def crashes(stop: asyncio.Event) -> None:
    raise RuntimeError("boom")


async def is_misconfigured(stop: asyncio.Event) -> None:
    raise ConfigurationError("partition counts differ")


async def has_a_stuck_consumer(stop: asyncio.Event) -> None:
    async def polls() -> None:
        raise ConsumerGaveUp

    async with asyncio.TaskGroup() as group:
        group.create_task(polls())
        await stop.wait()


async def leaves(stop: asyncio.Event) -> None:
    return


async def _live(course: Course) -> tuple[int, float, bool]:
    """Run until the service ends by itself or one second has passed, then drain; the exit code, the time it took, and who ended it."""
    ended = asyncio.Event()
    life = Life(Scripted(course), grace_seconds=10.0, on_end=ended.set)
    loop = asyncio.get_running_loop()
    async with life.lifespan():
        try:
            await asyncio.wait_for(ended.wait(), 1.0)
            by_itself = True
        except TimeoutError:
            by_itself = False
            assert life.alive()
    assert not life.alive()
    return life.exit_code, loop.time(), by_itself


@pytest.mark.parametrize(
    ("course", "code", "by_itself"),
    [
        (waits, EXIT_OK, False),
        (drains, EXIT_OK, False),
        (hangs, EXIT_FAILED, False),
        (crashes, EXIT_FAILED, True),
        (leaves, EXIT_FAILED, True),
        (is_misconfigured, EXIT_SETTINGS, True),
        (has_a_stuck_consumer, EXIT_ANEW, True),
    ],
)
def test_the_exit_code_tells_how_it_ended(course: Course, code: int, by_itself: bool) -> None:
    """In order 0; crashed, left unasked or cut off after the grace period 1; wrong settings 78."""
    assert run(_live(course))[::2] == (code, by_itself)


def test_a_drain_takes_no_longer_than_it_needs() -> None:
    """The grace period is a bound, not a wait."""
    assert run(_live(waits))[1] == pytest.approx(1.0)
    assert run(_live(drains))[1] == pytest.approx(10.0)


def test_a_service_that_hangs_is_cut_off_after_the_grace_period() -> None:
    """And not before."""
    assert run(_live(hangs))[1] == pytest.approx(11.0)


def test_readiness_says_when_it_is_not_the_services_word() -> None:
    """Before the start and while stopping the shell answers."""

    async def scenario() -> None:
        life = Life(Scripted(waits), 1.0, lambda: None)
        assert life.readiness() == Readiness(ready=False, reasons=("not running",))
        async with life.lifespan():
            assert life.readiness().ready
            life.stop.set()
            assert life.readiness() == Readiness(ready=False, reasons=("stopping",))

    run(scenario())


@pytest.mark.parametrize("takes_requests", [False, True])
def test_what_the_brokers_say_counts(takes_requests: bool) -> None:
    """Who is refused is not ready. Who hears no acknowledgement is not, but for the ingress: led nobody, it would hear nothing for good."""
    log = SimpleNamespace(trouble=None, unheard=False)
    word = word_of(lambda: (True, ("a topic is missing",)), cast("Log", log), takes_requests=takes_requests)
    assert word() == (True, ("a topic is missing",))
    log.unheard = True
    assert word() == (takes_requests, (UNHEARD, "a topic is missing"))
    log.trouble, log.unheard = "the password is wrong", False
    assert word() == (False, ("the password is wrong", "a topic is missing"))


def test_clients_hang_up_first() -> None:
    """A server that does it at the same time meets their next request. *Trace:* both keep idle connections for 5 s; a caller that asks
    again after 5 s finds his connection reset.
    """
    assert (httpx.Limits().keepalive_expiry or 0) < 90 < KEPT_SECONDS
