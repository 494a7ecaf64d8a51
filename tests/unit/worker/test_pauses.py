"""Retry-After: how long an endpoint does not want to be asked is a matter of its node. It offers nothing until then, and says so."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from services.worker.backends.base import Completion, Delta, ModelCall, ModelCallFailed
from services.worker.backends.http import retry_after
from services.worker.health import LONGEST_PAUSE_SECONDS
from shared.contracts.failure import FailureKind
from shared.contracts.outcome import StepFailed, StepReleased, StepSucceeded
from tests.unit.worker.scripted_backend import ScriptedBackend
from tests.unit.worker.world import World, play, step


class Refusing(ScriptedBackend):
    """Refuses the first call, with a wait in seconds or without."""

    def __init__(self, kind: FailureKind, seconds: float | None) -> None:
        super().__init__()
        self._failure = ModelCallFailed(kind, "later", retry_after_seconds=seconds)

    async def call(self, call: ModelCall) -> AsyncIterator[Delta | Completion]:
        if not self.calls:
            self.calls.append(call)
            raise self._failure
        async for piece in super().call(call):
            yield piece


async def refused(world: World) -> None:
    """The first step meets the refusal; routers go on asking."""
    world.presence("r", backlog=5)
    world.route(step(1))
    await world.until(lambda: bool(world.outcomes(StepFailed)))


async def later(world: World, seconds: float) -> None:
    for _ in range(int(seconds)):
        world.presence("r", backlog=5)
        await world.clock.sleep(1.0)


@pytest.mark.parametrize("kind", [FailureKind.OVERLOADED, FailureKind.MODEL_ERROR])
def test_a_node_offers_nothing_for_as_long_as_its_endpoint_asks(kind: FailureKind) -> None:
    """Its record and its readiness say it; what comes all the same is given back uncounted; afterwards it works again."""

    async def scenario(world: World) -> None:
        async with world.worker(Refusing(kind, 30.0)) as running:
            await refused(world)
            await later(world, 20)
            assert not world.credits()[-1].offers
            assert "asks not to be called" in " ".join(running.service.readiness().reasons)
            assert 0 < world.nodes()[-1].pause_seconds <= 30.0
            world.route(step(2))
            await world.until(lambda: bool(world.outcomes(StepReleased)))
            await later(world, 12)
            assert world.credits()[-1].offers
            assert running.service.readiness().ready
            assert world.nodes()[-1].pause_seconds == 0.0
            world.route(step(3))
            await world.until(lambda: [done.job for done in world.outcomes(StepSucceeded)] == ["j3"])

    play(scenario)


def test_a_pause_is_bounded_and_never_shortened() -> None:
    """A spent day's quota may be raised meanwhile; a later, shorter wait of another call changes nothing."""

    async def scenario(world: World) -> None:
        async with world.worker(Refusing(FailureKind.OVERLOADED, 86_400.0)) as running:
            await refused(world)
            health = running.service.attempts.health
            assert LONGEST_PAUSE_SECONDS - 5.0 < health.pause_seconds <= LONGEST_PAUSE_SECONDS
            health.pause(1.0)
            assert health.pause_seconds > 1.0

    play(scenario)


def test_a_full_endpoint_that_says_nothing_is_left_alone_shortly() -> None:
    """A second; and a failure of another kind without a wait pauses nothing."""

    async def scenario(world: World) -> None:
        async with world.worker(Refusing(FailureKind.OVERLOADED, None)) as running:
            await refused(world)
            assert 0 < running.service.attempts.health.pause_seconds <= 1.0
        async with world.worker(Refusing(FailureKind.MODEL_ERROR, None), node="other", process="other") as running:
            assert running.service.attempts.health.pause_seconds == 0.0

    play(scenario)


DATE = "Wed, 21 Oct 2015 07:28:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "77"}, 77.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "86400", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2015 07:29:30 GMT", "date": DATE}, 90.0),
        ({"retry-after": DATE, "date": "Wed, 21 Oct 2015 08:00:00 GMT"}, 0.0),
        ({"retry-after": DATE}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": "NaN"}, None),
        ({"retry-after": "٣"}, None),
    ],
)
def test_every_form_of_the_header_is_a_duration_or_nothing(headers: dict[str, str], seconds: float | None) -> None:
    """A date is read beside the endpoint's own date: the clock here has no part in it."""
    assert retry_after(headers) == seconds
