"""RedisStore: what everything that is kept in Redis stands on: a bounded pool whose every wait is bounded too, and one word for all that
goes wrong. TLS: `rediss://…?ssl_ca_certs=/path/of/authorities.pem`.

The library is imported with the first store: a service without one starts without it (decision 0068).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from shared.errors import ConfigurationError, StoreAway
from shared.tls import client_context

T = TypeVar("T")
ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)
"""Of an answer that nobody reads."""
MANY: TypeAdapter[list[Any]] = TypeAdapter(list[Any])
NUMBER = TypeAdapter(int)
SCANNED = TypeAdapter(tuple[int, list[bytes]])
_NONSENSE = "what Redis answers is no answer"


def formed(answer: Any, form: TypeAdapter[T]) -> T:
    """A part of an answer. Raises StoreAway."""
    try:
        return form.validate_python(answer)
    except ValidationError:
        raise StoreAway(_NONSENSE) from None


def exactly(found: list[T], count: int) -> list[T]:
    """One for each that was asked for. Raises StoreAway."""
    if len(found) != count:
        raise StoreAway(_NONSENSE)
    return found


class RedisStore:
    """Base of each. `redis`: `Any`, since the library's own types do not tell what its calls return."""

    def __init__(self, url: str, *, connections: int, timeout_seconds: float) -> None:
        """`timeout_seconds`: of each exchange. Raises ConfigurationError."""
        self.redis = _opened(url, connections=connections, timeout_seconds=timeout_seconds)

    async def asked(self, call: Awaitable[Any], form: TypeAdapter[T], seconds: float | None = None) -> T:
        """What Redis answers to a call of the library's, in this form. Whatever goes wrong, an answer of another form too, is StoreAway;
        so is what takes longer altogether. Its words are not Redis's: those may quote what it holds.

        Nothing of ours runs here, so that no fault of ours is taken for a store that is away.
        """
        from redis.exceptions import RedisError

        try:
            async with self.within(seconds):
                answer = await call
        except (RedisError, OSError) as error:
            raise StoreAway(f"Redis does not do what it is asked for ({type(error).__name__})") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:  # the library reads an answer that is none
            raise StoreAway(_NONSENSE) from error
        return formed(answer, form)

    @asynccontextmanager
    async def within(self, seconds: float | None) -> AsyncIterator[None]:
        """Several exchanges, of which each has its own bound, are all together to take no longer. Raises StoreAway."""
        try:
            async with asyncio.timeout(seconds) as bound:
                yield
        except TimeoutError:
            if not bound.expired():
                raise
            raise StoreAway("Redis has not answered in time") from None

    async def close(self) -> None:
        """With all connections."""
        await self.redis.aclose()
        await self.redis.connection_pool.disconnect()


def _opened(url: str, *, connections: int, timeout_seconds: float) -> Any:
    """Connects on first use.

    Raises ConfigurationError of a URL that cannot be used, which may hold a password and is not shown.
    """
    from redis.asyncio import BlockingConnectionPool, Redis
    from redis.asyncio.connection import SSLConnection
    from redis.exceptions import RedisError

    try:
        pool: Any = BlockingConnectionPool.from_url(
            url,
            max_connections=connections,
            timeout=timeout_seconds,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
        )
        pool.make_connection()
    except (ValueError, TypeError, RedisError):
        raise ConfigurationError("the address of Redis cannot be used; it is one as redis://host:6379/0 or rediss://host:6379/0") from None
    if pool.connection_class is SSLConnection:
        client_context(pool.connection_kwargs.get("ssl_ca_certs") or "")
    return Redis.from_pool(pool)
