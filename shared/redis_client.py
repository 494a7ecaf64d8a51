"""A client of Redis: a bounded pool whose every wait is bounded too. TLS: `rediss://…?ssl_ca_certs=/path/of/authorities.pem`."""

from __future__ import annotations

from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import SSLConnection
from redis.exceptions import RedisError

from shared.errors import ConfigurationError
from shared.tls import client_context


def open_redis(url: str, *, connections: int, timeout_seconds: float) -> Any:
    """Connects on first use. To be closed with its pool. `Any`: the library's own types do not tell what its calls return.

    Raises ConfigurationError of a URL that cannot be used, which may hold a password and is not shown.
    """
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
