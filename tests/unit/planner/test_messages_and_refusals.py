"""Messages: where effects go, byte for byte. Refusals: what becomes of records that cannot be processed."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.planner.draft import CallerAnswer, Dispatch, Publish, Stop
from services.planner.handlers import JobReader
from services.planner.intake.refusals import OutcomesStopped, Refusals
from services.planner.round import Round
from services.planner.sending.messages import of_effect
from services.planner.settings import PlannerSettings
from services.planner.shard.wiring import Wiring
from services.planner.state.policy import Policy
from shared.clock import ManualClock
from shared.contracts import headers
from shared.contracts.base import PriorityClass
from shared.contracts.chat import Answer as Text
from shared.contracts.control import CONTROL, StopStep
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.event import JobSettled
from shared.contracts.failure import FailureKind
from shared.contracts.job import ReplyTo
from shared.contracts.reply import REPLY, Final
from shared.contracts.result import Result, Status
from shared.contracts.step import Step
from shared.errors import InvalidRecord, TooLarge
from shared.kafka.port import Message
from shared.settings import DeadLetterCapSettings
from shared.telemetry import metrics
from shared.topics import Topics, TopicSettings, partition_of, steps_partition
from tests.unit.planner.desk import Desk, claimed, succeeded
from tests.unit.planner.records import Written

TOPICS = Topics(TopicSettings(prefix="t-", steps_partitions=5, other_partitions=3))
HERE = ReplyTo(topic="t-replies", partition=4, correlation=b"\x00\xffid")
SPRING = ReplyTo(topic="t-replies.mine", correlation=b"\x01" * 16, dialect="spring")
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def settled(*, reply: ReplyTo | None = HERE, text: str = "a") -> JobSettled:
    """The settle event of a job."""
    desk = Desk()
    desk.submit(reply=reply)
    desk.say(claimed(desk.job, desk.step), succeeded(desk.job, desk.step, text))
    assert desk.job.settled is not None
    return desk.job.settled.model_copy(update={"trace": TRACE})


def header(message: Message, name: str) -> bytes | None:
    return headers.find(message.headers, name)


def test_a_dispatch_goes_to_its_capability_and_class() -> None:
    """On the partition that tenant and step decide; whole, with type, version and trace."""
    step = Step(job="j_1", id="s" * 32, home=2, capability="embed", priority_class=PriorityClass.BATCH)
    [message] = of_effect(Dispatch(step, TRACE), TOPICS)
    assert (message.topic, message.key) == ("t-steps.embed.batch", b"s" * 32)
    assert message.partition == steps_partition("default", step.home, 5)
    assert Step.model_validate_json(message.value or b"") == step
    assert (header(message, "type"), header(message, "traceparent")) == (b"step", TRACE.encode())


def test_a_stop_goes_to_the_nodes_mailbox() -> None:
    """Of `controls`."""
    control = StopStep(node="n1", job="j_1", step="s", attempt=2)
    [message] = of_effect(Stop(7, control), TOPICS)
    assert (message.topic, message.partition, header(message, "type")) == ("t-controls", 7, b"stop")
    assert CONTROL.validate_json(message.value or b"") == control


def test_a_result_goes_to_results_and_finals_to_whoever_asked() -> None:
    """The first message is the result, keyed by the job; then the caller's final and those of its followers, each where it asked."""
    event = settled()
    result, first, second = of_effect(Publish(event, (SPRING,)), TOPICS)
    assert (result.topic, result.key, result.partition) == ("t-results", b"j_0", partition_of(b"j_0", 3))
    assert Result.model_validate_json(result.value or b"") == event.result
    assert (first.topic, first.partition, header(first, headers.CORRELATION_ID)) == ("t-replies", 4, b"\x00\xffid")
    assert (second.topic, second.partition) == ("t-replies.mine", None)
    assert header(second, headers.SPRING_CORRELATION_ID) == b"\x01" * 16
    for message, reply in ((first, HERE), (second, SPRING)):
        assert REPLY.validate_json(message.value or b"") == Final(correlation=reply.correlation, result=event.result)
        assert header(message, "type") == b"final"


def test_a_job_that_nobody_waits_for_has_only_a_result() -> None:
    """No reply address, no final."""
    assert len(of_effect(Publish(settled(reply=None)), TOPICS)) == 1


@given(st.text(max_size=200), st.binary(max_size=64))
def test_a_result_is_a_pure_function_of_its_settle_event(text: str, correlation: bytes) -> None:
    """Written again by another planner, from the event as it lies in the log, it is the same bytes; so is the final."""
    event = settled(reply=HERE.model_copy(update={"correlation": correlation}), text=text)
    again = JobSettled.model_validate_json(event.to_bytes())
    assert of_effect(Publish(again), TOPICS) == of_effect(Publish(event), TOPICS)
    final = of_effect(Publish(event), TOPICS)[1]
    assert final.value == Final(correlation=correlation, result=event.result).to_bytes()


