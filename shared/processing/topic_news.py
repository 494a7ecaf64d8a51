"""TopicNews: what became of the topics of a service while it ran, for /readyz and metrics.

What lasts (a topic that is missing, a wrong count) is a reason until it is over. What happened (a topic was made anew, records were deleted
before they were read) is a reason for a while, since whoever looks a minute later should still learn of it; the metric keeps it.

TopicWatch: looks every few seconds at all topics of the cluster, once for all services of a process.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from enum import StrEnum

from shared.clock import Clock
from shared.errors import LogError
from shared.kafka.port import Admin, Log, MissedRecords, TopicInfo
from shared.kafka.settings import TOPIC_WATCH_SECONDS
from shared.processing.provision import differing
from shared.telemetry import logs, metrics
from shared.topics import Topic, Topics

log = logs.get(__name__)

KEPT_SECONDS = 120.0
KEPT = 50
"""So many of what happened are kept at most; a reader of many partitions may miss records of all of them at once."""


class _Change(StrEnum):
    """What may become of a topic; a metric label."""

    MISSING = "missing"
    MADE_ANEW = "made_anew"
    GROWN = "grown"
    DELETED_UNREAD = "deleted_unread"
    WENT_BACK = "went_back"


class TopicNews:
    """Of one service. Each of `told` is called with the name of each topic that was made anew.

    `takes_requests`: clients are routed by this service's readiness. Then only what it cannot work with makes it not ready; of a service
    that reads logs nobody is kept away by that, and whoever watches over it sees it.
    """

    def __init__(self, service: str, clock: Clock, told: Sequence[Callable[[str], None]] = (), *, takes_requests: bool = False) -> None:
        self._service, self._clock, self._told, self._takes_requests = service, clock, told, takes_requests
        self._known: dict[str, TopicInfo] = {}
        self._missing: tuple[str, ...] = ()
        self._wrong: tuple[str, ...] = ()
        self._happened: dict[tuple[_Change, object], tuple[float, str]] = {}

    def seen(self, topics: Collection[Topic], there: Mapping[str, TopicInfo]) -> None:
        """The cluster was looked at: `topics` are the registry's, `there` is what exists."""
        ours = [topic for topic in topics if self._service in (*topic.family.written_by, *topic.family.read_by)]
        self._missing = tuple(
            f"the topic {topic.name} does not exist (`tutti topics create` makes it)" for topic in ours if topic.name not in there
        )
        metrics.TOPICS_MISSING.labels(self._service).set(len(self._missing))
        self._wrong = tuple(reason for topic in ours if topic.name in there and (reason := wrong_count(topic, there[topic.name])))
        for topic in ours:
            self._compare(topic, self._known.get(topic.name), there.get(topic.name))
        self._known.update({topic.name: there[topic.name] for topic in ours if topic.name in there})

    def _compare(self, topic: Topic, before: TopicInfo | None, now: TopicInfo | None) -> None:
        if before is None:
            return
        if now is None:
            self._happens(_Change.MISSING, topic.name, f"the topic {topic.name} was deleted")
        elif now.id != before.id:
            self._happens(_Change.MADE_ANEW, topic.name, f"the topic {topic.name} was deleted and made anew; what lay in it unread is lost")
            for tell in self._told:
                tell(topic.name)
        elif now.partitions > before.partitions:
            use = "" if topic.family.count in ("steps", "work", "replies") else f", of which {topic.partitions} are used"
            self._happens(_Change.GROWN, topic.name, f"the topic {topic.name} has {now.partitions} partitions now{use}")

    def missed(self, found: Sequence[MissedRecords]) -> None:
        """Readers came too late."""
        for partition, expected, offset in found:
            name = f"{partition.topic}-{partition.partition}"
            if offset > expected:
                metrics.RECORDS_DELETED_UNREAD.labels(self._service).inc(offset - expected)
                text = f"records {expected} to {offset - 1} of {name} were deleted before they were read"
                self._happens(_Change.DELETED_UNREAD, partition, text)
            else:
                self._happens(_Change.WENT_BACK, partition, f"{name} ends before offset {expected}, which had been read: its log went back")

    def _happens(self, change: _Change, what: object, text: str) -> None:
        if change is _Change.MISSING and (change, what) in self._happened:
            return
        metrics.TOPIC_CHANGES.labels(self._service, change.value).inc()
        log.error("topic_changed", change=change.value, reason=text)
        self._happened.pop((change, what), None)
        self._happened[change, what] = (self._clock.monotonic(), text)
        while len(self._happened) > KEPT:
            del self._happened[next(iter(self._happened))]

    def readiness(self) -> tuple[bool, tuple[str, ...]]:
        """(ready as far as topics go, reasons): what is no hindrance is told too."""
        oldest = self._clock.monotonic() - KEPT_SECONDS
        self._happened = {key: (at, text) for key, (at, text) in self._happened.items() if at >= oldest}
        happened = tuple(text for (change, _), (_, text) in self._happened.items() if change is not _Change.MISSING)
        hindered = self._wrong if self._takes_requests else (*self._wrong, *self._missing, *happened)
        return not hindered, (*self._wrong, *self._missing, *happened)


def wrong_count(topic: Topic, found: TopicInfo) -> str | None:
    """Why the cluster cannot work with this count and what to do, or None. A grown topic is wrong only where numbers are homes."""
    if found.partitions == topic.partitions or (found.partitions > topic.partitions and topic.family.count != "home"):
        return None
    said = f"{topic.name} has {found.partitions} partitions, not {topic.partitions}"
    if found.partitions < topic.partitions:
        return f"{said}: delete it and let `tutti topics create` make it, or start anew under another TUTTI_TOPICS__PREFIX"
    return (
        f"{said}: the number of homes is fixed when a cluster is made, and records in the others are not read; "
        "move what lies there and make the topic anew, or drain this cluster and begin another under a new TUTTI_TOPICS__PREFIX"
    )


CONFIGS_EVERY = 60
"""Configurations are compared at every so-manieth look: ten minutes."""


class TopicWatch:
    """Tells each service's news what is there. One request a look, whatever the number of topics."""

    def __init__(self, log_: Log, topics: Topics, clock: Clock, news: Sequence[TopicNews]) -> None:
        self._log, self._topics, self._clock, self._news = log_, topics, clock, news
        self._all = topics.all()
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
