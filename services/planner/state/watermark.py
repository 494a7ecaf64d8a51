"""Watermark: the offset of `job-events` from which a successor replays. Pure.

At or before the place of everything kept, and the first event of every job that is out but whose record lies at or after the input offset
committed together with it and is in no bitmap of taken records; with nothing of that kind, the last acknowledged own event. So it always
names a valid record.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from services.planner.job.out import OutJob
from services.planner.state.book import Book

NO_IDS: Mapping[str, str | None] = MappingProxyType({})

SCHEDULED = "schedule"
"""Source of a job that no input record brought: a run of a schedule."""


def source_topic(topic: str, topic_id: str | None) -> str:
    """How a source names the topic that a record lay in: with its id, since a topic that was made anew has the same offsets again."""
    return topic if topic_id is None else f"{topic}@{topic_id}"


def passable(job: OutJob, book: Book, inputs: Mapping[str, int], topic_ids: Mapping[str, str | None] = NO_IDS) -> bool:
    """Whether recovery needs nothing of this job once `inputs` (topic → next offset) are committed.

    A record in a topic that was made anew since can never be read again.
    """
    topic, _, topic_id = job.source_topic.partition("@")
    gone = bool(topic_id) and topic_ids.get(topic) not in (None, topic_id)
    read = topic == SCHEDULED or gone or job.source_offset < inputs.get(topic, 0)
    return read or book.taken.covers(job.source_topic, job.source_offset)


def watermark(book: Book, inputs: Mapping[str, int], last_own: int, topic_ids: Mapping[str, str | None] = NO_IDS) -> tuple[int, list[str]]:
    """(offset, jobs that may be forgotten when the commit succeeds). `last_own`: offset of the last acknowledged own event."""
    forgettable: list[str] = []
    book.taken.let_go({source_topic(topic, topic_ids.get(topic)): position for topic, position in inputs.items()})
    lowest = book.kept.lowest
    offset = last_own if lowest is None else min(lowest, last_own)
    for job in book.out.values():
        if passable(job, book, inputs, topic_ids):
            forgettable.append(job.id)
        else:
            offset = min(offset, job.first_offset)
    return offset, forgettable
