"""The number of calls at once is found, stays within its bounds, and a steady machine is hardly disturbed by the search."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any

import pytest

from services.worker.attempt import Attempt
from services.worker.backends.base import Completion, Delta, ModelCall
from services.worker.concurrency import MUTE_CALLS, Concurrency
from shared.clock import LoopClock
from shared.contracts.base import ClaimId
from shared.contracts.chat import Answer, Operation
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.outcome import StepFailed, StepSucceeded
from shared.contracts.usage import Timings, Usage
from tests.unit.worker.scripted_backend import ScriptedBackend
from tests.unit.worker.world import World, play, step

Curve = Callable[[int], float]
"""How many run to how much all of them write together, as a part of the best."""


def peak(best: int) -> Curve:
    """Rises to `best` with falling returns, then falls by a twelfth for each further one."""
    return lambda number: (number / best) ** 0.6 if number <= best else max(0.1, 1 - (number - best) / 12)


def played(curve: Curve, calls: int, *, least: int = 1, most: int = 16, seed: int = 0) -> tuple[list[int], list[float]]:
    """A machine that always has work: the limit at each call's end, and what was written a second while that call was the next to end."""
    random, policy, now, area = Random(seed), Concurrency(least, most), 0.0, 0.0
    running: list[tuple[float, int, float, float, float]] = []  # tokens left, tokens, began, area then, its own pace
    limits, rates = list[int](), list[float]()
    while len(limits) < calls:
        while len(running) < policy.limit:
            tokens = random.randint(60, 300)
            running.append((float(tokens), tokens, now, area, random.uniform(0.95, 1.05)))
        each = 100.0 * curve(len(running)) / len(running)
        step = min(left / (each * pace) for left, *_, pace in running)
        rates.append(100.0 * curve(len(running)))
        now, area = now + step, area + step * len(running)
        running = [(left - step * each * pace, tokens, began, then, pace) for left, tokens, began, then, pace in running]
        ended = min(running)
        running.remove(ended)
        _, tokens, began, then, _ = ended
        policy.succeeded("m", tokens, now - began, (area - then) / (now - began))
        limits.append(policy.limit)
        assert least <= policy.limit <= most
    return limits, rates


@pytest.mark.parametrize("best", [1, 3, 8, 16])
@pytest.mark.parametrize("seed", range(4))
def test_the_best_number_is_found_and_kept(best: int, seed: int) -> None:
    """Within one, within so many calls; from then on what is written is within a few percent of the best there is."""
    limits, rates = played(peak(best), 3_000, seed=seed)
    found = limits[1_000:]
    near = sum(abs(limit - best) <= 1 for limit in found) / len(found)
    assert near > 0.95, (best, near)
    assert sum(rates[1_000:]) / len(rates[1_000:]) > 96.0


def test_it_stays_within_its_bounds() -> None:
    """Whatever is better outside."""
    assert set(played(peak(1), 500, least=3, most=5)[0][300:]) <= {3, 4}
    assert set(played(peak(16), 500, least=3, most=5)[0][300:]) <= {4, 5}
    assert set(played(peak(8), 100, least=4, most=4)[0]) == {4}


def test_failures_halve_it_once_for_those_that_began_together() -> None:
    policy = Concurrency(1, 16)
    policy._base = policy.limit = 12
    for now in (0.0, 1.0, 2.0, 11.0):
        policy.failed(now)
    assert policy.limit == 3
    for now in range(20, 100, 10):
        policy.failed(now)
    assert policy.limit == 1


def ended(policy: Concurrency, operation: Operation, kind: FailureKind | None = None, now: float = 0.0, **done: Any) -> int:
    told = {"job": "j", "step": "s" * 32, "attempt": 1, "claim": "c", "node": "n"}
    of = {"failure": Failure(kind=kind, message="m")} if kind else {"answer": Answer(text="a"), **done}
    given = step(operation=operation) if operation is not Operation.EMBED else step(operation=operation, texts=("t",), messages=())
    outcome = (StepFailed if kind else StepSucceeded).model_validate(told | of)
    return policy.ended(Attempt(given, ClaimId("c"), None, 0.0, model="m"), outcome, float(policy.limit), now)


