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
REPORT_SECONDS = 10.0


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


async def wait_for_topics(kafka: Log, topics: Topics, clock: Clock) -> None:
    """Return when every topic of the registry exists, however long that takes, until cancelled; says now and then what is missing.

    Raises ConfigurationError when the home topics' partition counts differ.
    """
    admin = await kafka.admin()
    try:
        await _wait(admin, topics, clock)
    finally:
        await admin.close()


async def _wait(admin: Admin, topics: Topics, clock: Clock) -> None:
    pause = LOOK_SECONDS
    said_at = float("-inf")
    while True:
        try:
            existing = await admin.list_topics()
        except LogError as error:
            missing, reason = ["?"], error.message
        else:
            check_counts(topics, existing)
            missing, reason = [topic.name for topic in topics.all() if topic.name not in existing], ""
        if not missing:
            return
        if clock.monotonic() - said_at >= REPORT_SECONDS:
            log.warning("waiting_for_topics", missing=missing[:5], count=len(missing), reason=reason)
            said_at = clock.monotonic()
        await clock.sleep(pause)
        pause = min(pause * 2, LOOK_CAP_SECONDS)


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
