"""The cluster's topics, created and checked from the registry, before any service consumes."""

from __future__ import annotations

from collections.abc import Mapping

from shared.clock import Clock
from shared.errors import ConfigurationError, LogError
from shared.kafka.port import Admin, Log, NewTopic, TopicInfo
from shared.telemetry import logs
from shared.topics import Topics

log = logs.get(__name__)

LOOK_SECONDS = 0.2
LOOK_CAP_SECONDS = 2.0
GRACE_SECONDS = 5.0
"""What is missing may be about to be made, all at once: so long a service waits for it before it begins with what there is."""


async def ensure_topics(kafka: Log, topics: Topics) -> list[str]:
    """Create every missing topic with its configuration; returns the created names. Existing topics are left as they are; the log says
    what is configured otherwise than the registry wants.

    Raises ConfigurationError when the home topics' partition counts differ or the cluster refuses a topic, LogUnavailable when it
    does not answer.
    """
    admin = await kafka.admin()
    try:
        check_counts(topics, await admin.list_topics())
        created = await admin.create_topics(new_topics(topics))
        if created:
            log.info("topics_created", count=len(created))
        for difference in await differing(admin, topics):
            log.warning("topic_differs", topic=difference)
        return created
    finally:
        await admin.close()


async def first_look(kafka: Log, topics: Topics, clock: Clock) -> None:
    """Learn which topics there are (`topics.seen`). Waits for the cluster however long it is away, until cancelled; for topics that are
    missing only for a moment: a service begins without them, says so (`topic_news`), and goes on when they are there.

    Raises ConfigurationError when the home topics' partition counts differ.
    """
    admin = await kafka.admin()
    try:
        pause, answered_at = LOOK_SECONDS, None
        while True:
            try:
                there = await admin.list_topics()
            except LogError as error:
                log.warning("topics_not_seen", reason=error.message)
            else:
                now = clock.monotonic()
                answered_at = now if answered_at is None else answered_at
                check_counts(topics, there)
                topics.seen({name: info.partitions for name, info in there.items()}, now)
                if not topics.missing or now - answered_at >= GRACE_SECONDS:
                    break
            await clock.sleep(pause)
            pause = min(pause * 2, LOOK_CAP_SECONDS)
    finally:
        await admin.close()
    if topics.missing:
        log.warning("topics_missing", topics=sorted(topics.missing)[:5], count=len(topics.missing))


def new_topics(topics: Topics) -> list[NewTopic]:
    """Every topic of the registry, as Kafka is asked for it."""
    return [NewTopic(topic.name, topic.partitions, topics.settings.replication, topics.config(topic)) for topic in topics.all()]


async def differing(admin: Admin, topics: Topics) -> list[str]:
    """A line for each existing topic that is configured otherwise than the registry wants, and what to do. Raises LogError."""
    wanted = {topic.name: topics.config(topic) for topic in topics.all()}
    lines = []
    for name, found in (await admin.topic_configs(list(wanted))).items():
        wrong = [f"{key} is {found.get(key)}, not {value}" for key, value in wanted[name].items() if found.get(key) != value]
        if wrong:
            lines.append(f"{name}: {', '.join(wrong)} (kafka-configs.sh --alter changes it)")
    return lines


def check_counts(topics: Topics, existing: Mapping[str, TopicInfo]) -> None:
    """Home topics need one partition count, the settings' too: planners own the same number of all of them, and results of jobs in flight
    go to those numbers. Other topics may have more partitions than the settings say, never fewer.

    Raises ConfigurationError naming what differs.
    """
    wrong = []
    for topic in topics.all():
        found = existing.get(topic.name)
        if found is None:
            continue
        home = topic.family.count == "home"
        if (home and found.partitions != topic.partitions) or found.partitions < topic.partitions:
            wrong.append(f"{topic.name} has {found.partitions} partitions, not {topic.partitions}")
    if wrong:
        raise ConfigurationError("; ".join(wrong))
