"""The registry's topics on a broker that was just started."""

from __future__ import annotations

import asyncio

from shared.clock import SystemClock
from shared.kafka.port import NewTopic
from shared.settings import ClusterSettings
from shared.topics import Topics

CREATE_SECONDS = 30.0


def ensure_topics(servers: str) -> None:
    """Create those that do not exist, with the counts of the TUTTI_TOPICS settings. Raises LogError kinds or TimeoutError."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(asyncio.wait_for(_ensure(servers), CREATE_SECONDS))


async def _ensure(servers: str) -> None:
    from shared.kafka.aio import AioLog

    topics = Topics(ClusterSettings().topics)
    wanted = [NewTopic(topic.name, topic.partitions, topics.settings.replication, topics.config(topic)) for topic in topics.all()]
    log = AioLog(servers=servers, clock=SystemClock())
    try:
        admin = await log.admin()
        await admin.create_topics(wanted)
        await admin.close()
    finally:
        await log.close()
