"""Refusals: an input record that cannot be processed becomes a dead letter, and its caller, if one can be told, an answer."""

from __future__ import annotations

from services.planner.deciding.admission import refused_result
from services.planner.draft import CallerAnswer
from services.planner.intake.canonical import original
from services.planner.sending.messages import of_effect
from services.planner.shard.wiring import Wiring
from shared.contracts.base import PriorityClass
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.headers import Envelope
from shared.errors import InvalidInput, InvalidRecord, TooLarge, TuttiError
from shared.kafka.port import Message, Record, TopicPartition
from shared.processing.dead_letters import DeadLetterCap, dead_letter
from shared.processing.tries import GivenUp


class OutcomesStopped(TuttiError):
    """So many outcomes cannot be read that the fault is more likely ours than theirs."""

    code = "outcomes_stopped"


class Refusals:
    """Messages that must be acknowledged before the record counts as done.

    Only outcomes, which services write, have a cap on dead letters: a caller who sends nonsense to `jobs.*` must stop nobody else's jobs.
    """

    def __init__(self, wiring: Wiring, number: int) -> None:
        self._wiring = wiring
        self._cap = DeadLetterCap(TopicPartition(wiring.topics.outcomes, number), wiring.dead_letter_cap)

    def outcome_read(self) -> None:
        """An outcome was taken; most are fine."""
        self._cap.read()

    def outcome(self, record: Record, error: InvalidInput) -> list[Message]:
        """The dead letter. Raises OutcomesStopped when there are too many of them: what is unread stays in Kafka."""
        reason = self._cap.died(record)
        if reason is not None:
            raise OutcomesStopped(reason)
        return [self.dead_letter(record, error)]

    def job(self, record: Record, error: InvalidInput, priority_class: PriorityClass, wall: float, job: str | None = None) -> list[Message]:
        """The dead letter, and a final with the reason where a valid reply address can be read. `job`: the id, where it is known."""
        messages, says = [self.dead_letter(record, error)], Envelope(record.headers)
        try:
            reply = self._wiring.reader.reply(says)
        except InvalidRecord:
            reply = None
        if reply is not None:
            failure = Failure(kind=_kind_of(error), message=error.message)
            result = refused_result(job or self._wiring.reader.derived_id(record, says), "default", failure, priority_class, wall)
            messages.extend(of_effect(CallerAnswer(reply, result), self._wiring.topics))
        return messages

    def dead_letter(self, record: Record, error: InvalidInput) -> Message:
        """Of the record as its sender knows it. To be written before the record counts as done."""
        return dead_letter(original(record), "planner", error, self._wiring.clock, self._wiring.topics)


def _kind_of(error: InvalidInput) -> FailureKind:
    if isinstance(error, TooLarge):
        return FailureKind.TOO_LARGE
    return FailureKind.INTERNAL if isinstance(error, GivenUp) else FailureKind.INVALID_JOB
