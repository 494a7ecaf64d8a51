"""The meter: charged before, settled after; what a caller is told is what OpenAI's clients understand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from services.ingress.admission.bucket_store import Debit, Level
from services.ingress.admission.meter import Meter, duration, estimate
from services.ingress.problems import Refused
from services.ingress.replies.ends import Ends
from shared.access import Client, Rate, Right
from shared.clock import ManualClock
from shared.contracts.event import JobSettled
from shared.contracts.job import Job
from shared.contracts.result import Result, Status
from shared.contracts.usage import Usage
from shared.errors import StoreAway
from shared.patterns import BUILT_IN

CLIENT = Client("a", "team", right=Right.WRITE, requests=Rate(1, 10), tokens=Rate(10, 100))


def settle_event(job: str, tokens: int) -> bytes:
    usage = Usage(prompt_tokens=tokens, completion_tokens=0)
    result = Result(job=job, status=Status.SUCCEEDED, usage=usage, accepted_at=1, finished_at=2)
    return JobSettled(epoch=0, job=job, at=2.0, result=result).to_bytes()


def world() -> tuple[ManualClock, Ends, Meter]:
    clock, ends = ManualClock(0.0), Ends(10)
    return clock, ends, Meter(clock, ends, None, settle_seconds=1.0)


def told(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in headers}


async def test_what_is_left_is_told_with_every_answer() -> None:
    """Limit, what remains, until when it is full again, for requests and tokens."""
    _, _, meter = world()
    charge = await meter.charge(CLIENT, 40)
    assert told(charge.headers) == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "9",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "60",
        "x-ratelimit-reset-tokens": "4s",
    }


async def test_over_the_limit_is_429_with_exactly_when_to_come_again() -> None:
    """The limit that is hurt longest is named; waiting as told is enough."""
    clock, _, meter = world()
    await meter.charge(CLIENT, 100)
    with pytest.raises(Refused) as caught:
        await meter.charge(CLIENT, 25)
    problem = caught.value.problem
    assert (problem.status, problem.code, problem.retry_after_seconds) == (429, "rate_limit_exceeded", pytest.approx(2.5))  # type: ignore[comparison-overlap]
    assert told(problem.headers)["retry-after-ms"] == "2500"
    assert told(problem.headers)["x-ratelimit-remaining-tokens"] == "0"
    assert "tokens per minute: limit 600, left 0, requested 25" in problem.message
    clock.advance(2.5)
    await meter.charge(CLIENT, 25)


async def test_what_no_waiting_would_help_is_refused_for_good() -> None:
    """413: more than the bucket ever holds."""
    _, _, meter = world()
    with pytest.raises(Refused) as caught:
        await meter.charge(CLIENT, 101)
    assert (caught.value.problem.status, caught.value.problem.retry_after_seconds) == (413, None)


async def test_tokens_are_settled_by_what_was_used() -> None:
    """Less than estimated comes back, more is owed; a job that never was is given back whole."""
    clock, ends, meter = world()
    charge = await meter.charge(CLIENT, 60)
    meter.watch(charge, "j1")
    ends.on_settled("j1", settle_event("j1", 10))
    given_back = await meter.charge(CLIENT, 30)
    meter.correct(given_back, 0)
    differences = dict(meter._differences)
    assert differences == {"{a}:tokens": (CLIENT.tokens, -80)}
    await meter._settle(differences)
    left = told((await meter.charge(CLIENT, 0)).headers)["x-ratelimit-remaining-tokens"]
    assert left == "90"
    assert clock.monotonic() == 0
    assert len(ends) == 0


async def test_a_job_that_used_far_more_is_paid_for_in_full() -> None:
    """A hundred times what was estimated: the key waits for as long as its limit takes to give that much."""
    clock, ends, meter = world()
    charge = await meter.charge(CLIENT, 50)
    meter.watch(charge, "j1")
    ends.on_settled("j1", settle_event("j1", 5_000))
    await meter._settle(dict(meter._differences))
    assert CLIENT.tokens is not None
    clock.advance((5_000 - CLIENT.tokens.burst) / CLIENT.tokens.per_second)
    with pytest.raises(Refused):
        await meter.charge(CLIENT, 1)
    clock.advance(1 / CLIENT.tokens.per_second)
    await meter.charge(CLIENT, 1)


class Away:
    """Shared buckets that do not answer."""

    async def take(self, asks: Sequence[Debit]) -> list[Level]:
        raise StoreAway

    async def settle(self, differences: Mapping[str, tuple[Rate, float]]) -> None:
        raise StoreAway

    async def close(self) -> None: ...


async def test_without_the_shared_buckets_the_instance_counts_itself() -> None:
    """Limited still; only not together with the others."""
    meter = Meter(ManualClock(0.0), Ends(1), Away(), settle_seconds=1.0)
    for _ in range(10):
        await meter.charge(CLIENT, 0)
    with pytest.raises(Refused):
        await meter.charge(CLIENT, 0)


async def test_a_key_without_limits_pays_nothing() -> None:
    """No headers either."""
    _, ends, meter = world()
    charge = await meter.charge(Client("free"), 10**9)
    meter.watch(charge, "j")
    assert charge.headers == ()
    assert len(ends) == 0


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0ms"), (0.0121, "13ms"), (1, "1s"), (1.5, "1.5s"), (60, "1m0s"), (360, "6m0s"), (3_601.5, "1h0m1.5s")]
)
def test_durations_are_spelt_as_openai_does(seconds: float, text: str) -> None:
    """Clients parse them."""
    assert duration(seconds) == text


def test_estimates() -> None:
    """Four characters a token; the longest answer for each step; embeddings have none."""
    assert estimate(Job(prompt="x" * 400), BUILT_IN, 512) == 101 + 512
    assert estimate(Job.model_validate({"prompt": "x" * 400, "options": {"max_tokens": 5}}), BUILT_IN, 512) == 101 + 5
    assert estimate(Job(texts=("x" * 40, "x" * 40)), BUILT_IN, 512) == 21
    steps = [{"name": "a", "template": "x" * 40}, {"name": "b", "template": "x" * 80}]
    assert estimate(Job.model_validate({"prompt": "x" * 4, "pattern": "chain", "chain": steps}), BUILT_IN, 100) == 2 + 110 + 120
