"""What is kept in Redis: only what Redis does, or answers, is a store that is away; a fault of ours is none."""

from __future__ import annotations

import ast
import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from redis.exceptions import ConnectionError as Lost

import shared.redis_client
from infra.lab import virtual_loop
from services.cache.port import CacheEntry, Purge
from services.cache.redis_store import RedisCache
from services.cache.settings import CacheSettings
from services.ingress.status.store import StatusStore
from shared.clock import SystemClock
from shared.contracts.chat import Answer
from shared.contracts.usage import Usage
from shared.errors import StoreAway
from shared.redis_client import MANY, NUMBER, RedisStore

ROOT = Path(shared.redis_client.__file__).parents[1]
URL = "redis://127.0.0.1:1/0"


async def answers(value: Any) -> Any:
    if isinstance(value, Exception):
        raise value
    return value


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        (Lost("secret"), NUMBER),
        (OSError("secret"), NUMBER),
        (ValueError("the library reads: secret"), NUMBER),
        (b"secret", NUMBER),
        (None, MANY),
        ([b"secret"], TypeAdapter(list[int])),
    ],
)
async def test_what_goes_wrong_with_redis_is_one_word_that_quotes_nothing(answer: Any, form: TypeAdapter[Any]) -> None:
    with pytest.raises(StoreAway) as raised:
        await RedisStore(URL, connections=1, timeout_seconds=1.0).asked(answers(answer), form)
    assert "secret" not in raised.value.message


async def test_it_is_bounded_in_time_and_cancelling_it_is_no_store_that_is_away() -> None:
    store = RedisStore(URL, connections=1, timeout_seconds=1.0)
    with pytest.raises(StoreAway, match="in time"):
        await store.asked(SystemClock().sleep(60), NUMBER, 0.01)
    asking = asyncio.create_task(store.asked(SystemClock().sleep(60), NUMBER))
    await SystemClock().sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


class _Slow:
    """A pipeline of Redis's that takes its time."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: self

    async def execute(self) -> Any:
        await SystemClock().sleep(0.7)
        return [[None], (1, 0)]


def test_a_call_of_several_exchanges_is_bounded_as_one() -> None:
    """A planner waits behind it."""

    entry = CacheEntry(key="a" * 64, tenant="t", model="m", job="j", ttl=1.0, answer=Answer(text="x"), usage=Usage(calls=1))

    async def keeps(seconds: float) -> None:
        cache = RedisCache(CacheSettings(store=URL, store_timeout_seconds=seconds), "")
        cache.redis = _Slow()
        await cache.keep([entry])

    virtual_loop.run(keeps(1.5))
    with pytest.raises(StoreAway, match="in time"):
        virtual_loop.run(keeps(1.0))


class _Answering:
    """Redis, as far as a purge and a look-up ask it: one entry, of which nobody can make anything."""

    async def scan(self, *_: Any, **__: Any) -> Any:
        return 0, [b"k"]

    async def mget(self, *_: Any) -> Any:
        return [b"{}"]

    async def unlink(self, *_: Any) -> int:
        return 1


async def test_a_fault_of_ours_is_not_taken_for_a_store_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it raises: it must be seen, and not be a miss for ever."""
    cache, status = RedisCache(CacheSettings(store=URL), ""), StatusStore(URL, prefix="", ttl_seconds=9, connections=1, timeout_seconds=1.0)
    cache.redis = status.redis = _Answering()
    assert await cache.purge(Purge(tenant="t"), dry=False) == 0
    for fault in (ValueError, TypeError, KeyError, AttributeError):

        def broken(*_: Any, fault: type[Exception] = fault, **__: Any) -> Any:
            raise fault("ours")

        monkeypatch.setattr("services.cache.port.CacheEntry.model_validate_json", broken)
        monkeypatch.setattr("services.ingress.status.status.JobStatus.model_validate_json", broken)
        with pytest.raises(fault, match="ours"):
            await cache.purge(Purge(tenant="t"), dry=False)
        with pytest.raises(fault, match="ours"):
            await status.load("j")


def _waits(node: ast.AST) -> str:
    """What a piece of code waits for; of most nothing."""
    match node:
        case ast.Await(value=found) | ast.AsyncFor(iter=found) | ast.comprehension(is_async=1, iter=found):
            return ast.unparse(found)
        case ast.AsyncWith(items=items):
            return ", ".join(map(ast.unparse, items))
        case _:
            return ""


def test_every_store_asks_redis_that_way() -> None:
    """No call of the library's is awaited anywhere else."""
    stores = [path for path in (ROOT / "services").rglob("*.py") if "shared.redis_client import" in path.read_text()]
    assert len(stores) >= 4
    waits = [(path.name, _waits(node)) for path in stores for node in ast.walk(ast.parse(path.read_text()))]
    apart = [each for each in waits if not each[1].startswith(("self.asked(", "self.remove(", "self.purged("))]
    assert [each for each in apart if any(word in each[1] for word in ("redis", "execute", "_script"))] == []