SHORT = {"usage": Usage(calls=1, completion_tokens=3), "timings": Timings(decode_ms=30)}


@pytest.mark.parametrize(
    ("operation", "done"), [(Operation.EMBED, {}), (Operation.TOOL, {}), (Operation.CHAT, SHORT), (Operation.CHAT, {})]
)
def test_calls_that_tell_no_speed_let_it_grow(operation: Operation, done: dict[str, Any]) -> None:
    """From the least to the most, and again after a failure; no further, not while slots are free, and not beside calls that tell it."""
    policy = Concurrency(1, 5)
    for _ in range(2):
        for _ in range(MUTE_CALLS * (1 + 2 + 3 + 4)):
            ended(policy, operation, **done)
        assert policy.limit == 5
        assert ended(policy, Operation.CHAT, FailureKind.OVERLOADED) == 2
        policy._halved_at, policy.limit, policy._base = float("-inf"), 1, 1
    policy = Concurrency(2, 5)
    for _ in range(500):
        policy.succeeded("m", 0, 0.0, 1.0)
    assert policy.limit == 2
    limits, _ = played(peak(1), 500)
    assert set(limits[300:]) <= {1, 2}


@pytest.mark.parametrize("kind", list(FailureKind))
def test_nothing_that_a_request_brings_about_halves_it(kind: FailureKind) -> None:
    """Only an endpoint that has too much to do; what fails behind a tool says nothing of it."""
    halves = kind in (FailureKind.OVERLOADED, FailureKind.MODEL_TIMEOUT, FailureKind.NODE_UNREACHABLE)
    for operation in (Operation.CHAT, Operation.EMBED, Operation.TOOL):
        policy = Concurrency(1, 16)
        policy._base = policy.limit = 12
        assert ended(policy, operation, kind) == (6 if halves and operation is not Operation.TOOL else 12)


def test_a_machine_that_has_changed_is_followed() -> None:
    """From one best number to another, on what is learned anew."""
    policy = Concurrency(1, 8)
    for best in (6, 2):
        for _ in range(3_000):
            number = policy.limit
            policy.succeeded("m", 100, number / peak(best)(number), float(number))
        assert abs(policy._base - best) <= 1


def test_a_worker_runs_as_many_as_are_best() -> None:
    """A whole worker whose endpoint writes most with two at once, of four slots; without a lower bound it uses them all."""

    class Thrashing(ScriptedBackend):
        async def _play(self, call: ModelCall) -> AsyncIterator[Delta | Completion]:
            began = self.loop_time()
            for _ in range(10):
                await LoopClock().sleep(0.02 * max(1.0, self.running / 2) ** 2)
                yield Delta("a")
            timings = Timings(decode_ms=1e3 * (self.loop_time() - began))
            yield Completion(Answer(text="a", model=call.model), Usage(calls=1, prompt_tokens=5, completion_tokens=10), timings)

        @staticmethod
        def loop_time() -> float:
            return LoopClock().monotonic()

    async def scenario(world: World) -> None:
        for settings, expected in (({}, {4}), ({"slots_least": 1}, {1, 2, 3})):
            backend, first = Thrashing(), 1_000 * len(expected)
            async with world.worker(backend, slots=4, **settings) as worker:
                world.route(*(step(first + number) for number in range(300)))
                await world.until(lambda: len(backend.calls) >= 200, 600)  # noqa: B023 - it is asked at once
                backend.most_running = 0
                await world.until(lambda: len(backend.calls) == 300, 600)  # noqa: B023
                assert backend.most_running in expected
                assert worker.service.attempts.slots.limit in expected
                await world.until(lambda: backend.running == 0)  # noqa: B023
                await worker.end()

    play(scenario)
