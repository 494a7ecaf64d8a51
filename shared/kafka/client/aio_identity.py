"""To which topics a consumer's positions belong. aiokafka knows topics by name only, and would go on in one that was made anew.

A fetch of a deleted topic is answered with an error, so an error is a doubt, and so is every silence in which a topic could have come and
gone: no record of a topic in doubt is given before its id was asked for again. Beside that all ids are asked for now and then, on a
connection of their own: behind a fetch the answer would wait for as long as the fetch may.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable

from aiokafka.client import AIOKafkaClient

from shared.clock import Clock
from shared.errors import LogError
from shared.kafka.client.aio_errors import in_our_words
from shared.kafka.client.aio_topics import topics_there
from shared.kafka.settings import CALL_SECONDS, TOPIC_LOOK_SECONDS

SILENCE_SECONDS = 1.0
"""Between two polls: whoever was away for longer cannot know what became of the topics. Making one anew takes at least milliseconds."""


class Identities:
    """Ids of topics as of the assignment. What differs later was made anew."""

    def __init__(self, client: AIOKafkaClient, clock: Clock) -> None:
        self._client, self._clock = client, clock
        self.ids: dict[str, str] = {}
        self.doubted: set[str] = set()
        self._latest: dict[str, str] = {}
        self._looked_at = clock.monotonic()
        self._polled_at = clock.monotonic()
        self._look: asyncio.Task[dict[str, str]] | None = None

    async def learn(self, topics: Collection[str]) -> None:
        """A new assignment: these are the topics from now on. Raises LogError."""
        found = await self._ask(topics) if topics else {}
        self.close()  # what an earlier look has asked may be older
        self.ids.update(found)
        self.doubted.difference_update(found)

    def accept(self, topics: Iterable[str]) -> None:
        """Those that were made anew are the topics from now on."""
        self.ids.update({topic: self._latest[topic] for topic in topics})

    async def settle(self, topics: Iterable[str]) -> set[str]:
        """Of the topics in doubt: ask again. Returns those that were made anew; what does not exist stays in doubt. Raises LogError."""
        asked = self.doubted.intersection(topics)
        if not asked:
            return set()
        found = await self._ask(asked)
        self.doubted.difference_update(found)
        return self._differing(found)

    def look(self, topics: Collection[str], wanted: Collection[str] = ()) -> set[str]:
        """Called at each poll: those of which an earlier look has found that they were made anew. Starts the next look when it is time.

        Of topics that are `wanted` and came into being the client is told at once; by itself it sees them within METADATA_SECONDS.
        """
        now = self._clock.monotonic()
        if now - self._polled_at > SILENCE_SECONDS:
            self.doubted.update(topics)
        self._polled_at = now
        if self._look is None:
            if now - self._looked_at >= TOPIC_LOOK_SECONDS and (topics or wanted):
                self._look = asyncio.create_task(self._ask_quietly({*topics, *wanted}))
            return set()
        if not self._look.done():
            return set()
        found, self._look, self._looked_at = self._look.result(), None, now
        if any(not self._client.cluster.partitions_for_topic(topic) for topic in found):
            self._client.force_metadata_update()
        return self._differing({topic: id_ for topic, id_ in found.items() if topic in topics})

    def polled(self) -> None:
        """A poll has ended, however long it took."""
        self._polled_at = self._clock.monotonic()

    def close(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def _differing(self, found: dict[str, str]) -> set[str]:
        self._latest.update(found)
        for topic, id_ in found.items():
            self.ids.setdefault(topic, id_)
        return {topic for topic, id_ in found.items() if self.ids[topic] != id_}

    async def _ask(self, topics: Collection[str]) -> dict[str, str]:
        with in_our_words():
            async with asyncio.timeout(CALL_SECONDS):
                return {name: info.id for name, info in (await topics_there(self._client, topics)).items()}

    async def _ask_quietly(self, topics: Collection[str]) -> dict[str, str]:
        try:
            return await self._ask(topics)
        except LogError:
            return {}  # the next look asks again
