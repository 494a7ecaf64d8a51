"""TopicWatch: looks every few seconds at all topics of the cluster, once for all services of a process."""

from __future__ import annotations

from collections.abc import Sequence

from shared.clock import Clock
from shared.errors import LogError
from shared.kafka.port import Admin, Log
from shared.kafka.settings import TOPIC_WATCH_SECONDS
from shared.processing.provision import differing
from shared.processing.topic_news import TopicNews
from shared.telemetry import logs, metrics
from shared.topics import Topics

log = logs.get(__name__)

CONFIGS_EVERY = 60
"""Configurations are compared at every so-manieth look: ten minutes."""


class TopicWatch:
    """Tells each service's news what is there. One request a look, whatever the number of topics."""

    def __init__(self, log_: Log, topics: Topics, clock: Clock, news: Sequence[TopicNews]) -> None:
        self._log, self._topics, self._clock, self._news = log_, topics, clock, news
        self._all = list(topics.all())
        self._looks = 0
        self._said: set[str] = set()

    async def run(self) -> None:
        """Look until cancelled. Kafka's absence says nothing about topics."""
        while True:
            admin = await self._log.admin()
            try:
                while True:
                    await self._look(admin)
                    await self._clock.sleep(TOPIC_WATCH_SECONDS)
            except LogError as error:
                log.warning("topics_not_seen", reason=error.message)
            finally:
                await admin.close()
            await self._clock.sleep(TOPIC_WATCH_SECONDS)

    async def _look(self, admin: Admin) -> None:
        there = await admin.list_topics()
        self._topics.seen({name: info.partitions for name, info in there.items()}, self._clock.monotonic())
        for news in self._news:
            news.seen(self._all, there)
        if self._looks % CONFIGS_EVERY == 0:
            await self._compare_configs(admin)
        self._looks += 1

    async def _compare_configs(self, admin: Admin) -> None:
        lines = await differing(admin, self._topics)
        metrics.TOPICS_DIFFERING.set(len(lines))
        for line in lines:
            if line not in self._said:
                log.warning("topic_differs", topic=line)
        self._said = set(lines)
