"""The ingress's client of its Redis: a bounded pool whose every wait is bounded too."""

from __future__ import annotations

from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis


def open_redis(url: str, *, connections: int, timeout_seconds: float) -> Any:
    """Connects on first use. To be closed with its pool. `Any`: the library's own types do not tell what its calls return."""
    pool: Any = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=timeout_seconds,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
    )
    return Redis.from_pool(pool)
