"""The registry's topics on a broker that was just started."""

from __future__ import annotations

import asyncio

from shared.clock import SystemClock
from shared.settings import ClusterSettings
from shared.topics import Topics

CREATE_SECONDS = 30.0


def ensure_topics(servers: str, topics: Topics | None = None) -> list[str]:
    """Create those that do not exist, with the counts of the TUTTI_TOPICS settings unless given; returns the names created.

    Raises LogError kinds, ConfigurationError or TimeoutError. Blocks.
    """
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(asyncio.wait_for(_ensure(servers, topics or Topics(ClusterSettings().topics)), CREATE_SECONDS))


async def _ensure(servers: str, topics: Topics) -> list[str]:
    from shared.kafka.aio import AioLog
    from shared.kafka.provision import ensure_topics as ensure

    log = AioLog(servers=servers, clock=SystemClock())
    try:
        return await ensure(log, topics)
    finally:
        await log.close()
