"""Offsets never pass unfinished work, looked at when each commit is accepted; the planner's watermark never passes what recovery needs.

A planner's offset may go back: inputs and watermark of one commit belong together, so an older pair only means that more is read again.
A router's and the delay service's may not: what they have finished would be done again.

A step that was given to a node is finished once its home was told, by whomever: then a claim timeout or a lease runs.

Of records of one attempt of a step that lie in a router's partitions one is enough: the others are finished as long as it is not passed.
An odd record is finished once it is a dead letter, on every topic whose readers own its records; in job-events it is nobody's event.
"""

from __future__ import annotations

from collections.abc import Mapping

from services.planner.state.taken import unpacked
from shared.contracts import ids
from shared.contracts.event import PlannerStarted
from shared.contracts.outcome import StepClaimed, StepFailed, StepReleased, StepRouted, StepSucceeded
from shared.contracts.taken import TakenAhead
from shared.kafka.port import TopicPartition
from tests.support.cluster.history import History
from tests.support.cluster.violation import Violation
from tests.support.cluster.world import World

LAW = "offsets pass no unfinished work"
BACK = "offsets never go back"
WATERMARK = "the watermark passes nothing that recovery needs"
_NEVER_BACK = ("tutti-router", "tutti-delay")


def _covers(taken: TakenAhead, offset: int, position: int) -> bool:
    """Whether a successor that begins at `position` knows by this bitmap that the record there is done with."""
    bits = unpacked(taken.bits)
    return taken.base <= position and (offset < taken.base or bool(bits >> offset - taken.base & 1))


