"""Handlers: from input records to typed inputs. Whatever cannot be one is an InvalidRecord or TooLarge with one readable sentence."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from services.planner.deciding.admission import JobInput
from services.planner.state.book import OUTCOME_BYTES
from services.planner.state.watermark import source_topic
from shared.contracts import headers, ids
from shared.contracts.base import INLINE_BYTES, VERSION, PriorityClass
from shared.contracts.bounds import check_capability, parse_job
from shared.contracts.budget import BudgetRequested
from shared.contracts.conversation import TurnAsked
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.headers import Envelope
from shared.contracts.ids import RESERVED, Maker, digest_of
from shared.contracts.job import HeldJob, Job, ReplyTo
from shared.contracts.outcome import OUTCOME, CancelRequested, Outcome, StepClaimed, StepFailed, StepRouted, StepSucceeded
from shared.derived import job_id
from shared.errors import InvalidRecord, NewerVersion, TooLarge
from shared.kafka.port import Record
from shared.topics import Topics

JOB_BYTES = 1024 * 1024
"""Largest job of one record, in bytes of its value."""
CANONICAL_BYTES = INLINE_BYTES + INLINE_BYTES // 2
"""Largest job as it is written out in `JobAccepted`: defaults and numbers may take more room there than in the caller's text."""
_MOST_GROWTH = 5
"""No text grows by more than this when it is written out (`1e15` becomes `1000000000000000.0`)."""
_REASON_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class JobReader:
    """How a jobs.* record is read on one cluster."""

    cluster: str
    topics: Topics

    def read(self, record: Record, priority_class: PriorityClass, topic_id: str | None = None) -> JobInput | CancelRequested:
        """The job, or the cancel, that the record is. `topic_id`: of the topic that it lies in. Raises InvalidRecord or TooLarge."""
        says = Envelope(record.headers)
        kind, version = says.text(headers.TYPE), says.version()
        if version > VERSION:
            raise InvalidRecord(f"job version {version} is not known here; the newest known is {VERSION}")
        if kind == "cancel":
            return self._cancel(record)
        if kind not in (None, "job", headers.HELD_JOB):
            raise InvalidRecord("the record's type is neither job nor cancel")
        return self._job(record, says, priority_class, topic_id, HeldJob if kind == headers.HELD_JOB else Job)

    def _job(self, record: Record, says: Envelope, priority_class: PriorityClass, topic_id: str | None, form: type[Job]) -> JobInput:
        value = record.value or b""
        if len(value) > JOB_BYTES:
            raise TooLarge(f"the job has {len(value)} bytes; a record holds at most {JOB_BYTES}: what is larger comes by REST")
        job = parse_job(value, form)
        check_capability(job, self.topics.settings.capabilities)
        reply = self.reply(says)
        may_come_again = _may_come_again(job, says.made_by()) or says.replay_of() is not None
        identifier = job.id or self.derived_id(record, says)
        body = job.model_copy(update={"id": identifier}).to_bytes() if may_come_again else value
        return JobInput(
            id=identifier if job.id is None else ids.qualified(job.tenant, job.id),
            client_id=may_come_again,
            job=job,
            priority_class=priority_class,
            source=f"{source_topic(record.topic, topic_id)}/{record.partition}/{record.offset}",
            source_offset=record.offset,
            reply=reply,
            trace=says.traceparent(),
            key=says.key_name(),
            digest=says.request_digest() or digest_of(body),
            written_ms=record.timestamp,
            large=self._is_large(says, job, len(value)),
            written=value if value.startswith(b'{"tenant":"%b"' % job.tenant.encode()) else None,
        )

    @staticmethod
    def _is_large(says: Envelope, job: Job, size: int) -> bool:
        # What comes from the delay service is written out already.
        inline = INLINE_BYTES if says.get(headers.WAS_DELAYED) is None else CANONICAL_BYTES
        return size > inline or (size > CANONICAL_BYTES // _MOST_GROWTH and len(job.to_bytes()) > CANONICAL_BYTES)

    def reply(self, says: Envelope) -> ReplyTo | None:
        """Where the caller waits. Raises InvalidRecord for a malformed address or a topic that replies may not go to."""
        reply = says.reply_address()
        if reply is None:
            return None
        if not self.topics.may_reply_to(reply.topic):
            raise InvalidRecord("replies may not go to this topic")
        if reply.topic == self.topics.replies and (reply.partition or 0) >= self.topics.reply_partitions:
            raise InvalidRecord("the reply topic has no such partition")
        return reply

    def derived_id(self, record: Record, says: Envelope) -> str:
        """The id of a job that came without one. Sent again from the dead letters it is the job that it was the first time."""
        lies = says.replay_of() or headers.Origin(record.topic, record.partition, record.offset, record.timestamp)
        return job_id(self.cluster, lies, self.topics.settings.home_partitions)

    def outcome(self, record: Record) -> Outcome:
        """The outcome that the record is. Raises InvalidRecord, also for one that would be answered to where nobody is."""
        outcome = read_outcome(record)
        if isinstance(outcome, StepClaimed | StepRouted) and outcome.mailbox >= self.topics.mailboxes:
            raise InvalidRecord("the outcome's mailbox is not a partition of this cluster")
        if isinstance(outcome, BudgetRequested | TurnAsked) and outcome.home >= self.topics.settings.home_partitions:
            raise InvalidRecord("the outcome's home is not a partition of this cluster")
        return outcome

    @staticmethod
    def _cancel(record: Record) -> CancelRequested:
        if not record.key:
            raise InvalidRecord("a cancel needs the job's id as its key")
        try:
            tenant, _, job = CancelRequested(job=record.key.decode()).job.rpartition("/")
        except ValueError as error:
            raise InvalidRecord("the cancel's key is not a job id") from error
        return CancelRequested(job=ids.qualified(tenant or ids.DEFAULT_TENANT, job))


def _may_come_again(job: Job, maker: Maker | None) -> bool:
    """Whether the id may arrive once more after the job's end: the caller's own may, and so may what went through delay, also where a
    planner died between the sending and the commit, and its successor found the same record due.

    Raises InvalidRecord where a caller gives an id of tutti's.
    """
    if job.id is None:
        return job.not_before is not None
    if not ids.is_reserved(job.id):
        return True
    if maker is None:
        raise InvalidRecord(RESERVED, code="reserved_id")
    return maker is not Maker.INGRESS or job.not_before is not None


def read_outcome(record: Record) -> Outcome:
    """The outcome that the record is; an oversize answer becomes a typed failure. Raises InvalidRecord.

    Of a newer version too: whoever may write here must not stop the partition by one record. Where most are newer, as when workers are
    upgraded before planners, the cap on dead letters stops it.
    """
    try:
        Envelope(record.headers).refuse_newer()
    except NewerVersion as error:
        raise InvalidRecord(error.message) from None
    value = record.value or b""
    try:
        outcome: Outcome = OUTCOME.validate_json(value)
    except ValidationError as error:
        raise InvalidRecord(f"not an outcome: {error.error_count()} fields are wrong") from None
    return _bounded(outcome, len(value)) if len(value) > OUTCOME_BYTES // _MOST_GROWTH else outcome


def _bounded(outcome: Outcome, size: int) -> Outcome:
    """What may be written in an event. Raises InvalidRecord."""
    if isinstance(outcome, StepSucceeded):
        return _too_large(outcome) if max(size, len(outcome.answer.to_bytes())) > OUTCOME_BYTES else outcome
    if size <= OUTCOME_BYTES:
        return outcome
    if isinstance(outcome, StepFailed):
        shortened = Failure(kind=outcome.failure.kind, message=outcome.failure.message[:_REASON_CHARACTERS])
        return outcome.model_copy(update={"failure": shortened})
    raise InvalidRecord(f"the outcome has {size} bytes; at most {OUTCOME_BYTES} are allowed")


def _too_large(outcome: StepSucceeded) -> StepFailed:
    failure = Failure(kind=FailureKind.TOO_LARGE, message=f"the answer exceeds {OUTCOME_BYTES} bytes", node=outcome.node)
    return StepFailed(
        job=outcome.job,
        step=outcome.step,
        attempt=outcome.attempt,
        claim=outcome.claim,
        node=outcome.node,
        failure=failure,
        usage=outcome.usage,
        timings=outcome.timings,
    )
