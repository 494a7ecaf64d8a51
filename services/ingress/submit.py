"""Submit: a job goes to `jobs.<class>`, a cancel and a decision on a review to `outcomes`, each at the job's home partition.

Job ids: `j_` + ULID (github.com/ulid/spec): 48 bits of milliseconds, 80 bits of randomness, Crockford's base 32.

HomeBouts: which home a new job gets. A bout of jobs goes to one home, then the next bout to another.

Jobs that arrive together then travel together: one partition's batch instead of a few records on each, at every hop (the idea of Kafka's
sticky partitioner, KIP-480). Homes are used evenly over any longer while, because a bout is short in time and in jobs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random
from typing import NamedTuple

from services.ingress.admission.idempotency import may_come_again
from services.ingress.http.encodings import check_inline_size
from shared.clock import Clock
from shared.contracts import ids
from shared.contracts.base import PriorityClass
from shared.contracts.batch import BatchCancelled, OfBatch
from shared.contracts.conversation import ConversationDropped, ConversationSet
from shared.contracts.delayed import DelayedJob
from shared.contracts.headers import CORRELATION_ID, KEY_NAME, MADE_BY, REPLY_READS_EVENTS, REQUEST_DIGEST, envelope, reply_headers
from shared.contracts.ids import Maker
from shared.contracts.job import Job, ReplyTo
from shared.contracts.outcome import CancelRequested, StreamPosition
from shared.contracts.review import ReviewGiven
from shared.errors import Overloaded
from shared.kafka.port import Headers, Message
from shared.murmur import Spelling, place
from shared.processing.lane import Fate
from shared.processing.outbox import Outbox
from shared.telemetry import tracing
from shared.topics import Topics

BOUT_SECONDS = 0.05
"""About two rounds of a busy planner."""
BOUT_JOBS = 64


class HomeBouts:
    """`next` gives the home of the next new job. Pure but for the injected order of homes."""

    def __init__(self, homes: int, random: Random) -> None:
        self._homes, self._random = homes, random
        self._order: list[int] = []
        self._home = 0
        self._left = 0
        self._until = 0.0

    def next(self, now: float) -> int:
        """The home of a job that arrives at `now` (monotonic seconds)."""
        if self._left == 0 or now >= self._until:
            if not self._order:
                # A new order each time round: several ingresses do not walk in step.
                self._order = self._random.sample(range(self._homes), self._homes)
            self._home, self._left, self._until = self._order.pop(), BOUT_JOBS, now + BOUT_SECONDS
        self._left -= 1
        return self._home


_CROCKFORD = Spelling("0123456789ABCDEFGHJKMNPQRSTVWXYZ")
_GENERATED = re.compile(r"j_[0-7][0-9A-HJKMNP-TV-Z]{25}")


def new_job_id(wall_seconds: float, random: Random, home: int = 0, homes: int = 1) -> str:
    """Sorts by time, down to the millisecond. `wall_seconds`: since the Unix epoch. Its last four characters are chosen so that it has
    this home among so many.
    """
    number = (int(wall_seconds * 1000) & 0xFFFF_FFFF_FFFF) << 70 | random.getrandbits(70)
    return _CROCKFORD.spell("j_", number, home, homes)


def is_generated(job: str) -> bool:
    """Whether an ingress made this id, so that its home is the hash of the id."""
    return _GENERATED.fullmatch(job) is not None


_READS_EVENTS = ((REPLY_READS_EVENTS, b"1"),)
_MADE_BY_INGRESS, _MADE_BY_KEY = (MADE_BY, Maker.INGRESS.value.encode()), (MADE_BY, Maker.KEY.value.encode())


class NewJob(NamedTuple):
    """A job and what is written of it: its record's value and type."""

    job: Job
    value: bytes
    type: str = "job"
    key: str | None = None
    """Name of the API key that it came with."""


class Submitter:
    """Writes through the outbox. A job is written once, since a second record might be a second job; only a cancel is sent again."""

    def __init__(self, outbox: Outbox, topics: Topics, clock: Clock, random: Random, *, established: Callable[[int], bool]) -> None:
        """`established`: whether ends are told from the events of this home; of others a final is asked for."""
        self._established = established
        self._outbox = outbox
        self._clock = clock
        self._random = random
        self._replies = topics.replies
        self._reply_headers: Headers = ()
        self._outcomes = topics.outcomes
        self.homes = self._home_partitions = topics.settings.home_partitions
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
        """Queue the job; with `correlation` its chunks and its end come to this instance. Raises TooLarge, Overloaded.

        `digest`: of the request, for a job whose id may come again.
        """
        check_inline_size(len(record.value))
        home = self.home_of(job)
        headers = envelope(record.type, trace or tracing.new(self._random))
        if correlation is not None:
            headers += ((CORRELATION_ID, correlation), *self._reply_headers)
            headers += _READS_EVENTS if self._established(home) else ()
        if ids.is_reserved(job):
            # No caller may give such an id, so it was made here; a planner takes it only from who says so.
            headers += (_MADE_BY_KEY if may_come_again(job) else _MADE_BY_INGRESS,)
        if digest is not None:
            headers += ((REQUEST_DIGEST, digest.encode()),)
        if record.key is not None:
            headers += ((KEY_NAME, record.key.encode()),)
        self._outbox.offer(Message(self._topic_of[priority_class], record.value, job.encode(), home, headers, record.job.tenant), fate)

    def expire(self, now: float | None = None) -> None:
        """Give up what Kafka has not taken in time, by now or by then."""
        self._outbox.expire(now)

    def cancel(self, job: str, home: int, reason: str) -> bool:
        """Queue a cancel without waiting; returns whether there was room for it."""
        try:
            self._outbox.offer(self._cancel(job, home, reason), again=True)
        except Overloaded:
            return False
        return True

    def report(self, position: StreamPosition, home: int, tenant: str | None) -> bool:
        """Queue what the caller of a broken stream has seen; returns whether there was room for it."""
        message = Message(self._outcomes, position.to_bytes(), position.job.encode(), home, envelope(position.type), tenant)
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

    async def decide(self, given: ReviewGiven, home: int, tenant: str) -> None:
        """Write what somebody says of a review; returns when it is acknowledged. Raises LogError, Overloaded."""
        await self._outbox.send(Message(self._outcomes, given.to_bytes(), given.job.encode(), home, envelope(given.type), tenant))

    async def to_owner(self, told: ConversationSet | ConversationDropped | OfBatch) -> None:
        """Write it to the owner of the conversation, or batch; returns when it is acknowledged. Raises LogError, Overloaded."""
        name = told.conversation if isinstance(told, ConversationSet | ConversationDropped) else told.batch
        key = ids.under(told.tenant, name).encode()
        # What ends it is to be read also when the tenant's keys are gone, and holds no text.
        tenant = None if isinstance(told, ConversationDropped | BatchCancelled) else told.tenant
        home = place(key, self._home_partitions)
        await self._outbox.send(Message(self._outcomes, told.to_bytes(), key, home, envelope(told.type), tenant))

    def _cancel(self, job: str, home: int, reason: str, waits: DelayedJob | None = None) -> Message:
        cancel = CancelRequested(job=job, reason=reason, waits=waits)
        return Message(self._outcomes, cancel.to_bytes(), job.encode(), home, envelope("cancel"))
