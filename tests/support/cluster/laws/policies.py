"""Policies: what a tenant does not want to leave is in nothing that leaves: of inputs no model reads it, no caller and no reader of results
sees it at all. What models say to one another on the way to an answer is none.

Its own words lie where it put them: in its job's record, in history, and with the critics.
"""

from __future__ import annotations

from collections.abc import Iterator

from shared.kafka.port import TopicPartition
from tests.support.cluster import settings
from tests.support.cluster.violation import Violation
from tests.support.cluster.world import World

LAW = "what a policy forbids does not leave"
_STRICT = b"never mind"
_NEXT_CHUNK = b'},{"job":'
"""A record of `replies` may hold chunks of several tenants, for one ingress: each is looked at alone."""


def check(world: World) -> Iterator[Violation]:
    """Over every record on the way to a model or a caller."""
    topics = world.topics
    jobs = [f'"{job}"'.encode() for job, given in world.history.accepted.items() if given.value.request.tenant == "shy"]
    to_models = (topics.work("chat"), *topics.all_steps())
    for topic in (topic for topic in topics.all() if topic.name in (*to_models, topics.replies, topics.results)):
        marks = [settings.MAIL.encode()] if topic.name in to_models else [settings.MAIL.encode(), settings.TOLD.encode()]
        for number in range(topic.partitions):
            for record in world.log.existing(TopicPartition(topic.name, number)).records:
                value, place = getattr(record, "value", None) or b"", f"{topic.name}/{number}/{record.offset}"
                for part in value.split(_NEXT_CHUNK):
                    if any(mark in part for mark in marks) and any(job in part for job in jobs):
                        yield Violation(LAW, f"{place} holds what tenant shy forbids")
                if _STRICT in value and b'"tenant":"strict"' in value and topic.name in to_models:
                    yield Violation(LAW, f"{place} goes to a model although its input is blocked")