class Offsets:
    """Listens to commits; what it finds is in `history.violations`."""

    def __init__(self, world: World) -> None:
        self._history: History = world.history
        self._topics = world.topics
        self._seen: dict[tuple[str, TopicPartition], int] = {}
        self._passing: dict[tuple[str, TopicPartition], int] = {}
        """Newest commits, the one that is looked at too."""
        self._passed: set[str] = set()
        world.history.commits.append(self.on_commit)

    def on_commit(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        node = group.removeprefix("tutti-worker-")
        anew = node in self._history.left
        self._history.left.discard(node)
        for where, offset in offsets.items():
            before = self._seen.get((group, where))
            first = before if before is not None and not anew else (offset if group.startswith("tutti-worker") else 0)
            self._passing[group, where] = offset
            for passed in range(first, offset):
                self._check(group, where, passed)
            if before is not None and offset < before and group in _NEVER_BACK:
                self._report(BACK, f"{group} took {where.topic}/{where.partition} back from {before} to {offset}")
            self._seen[group, where] = max(offset, before or 0)
        if group == "tutti-planner":
            for where, offset in offsets.items():
                if where.topic == self._topics.job_events:
                    self._check_watermark(where.partition, offset, offsets)

    def _check(self, group: str, where: TopicPartition, offset: int) -> None:
        done, place = True, (where.topic, where.partition, offset)
        if place in self._history.gaps:
            return
        if place in self._history.odd:
            done = where.topic == self._topics.job_events
        elif group == "tutti-planner":
            done = where.topic not in self._topics.all_jobs() or self._job_done(where, offset)
        elif group == "tutti-router":
            done = self._step_done(where, offset)
        elif group == "tutti-delay":
            done = self._delay_done(where, offset)
        elif where.topic == self._topics.work("chat"):
            done = self._work_done(where, offset, group.removeprefix("tutti-worker-"))
        if not done and place not in self._history.buried:
            self._report(LAW, f"{group} has committed past {where.topic}/{where.partition}/{offset}", self._job_of(where, offset))

    def _job_of(self, where: TopicPartition, offset: int) -> str | None:
        given = self._history.given.get((where, offset))
        if given is not None and given.job is not None:
            return given.job.id
        step = self._history.steps.get((where, offset))
        return step.value.job if step is not None else None

    def _job_done(self, where: TopicPartition, offset: int) -> bool:
        given = self._history.given[where, offset]
        if (where, offset) in self._history.sent_home:
            return True
        if given.job is None:
            return given.cancelled is not None and ids.home_of(given.cancelled, self._topics.settings.home_partitions) == where.partition
        if given.job.job.id is not None and ids.home_of(given.job.id, self._topics.settings.home_partitions) != where.partition:
            return False
        # A cancel that knew that the job waits until it is due may have ended it before its record was read.
        return any(given.job.id in known for known in (self._history.accepted, self._history.delayed_jobs, self._history.settled))

    def _step_done(self, where: TopicPartition, offset: int) -> bool:
        step = self._history.steps[where, offset].value
        key = (step.id, step.attempt)
        outcomes = self._history.outcomes_of.get(key, ())
        kinds = StepRouted | StepClaimed | StepReleased | StepSucceeded | StepFailed
        if key in self._history.delayed_steps or any(isinstance(w.value, kinds) for w in outcomes):
            return True
        copies = (place for place, w in self._history.steps.items() if (w.value.id, w.value.attempt) == key)
        return any(offset >= self._passing.get(("tutti-router", where), 0) for where, offset in copies)

    def _delay_done(self, where: TopicPartition, offset: int) -> bool:
        written = self._history.delayed[where, offset]
        value = written.value.value
        onward = [w for w in self._history.delays_by_value[value] if w.at >= written.at and (w.where, w.offset) != (where, offset)]
        return bool(onward) or any(w.at >= written.at for w in self._history.forwarded[value])

    def _work_done(self, where: TopicPartition, offset: int, node: str) -> bool:
        written, _ = self._history.work[where, offset]
        outcomes = self._history.outcomes_of.get((written.value.id, written.value.attempt), ())
        kinds = StepClaimed | StepSucceeded | StepFailed | StepReleased
        told = [w for w in outcomes if isinstance(w.value, kinds) and w.value.node == node]
        ended_before = any(isinstance(w.value, StepSucceeded | StepFailed) and w.at < written.at for w in told)
        return any(w.at >= written.at for w in told) if ended_before else bool(told)

    def _check_watermark(self, home: int, offset: int, offsets: Mapping[TopicPartition, int]) -> None:
        events = self._history.events[home]
        if offset >= len(events):
            self._report(WATERMARK, f"the watermark {offset} of home {home} names no record")
            return
        named = events[offset].value
        epoch = next((w.offset for w in reversed(events[: offset + 1]) if isinstance(w.value, PlannerStarted)), None)
        if named is None or (not isinstance(named, PlannerStarted) and named.epoch != epoch):
            self._report(WATERMARK, f"the watermark {offset} of home {home} names a record that does not count")
        for (number, what), kept in self._history.kept.items():
            if number == home and kept.offset < offset:
                self._report(WATERMARK, f"the watermark {offset} of home {home} passes the last {what}")
        for (number, source), taken in self._history.taken.items():
            reached = offsets.get(TopicPartition(source.partition("@")[0], home), 0)
            if number == home and taken.offset < offset and taken.value.base + unpacked(taken.value.bits).bit_length() > reached:
                self._report(WATERMARK, f"the watermark {offset} of home {home} passes the bitmap of {source} at {taken.offset}")
        for job, accepted in self._history.accepted.items():
            if accepted.where.partition != home or accepted.offset >= offset or job in self._passed:
                continue
            if self._history.snapshots.get(job, -1) >= offset:
                continue
            self._check_passed(job, home, offset, offsets)

    def _check_passed(self, job: str, home: int, offset: int, offsets: Mapping[TopicPartition, int]) -> None:
        accepted = self._history.accepted[job].value
        named = accepted.source.rsplit("/", 2)[0]
        source, taken = TopicPartition(named.partition("@")[0], home), self._history.taken.get((home, named))
        if job not in self._history.settled:
            self._report(WATERMARK, f"the watermark {offset} of home {home} passes job {job}, which has not ended", job)
        elif job not in self._history.results:
            self._report(WATERMARK, f"the watermark {offset} of home {home} passes job {job}, whose result is not published", job)
        elif taken is not None and taken.offset >= offset and _covers(taken.value, accepted.source_offset, offsets.get(source, 0)):
            pass
        elif source.topic in self._topics.all_jobs() and offsets.get(source, 0) <= accepted.source_offset:
            self._report(WATERMARK, f"the watermark {offset} of home {home} passes job {job}, whose record would be read again", job)
        self._passed.add(job)

    def _report(self, law: str, message: str, job: str | None = None) -> None:
        self._history.violations.append(Violation(law, message, job))
