"""Submit: a job goes to `jobs.<class>`, a cancel to `outcomes`, each at the job's home partition."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from services.ingress.admission.idempotency import may_come_again
from services.ingress.admission.limits import check_inline_size
from services.ingress.homes import HomeBouts
from services.ingress.ids import is_generated, new_job_id
from shared.clock import Clock
from shared.contracts import ids
from shared.contracts.base import PriorityClass
from shared.contracts.delayed import DelayedJob
from shared.contracts.headers import CORRELATION_ID, MADE_BY, REQUEST_DIGEST, envelope, reply_headers
from shared.contracts.ids import Maker
from shared.contracts.job import Job, ReplyTo
from shared.contracts.outcome import CancelRequested, StreamPosition
from shared.errors import Overloaded
from shared.kafka.port import Headers, Message
from shared.processing.lane import Fate
from shared.processing.outbox import Outbox
from shared.telemetry import tracing
from shared.topics import Topics

_MADE_BY_INGRESS, _MADE_BY_KEY = (MADE_BY, Maker.INGRESS.value.encode()), (MADE_BY, Maker.KEY.value.encode())


class NewJob(NamedTuple):
    """A job and what is written of it: its record's value and type."""

    job: Job
    value: bytes
    type: str = "job"


class Submitter:
    """Writes through the outbox. A job is written once, since a second record might be a second job; only a cancel is sent again."""

    def __init__(self, outbox: Outbox, topics: Topics, clock: Clock, random: Random) -> None:
        self._outbox = outbox
        self._clock = clock
        self._random = random
        self._replies = topics.replies
        self._reply_headers: Headers = ()
        self._outcomes = topics.outcomes
        self._home_partitions = topics.settings.home_partitions
        self._bouts = HomeBouts(self._home_partitions, random)
        self._topic_of = {c: topics.jobs(c) for c in PriorityClass}

    def answer_at(self, partition: int) -> None:
        """This instance's own partition of `replies`, which must be read before anything is sent."""
        address = ReplyTo(topic=self._replies, partition=partition, multiplex=True)
        self._reply_headers = tuple(header for header in reply_headers(address) if header[0] != CORRELATION_ID)

    def new_id(self) -> str:
        """A fresh job id, whose hash is the home of the current bout."""
        home = self._bouts.next(self._clock.monotonic())
        return new_job_id(self._clock.wall(), self._random, home, self._home_partitions)

    def home_of(self, job: str) -> int:
        """The partition that the job is written to, and stays on."""
        return ids.home_of(job, self._home_partitions)

    def submit(
        self,
        job: str,
        record: NewJob,
        priority_class: PriorityClass,
        *,
        correlation: bytes | None,
        trace: str | None,
        fate: Fate,
        digest: str | None = None,
    ) -> None:
        """Queue the job; with `correlation` its chunks and final come to this instance. Raises TooLarge, Overloaded.

        `digest`: of the request, for a job whose id may come again.
        """
        check_inline_size(len(record.value))
        headers = envelope(record.type, tracing.child(trace, self._random))
        if correlation is not None:
            headers += ((CORRELATION_ID, correlation), *self._reply_headers)
        if ids.is_reserved(job):
            # No caller may give such an id, so it was made here; a planner takes it only from who says so.
            headers += (_MADE_BY_KEY if may_come_again(job) else _MADE_BY_INGRESS,)
        if digest is not None:
            headers += ((REQUEST_DIGEST, digest.encode()),)
        self._outbox.offer(Message(self._topic_of[priority_class], record.value, job.encode(), self.home_of(job), headers), fate)

    def cancel(self, job: str, home: int, reason: str) -> bool:
        """Queue a cancel without waiting; returns whether there was room for it."""
        try:
            self._outbox.offer(self._cancel(job, home, reason), again=True)
        except Overloaded:
            return False
        return True

    def report(self, position: StreamPosition, home: int) -> bool:
        """Queue what the caller of a broken stream has seen; returns whether there was room for it."""
        message = Message(self._outcomes, position.to_bytes(), position.job.encode(), home, envelope(position.type))
        try:
            self._outbox.offer(message)
        except Overloaded:
            return False
        return True

    def withdraw(self, job: str, home: int) -> bool:
        """After a failed write whose fate is unknown: cancel, so that nothing runs for nobody.

        Only for ids made here: a caller who chose the id may be submitting it again this very moment.
        """
        return is_generated(job) and self.cancel(job, home, "the caller was told that the job could not be queued")

    async def cancel_and_wait(self, job: str, home: int, reason: str, waits: DelayedJob | None = None) -> None:
        """Write a cancel; returns when it is acknowledged. `waits`: of a delayed job. Raises LogError, Overloaded."""
        await self._outbox.send(self._cancel(job, home, reason, waits))

    def _cancel(self, job: str, home: int, reason: str, waits: DelayedJob | None = None) -> Message:
        cancel = CancelRequested(job=job, reason=reason, waits=waits)
        return Message(self._outcomes, cancel.to_bytes(), job.encode(), home, envelope("cancel"))