def test_an_answer_to_one_caller_touches_no_result() -> None:
    """A repeated submission, or a refused one."""
    result = Result(job="mine", status=Status.SUCCEEDED, answer=Text(text="a"), accepted_at=1.0, finished_at=2.0)
    [message] = of_effect(CallerAnswer(HERE, result, TRACE), TOPICS)
    assert (message.topic, message.partition, message.key) == ("t-replies", 4, b"mine")


# Refusals


@pytest.fixture
def refusals() -> Refusals:
    missing: Any = None
    reader = JobReader("cluster", TOPICS)
    return Refusals(
        Wiring(
            log=missing,
            clock=ManualClock(1_700_000_000.0),
            random=Random(0),
            topics=TOPICS,
            options=PlannerSettings(),
            policy=Policy(),
            dead_letter_cap=DeadLetterCapSettings(at_least=3, window=10),
            instance="p",
            reader=reader,
            schedules=missing,
            eager=missing,
            consumer=missing,
            writer=missing,
            outbox=missing,
            blobs=missing,
            rewind=missing,
            unpause=missing,
            still_owner=missing,
            spawn=missing,
        ),
        0,
    )


REPLY_HEADERS = headers.reply_headers(HERE)


def test_a_refused_job_is_a_dead_letter_and_an_answer(refusals: Refusals) -> None:
    """With topic, partition, offset and reason; the caller is told the same sentence."""
    record = Written(b"secret", offset=7, partition=1, headers=REPLY_HEADERS)
    letter, final = refusals.job(record, InvalidRecord("the job is not JSON"), PriorityClass.STANDARD, 5.0)
    kept = DeadLetter.model_validate_json(letter.value or b"")
    assert letter.topic == "t-dead-letters"
    assert (kept.topic, kept.partition, kept.offset, kept.reason, kept.service) == (
        "jobs.standard", 1, 7, "the job is not JSON", "planner",
    )  # fmt: skip
    assert kept.value == b"secret"
    told = REPLY.validate_json(final.value or b"")
    assert (final.topic, final.partition) == ("t-replies", 4)
    assert told.result.failure.kind is FailureKind.INVALID_JOB
    assert told.result.failure.message == "the job is not JSON"
    assert told.result.job == refusals._wiring.reader.derived_id(record, headers.Envelope(record.headers))


def test_too_large_is_told_as_such(refusals: Refusals) -> None:
    """The ingress answers 413, not 400."""
    _, final = refusals.job(Written(headers=REPLY_HEADERS), TooLarge("too much"), PriorityClass.BATCH, 5.0)
    assert REPLY.validate_json(final.value or b"").result.failure.kind is FailureKind.TOO_LARGE


@pytest.mark.parametrize("found", [(), ((headers.REPLY_TOPIC, b"t-job-events"),), ((headers.REPLY_TOPIC, b"bad topic"),)])
def test_without_a_valid_address_there_is_only_the_dead_letter(refusals: Refusals, found: tuple[tuple[str, bytes], ...]) -> None:
    """No reply to a topic of our own, whatever the record says."""
    assert len(refusals.job(Written(b"", headers=found), InvalidRecord("x"), PriorityClass.STANDARD, 5.0)) == 1


def test_a_refused_outcome_is_a_dead_letter(refusals: Refusals) -> None:
    """Nobody waits for an outcome. Each is counted (law 8)."""
    counter = metrics.DEAD_LETTERS.labels("planner", "invalid_record")
    before = counter._value.get()
    [letter] = refusals.outcome(Written(b"", topic="t-outcomes"), InvalidRecord("not an outcome"))
    assert DeadLetter.model_validate_json(letter.value or b"").topic == "t-outcomes"
    assert counter._value.get() == before + 1


def test_a_round_is_empty_only_when_it_decides_nothing() -> None:
    """Events, dispatches or effects: any of them is something."""
    desk = Desk()
    assert Round.of(desk.book, 0.0, 0.0).empty
    assert not desk.submit().empty


def test_too_many_unreadable_outcomes_stop_the_partition(refusals: Refusals) -> None:
    """A fault of ours must not drain `outcomes` into the dead letters; what was not taken is not refused."""
    for _ in range(5):
        refusals.outcome_read()
    for _ in range(2):
        refusals.outcome(Written(b"", topic="t-outcomes"), InvalidRecord("x"))
    with pytest.raises(OutcomesStopped, match="t-outcomes/0"):
        refusals.outcome(Written(b"", topic="t-outcomes"), InvalidRecord("x"))


def test_nonsense_from_callers_stops_nobody(refusals: Refusals) -> None:
    """However much of `jobs.*` is refused."""
    for _ in range(50):
        assert refusals.job(Written(b""), InvalidRecord("x"), PriorityClass.BATCH, 5.0)
