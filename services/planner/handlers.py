"""Handlers: from input records to typed inputs. Whatever cannot be one is an InvalidRecord or TooLarge with one readable sentence."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from services.planner.admission import JobInput
from services.planner.ids import job_id, request_digest
from shared.contracts import headers
from shared.contracts.base import INLINE_BYTES, VERSION, PriorityClass
from shared.contracts.bounds import parse_job
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import ReplyTo
from shared.contracts.outcome import OUTCOME, CancelRequested, Outcome, StepFailed, StepSucceeded
from shared.errors import InvalidRecord, TooLarge
from shared.kafka.port import Record
from shared.topics import Topics

OUTCOME_BYTES = 160 * 1024
"""Largest outcome that is folded: its answer is written again in two events and the result, each below the record bound."""


OWN_PREFIX = "j_"
"""Ids that tutti made (ingress, planner) begin with this. They are never used twice, so they are not remembered after the end."""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """How a jobs.* record is read on one cluster."""

    cluster: str
    topics: Topics

    def read(self, record: Record, priority_class: PriorityClass) -> JobInput | CancelRequested:
        """The job, or the cancel, that the record is. Raises InvalidRecord or TooLarge."""
        kind = headers.text(record.headers, headers.TYPE)
        version = headers.version(record.headers)
        if version > VERSION:
            raise InvalidRecord(f"job version {version} is not known here; the newest known is {VERSION}")
        if kind == "cancel":
            return self._cancel(record)
        if kind not in (None, "job"):
            raise InvalidRecord("the record's type is neither job nor cancel")
        return self._job(record, priority_class)

    def _job(self, record: Record, priority_class: PriorityClass) -> JobInput:
        value = record.value or b""
        if len(value) > INLINE_BYTES:
            raise TooLarge(f"the job has {len(value)} bytes; at most {INLINE_BYTES} are allowed")
        job = parse_job(value)
        reply = self.reply(record)
        return JobInput(
            id=job.id or self.derived_id(record),
            client_id=job.id is not None and not job.id.startswith(OWN_PREFIX),
            job=job,
            priority_class=priority_class,
            source=f"{record.topic}/{record.partition}/{record.offset}",
            source_offset=record.offset,
            reply=reply,
            trace=headers.traceparent(record.headers),
            digest=request_digest(job.to_bytes() if job.id else value),
        )

    def reply(self, record: Record) -> ReplyTo | None:
        """Where the caller waits. Raises InvalidRecord for a malformed address or a topic that replies may not go to."""
        reply = headers.reply_address(record.headers)
        if reply is not None and not self.topics.may_reply_to(reply.topic):
            raise InvalidRecord("replies may not go to this topic")
        return reply

    def derived_id(self, record: Record) -> str:
        """The id of a job that came without one."""
        return job_id(self.cluster, record.topic, record.partition, record.offset, record.timestamp)

    @staticmethod
    def _cancel(record: Record) -> CancelRequested:
        if not record.key:
            raise InvalidRecord("a cancel needs the job's id as its key")
        try:
            return CancelRequested(job=record.key.decode())
        except ValueError as error:
            raise InvalidRecord("the cancel's key is not a job id") from error


def read_outcome(record: Record) -> Outcome:
    """The outcome that the record is; an oversize answer becomes a typed failure. Raises InvalidRecord."""
    version = headers.version(record.headers)
    if version > VERSION:
        raise InvalidRecord(f"outcome version {version} is not known here; the newest known is {VERSION}")
    try:
        outcome: Outcome = OUTCOME.validate_json(record.value or b"")
    except ValidationError as error:
        raise InvalidRecord(f"not an outcome: {error.error_count()} fields are wrong") from None
    if len(record.value or b"") > OUTCOME_BYTES and isinstance(outcome, StepSucceeded):
        return _too_large(outcome)
    return outcome


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
