"""Bodies as they arrive: each within its bytes and its time, all together within theirs, and none counted for longer than it is there."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterator
from typing import Any

import pytest

from infra.lab import virtual_loop
from services.ingress.http.bodies import BodyBudget
from services.ingress.http.exchange import CallHeaders, Receive, call_headers
from services.ingress.problems import ClientGone, Refused
from shared.clock import LoopClock
from shared.errors import Overloaded, TooLarge
from shared.service.known_problems import BODY_SECONDS

LIMIT = 1_000


def calling(**headers: str) -> CallHeaders:
    return call_headers({"headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]})


def pieces(*parts: bytes, every: float = 0.0, ends: bool = True) -> Receive:
    """The parts one by one, then, unless the body `ends`, the client is gone."""
    left: Iterator[bytes] = iter(parts)
    count = 0

    async def receive() -> dict[str, Any]:
        nonlocal count
        if every:
            await LoopClock().sleep(every)
        part, count = next(left, None), count + 1
        if part is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part, "more_body": not ends or count < len(parts)}

    return receive


async def read(bodies: BodyBudget, receive: Receive, call: CallHeaders | None = None, tenant: str = "t") -> bytes:
    async with bodies.read(receive, call or calling(), tenant, LIMIT) as body:
        assert bodies.size == len(body)
    assert bodies.size == 0
    return body


@pytest.mark.parametrize("parts", [[b"whole"], [b"in", b" ", b"pieces"], [b""], [b"", b"", b"late"], [b"x"] * LIMIT])
async def test_a_body_is_read_whole(parts: list[bytes]) -> None:
    """However it is cut; it counts while it is used."""
    assert await read(BodyBudget(10_000), pieces(*parts)) == b"".join(parts)


@pytest.mark.parametrize(
    ("receive", "headers", "error"),
    [
        (pieces(b"x" * (LIMIT + 1)), {}, TooLarge),
        (pieces(*[b"x" * 100] * 100, ends=False), {}, TooLarge),
        (pieces(*[b"x" * 100] * 100, ends=False), {"content_length": "5"}, TooLarge),
        (pieces(), {"content_length": str(LIMIT + 1)}, TooLarge),
        (pieces(b"half", ends=False), {}, ClientGone),
        (pieces(gzip.compress(b"x" * 10_000)), {"content_encoding": "gzip"}, TooLarge),
        (pieces(b"no gzip"), {"content_encoding": "gzip"}, Refused),
    ],
)
async def test_what_is_refused_counts_no_longer(receive: Receive, headers: dict[str, str], error: type[Exception]) -> None:
    """Too large, by what is announced, comes, or is unpacked; broken off."""
    bodies = BodyBudget(10_000)
    with pytest.raises(error):
        await read(bodies, receive, calling(**headers))
    assert bodies.size == 0


def test_a_body_that_comes_slowly_is_given_up() -> None:
    """408, however steadily its bytes drip."""

    async def main() -> None:
        bodies = BodyBudget(10_000)
        with pytest.raises(Refused) as refused:
            await read(bodies, pieces(*[b"x"] * 500, every=1.0))
        assert refused.value.problem.status == 408
        assert asyncio.get_running_loop().time() <= BODY_SECONDS + 1
        assert bodies.size == 0

    virtual_loop.run(main())


async def test_what_is_unpacked_counts_as_it_is() -> None:
    """A packed body is as large as what comes out of it."""
    packed = gzip.compress(b"x" * 900)
    assert len(await read(BodyBudget(10_000), pieces(packed), calling(content_encoding="gzip"))) == 900


async def test_all_bodies_together_are_bounded_and_leave_some_to_others() -> None:
    """429 for whom there are no bytes left; another tenant still has some; what is free again is used again."""
    bodies = BodyBudget(1_700)
    async with bodies.read(pieces(b"x" * 800), calling(), "greedy", LIMIT):
        async with bodies.read(pieces(b"x" * 800), calling(), "greedy", LIMIT):
            with pytest.raises(Overloaded):
                await read(bodies, pieces(b"x" * 50), tenant="greedy")
            with pytest.raises(Overloaded):
                await read(bodies, pieces(b"x" * 101), tenant="other")
            async with bodies.read(pieces(b"x" * 50), calling(), "other", LIMIT):
                assert bodies.size == 1_650
        with pytest.raises(Overloaded):
            async with bodies.read(pieces(b"x" * 500, b"x" * 500), calling(), "greedy", LIMIT):
                raise AssertionError("never whole")
        assert bodies.size == 800
