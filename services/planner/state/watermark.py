"""Watermark: the offset of `job-events` from which a successor replays. Pure.

At or before the first event of every job that is live, or whose result is not acknowledged, or whose job record lies at or after the
input offset committed together with it, and every event that is carried; with nothing of that kind, the last acknowledged own event. So
it always names a valid record.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING

from services.planner.job.ended import EndedJob

if TYPE_CHECKING:
    from services.planner.job.live import LiveJob
    from services.planner.state.book import Book

UNACKNOWLEDGED = -1
"""First offset of what is folded ahead of its append: it will lie behind every acknowledged event."""

NO_IDS: Mapping[str, str | None] = MappingProxyType({})

SCHEDULED = "schedule"
"""Source of a job that no input record brought: a run of a schedule."""


def source_topic(topic: str, topic_id: str | None) -> str:
    """How a source names the topic that a record lay in: with its id, since a topic that was made anew has the same offsets again."""
    return topic if topic_id is None else f"{topic}@{topic_id}"


def passable(job: LiveJob | EndedJob, inputs: Mapping[str, int], topic_ids: Mapping[str, str | None] = NO_IDS) -> bool:
    """Whether recovery needs nothing of this job once `inputs` (topic → next offset) are committed.

    A record in a topic that was made anew since can never be read again.
    """
    if not isinstance(job, EndedJob):
        return False
    topic, _, topic_id = job.source_topic.partition("@")
    gone = bool(topic_id) and topic_ids.get(topic) not in (None, topic_id)
    return topic == SCHEDULED or gone or job.source_offset < inputs.get(topic, 0)


def watermark(book: Book, inputs: Mapping[str, int], last_own: int, topic_ids: Mapping[str, str | None] = NO_IDS) -> tuple[int, list[str]]:
    """(offset, jobs that may be forgotten when the commit succeeds). `last_own`: offset of the last acknowledged own event."""
    forgettable: list[str] = []
    offset = book.funds.oldest(last_own)
    held: Iterator[LiveJob | EndedJob] = chain(book.jobs.values(), book.ended.values())
    for job in held:
        if passable(job, inputs, topic_ids):
            forgettable.append(job.id)
        elif job.first_offset != UNACKNOWLEDGED:
            offset = min(offset, job.first_offset)
    for carried in (book.cancels.lowest, book.runs.lowest, book.carried_ids.lowest):
        if carried is not None:
            offset = min(offset, carried)
    return offset, forgettable
