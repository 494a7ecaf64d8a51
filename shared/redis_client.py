"""RedisStore: what everything that is kept in Redis stands on: a bounded pool whose every wait is bounded too, and one word for all that
goes wrong. TLS: `rediss://…?ssl_ca_certs=/path/of/authorities.pem`.

The library is imported with the first store: a service without one starts without it (decision 0068).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from shared.errors import ConfigurationError, StoreAway
from shared.tls import client_context


class RedisStore:
    """Base of each. `redis`: `Any`, since the library's own types do not tell what its calls return."""

    def __init__(self, url: str, *, connections: int, timeout_seconds: float) -> None:
        """`timeout_seconds`: of each exchange. Raises ConfigurationError."""
        self.redis = _opened(url, connections=connections, timeout_seconds=timeout_seconds)

    @asynccontextmanager
    async def answering(self, seconds: float | None = None) -> AsyncIterator[None]:
        """Whatever goes wrong, an answer of another shape too, is StoreAway; so is what takes longer altogether. Its words are not
        Redis's: those may quote what it holds.
        """
        from redis.exceptions import RedisError

        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            raise StoreAway("Redis has not answered in time") from None
        except (RedisError, OSError) as error:
            raise StoreAway(f"Redis does not do what it is asked for ({type(error).__name__})") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StoreAway(f"what Redis answers is no answer ({type(error).__name__})") from error

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
