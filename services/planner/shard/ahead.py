"""Ahead: what one home reads and takes of its job topics ahead of the committed positions, and what of it is done with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain

from services.planner.history.gate import IdGate
from services.planner.intake.canonical import Unmet
from services.planner.intake.job_queue import AtHome, JobQueue
from services.planner.intake.open_transactions import TopicIds
from services.planner.settings import PlannerSettings
from services.planner.state.taken import NOTHING, Offsets
from shared.contracts.base import CLASSES, PriorityClass
from shared.kafka.port import Record
from shared.processing.owed import OwedPositions

CANCELS = 500
"""Cancels of one class that are taken from behind an unread backlog while their jobs are not known. The others come in order."""
MOST_ENDED = 20_000
"""Jobs that have ended behind a position that is held back: beyond that no new ones are taken of its class."""


def job_queues(
    options: PlannerSettings, topics: Iterable[str], inputs: Mapping[str, int], done: Mapping[str, Offsets], at_home: AtHome
) -> dict[str, JobQueue]:
    """One a topic. `inputs`: where each begins; `done`: with which records behind that all is done."""
    bound, most_bytes, reach = options.queue_records, options.queue_bytes, options.look_ahead_records
    return {
        topic: JobQueue(bound, inputs.get(topic), most_bytes=most_bytes, reach=reach, done=done.get(topic, NOTHING), at_home=at_home)
        for topic in topics
    }


class Ahead:
    """Of one book. `positions`: the next offsets of what is acknowledged, by topic, as they may be committed."""

    def __init__(
        self, jobs: Mapping[str, JobQueue], ids: TopicIds, positions: Callable[[], Mapping[str, int]], owed: OwedPositions, gate: IdGate
    ) -> None:
        self._jobs, self._ids, self._positions, self._owed, self._gate = jobs, ids, positions, owed, gate
        self.unmet = Unmet()
        self.under_way: list[Record] = []
        """Of the round under way, whose append is not acknowledged."""

    def standing(self, source_topic: str) -> Offsets | None:
        """With which records of the topic (as sources name it) nothing is left to do, now; None for another one than is read here."""
        topic, _, topic_id = source_topic.partition("@")
        base = self._positions().get(topic)
        if topic not in self._jobs or base is None or not topic_id or self._ids.taken.get(topic) != topic_id:
            return None
        taken = self._jobs[topic].done_since(base)
        held = chain(self.under_way, self._gate.held(), self.unmet.held())
        left = {*self._owed.offsets(topic), *(record.offset for record in held if record.topic == topic)}
        return Offsets(base, taken.bits & ~sum(1 << offset - base for offset in left if offset >= base))

    def shut(self, class_of: Mapping[str, PriorityClass], ended: int) -> frozenset[PriorityClass]:
        """Classes whose position is held back so far that too many of their jobs have ended behind it; all, if it has another reason."""
        if ended < MOST_ENDED:
            return frozenset()
        reached, far = self._positions(), MOST_ENDED // len(CLASSES)
        taken = {topic: (queue.next_offset or 0) - len(queue) for topic, queue in self._jobs.items()}
        return frozenset(c for topic, c in class_of.items() if taken[topic] - reached.get(topic, 0) >= far) or frozenset(CLASSES)

    # For the second reader

    @property
    def backlog(self) -> bool:
        return any(queue.backlog for queue in self._jobs.values())

    def looks_from(self) -> Iterator[tuple[str, int]]:
        """(topic, offset): where to go on, in a topic that is the one that was taken."""
        for topic, queue in self._jobs.items():
            start = queue.looks_from
            if start is not None and self._ids.taken.get(topic) is not None:
                yield topic, start

    def look(self, topic: str, topic_id: str, start: int, records: Sequence[Record], reached: int) -> bool:
        """Keep what is wanted of it; returns whether there was something. A topic of that name that was made anew is not looked at."""
        if self._ids.taken.get(topic) != topic_id:
            return False
        cancels = max(0, CANCELS - self.unmet.ahead(topic))
        return self._jobs[topic].look_ahead(start, records, reached, cancels=cancels)

    def is_ahead(self, record: Record) -> bool:
        """Whether it lies behind the window of its topic."""
        return record.offset >= (self._jobs[record.topic].next_offset or 0)

    def position(self, topic: str) -> int:
        """Everything before is taken."""
        return self._jobs[topic].position or 0
