"""What one process writes, another reads as the same value; and a newer writer's extra fields do not stop an older reader."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from shared.contracts.base import MOST, MOST_COST, PriorityClass
from shared.contracts.chat import Answer, ChatMessage, Options
from shared.contracts.control import CONTROL, Drain, StopStep
from shared.contracts.credits import CREDITS, Credits, RouterPresence
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.delayed import Delayed
from shared.contracts.event import (
    EVENT,
    MOST_ASKS,
    Event,
    JobAccepted,
    JobSettled,
    PlannerStarted,
    StepAnswered,
    StepAsked,
    facts_of,
    joined,
)
from shared.contracts.job import Job
from shared.contracts.limits import Limits
from shared.contracts.outcome import OUTCOME, ClaimsRenewed, StepSucceeded
from shared.contracts.reply import REPLY, Chunk, Chunks, Final
from shared.contracts.result import Result, Status
from shared.contracts.step import Step
from shared.contracts.usage import Timings, Usage

TEXT = st.text(max_size=30)
FLOAT = st.floats(0, 9e6, allow_nan=False)
COUNT = st.integers(0, MOST // 9)
USAGE = st.builds(Usage, calls=COUNT, prompt_tokens=COUNT, completion_tokens=COUNT, cost=FLOAT, wasted_calls=COUNT, wasted_tokens=COUNT)
ANSWER = st.builds(
    Answer, text=TEXT, thinking=st.none() | TEXT, embeddings=st.lists(st.lists(FLOAT, max_size=3).map(tuple), max_size=2).map(tuple)
)
RESULT = st.builds(
    Result, job=st.just("j_1"), status=st.sampled_from(Status), answer=st.none() | ANSWER, usage=USAGE, accepted_at=FLOAT, finished_at=FLOAT
)
OPTIONS = st.builds(Options, temperature=st.none() | st.floats(0, 5), seed=st.none() | st.integers(-(2**31), 2**31 - 1))


@settings(max_examples=25)
@given(
    st.builds(
        Job,
        prompt=st.none(),
        messages=st.lists(st.builds(ChatMessage, role=st.sampled_from(["system", "user"]), content=TEXT), min_size=1, max_size=3).map(
            tuple
        ),
        options=OPTIONS,
        metadata=st.dictionaries(TEXT, TEXT, max_size=2),
        deadline_at=st.none() | FLOAT,
    )
)
def test_a_job_survives(job: Job) -> None:
    """Reading what was written gives an equal job, and writing that again the same bytes."""
    again = Job.model_validate_json(job.to_bytes())
    assert again == job
    assert again.to_bytes() == job.to_bytes()


@settings(max_examples=25)
@given(RESULT)
def test_a_result_is_byte_identical_when_written_again(result: Result) -> None:
    """Repeats of a result are byte-identical, also after a replay of its settle event."""
    settled = JobSettled(epoch=0, job=result.job, at=1.0, result=result)
    replayed = EVENT.validate_json(settled.to_bytes())
    assert replayed.result.to_bytes() == result.to_bytes()


ASKED = StepAsked(epoch=7, job="j", at=1.5, step="s", path="0.0", agent="chat", model="m", reserved_tokens=9, charged_day=3)
ACCEPTED = JobAccepted(
    epoch=7,
    job="j",
    at=1.5,
    request=Job(prompt="q"),
    priority_class=PriorityClass.BATCH,
    home=0,
    source="jobs.batch/0/0",
    source_offset=0,
    pattern_version=1,
    limits=Limits(),
    deadline_at=9.0,
    digest="d",
)
ANSWERED = StepAnswered(epoch=7, job="j", at=1.5, step="s", attempt=2, node="n", answer=Answer(text="a"), usage=Usage(calls=1))
SETTLED = JobSettled(
    epoch=7, job="j", at=1.5, result=Result(job="j", status=Status.SUCCEEDED, answer=Answer(text="a"), accepted_at=1, finished_at=2)
)


@pytest.mark.parametrize("pair", [(ACCEPTED, ASKED), (ANSWERED, SETTLED)], ids=["asks", "answer"])
def test_joined_facts_come_apart_as_they_were(pair: tuple[Event, Event]) -> None:
    """In one record, and smaller than apart."""
    both = joined(*pair)
    assert both is not None
    value = both.to_bytes()
    assert facts_of(EVENT.validate_json(value)) == pair
    assert len(value) < sum(len(fact.to_bytes()) for fact in pair)


@pytest.mark.parametrize(
    ("before", "event"),
    [
        (None, ASKED),
        (ASKED, ASKED),
        (ACCEPTED, SETTLED),
        (ANSWERED, ASKED),
        (ANSWERED.model_copy(update={"answer": Answer(text="another")}), SETTLED),
        (ACCEPTED.model_copy(update={"asks": (ASKED,) * MOST_ASKS}), ASKED),
    ],
)
def test_other_facts_stand_by_themselves(before: Event | None, event: Event) -> None:
    """An answer that is not the result's would be lost; asks beyond the bound would outgrow a record."""
    assert joined(before, event) is None


@settings(max_examples=25)
@given(st.binary(max_size=50), st.binary(max_size=50), st.lists(st.tuples(TEXT, st.binary(max_size=10)), max_size=3).map(tuple))
def test_bytes_survive(key: bytes, value: bytes, record_headers: tuple[tuple[str, bytes], ...]) -> None:
    """Keys, values and headers of delayed records and dead letters come back as the same bytes."""
    delayed = Delayed(topic="t", due_at=1.0, key=key, value=value, headers=record_headers)
    assert Delayed.model_validate_json(delayed.to_bytes()) == delayed
    letter = DeadLetter(
        topic="t", partition=0, offset=1, service="s", reason="r", code="c", key=key, value=value, headers=record_headers, at=1.0
    )
    assert DeadLetter.model_validate_json(letter.to_bytes()) == letter


@pytest.mark.parametrize(
    ("reader", "value"),
    [
        (OUTCOME, StepSucceeded(job="j", step="s", attempt=1, answer=Answer(text="a"), timings=Timings(total_ms=1.5))),
        (OUTCOME, ClaimsRenewed(node="n", claims=("c1", "c2"))),
        (EVENT, PlannerStarted(nonce="n", planner="p")),
        (CONTROL, StopStep(node="n", job="j", step="s", attempt=1)),
        (CONTROL, Drain(node="n")),
        (CREDITS, Credits(node="n", boot="b", sequence=1, mailbox=0, offers={"r": 2}, read={"chat": 5})),
        (CREDITS, RouterPresence(router="r", backlog=1)),
        (REPLY, Chunks(chunks=(Chunk(job="j", step="s", attempt=1, sequence=0, offset=0, text="a", correlation=b"\x00\xff"),))),
        (REPLY, Final(correlation=b"\xff", result=Result(job="j", status=Status.FAILED, accepted_at=1, finished_at=2))),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_union_finds_the_class_by_its_type(reader: TypeAdapter[Any], value: Any) -> None:
    """`type` alone decides; the class read is the class written."""
    again = reader.validate_json(value.to_bytes())
    assert type(again) is type(value)
    assert again == value


def test_an_unknown_type_is_an_error_not_a_guess() -> None:
    """A record of a later version's type is refused, never read as something else."""
    with pytest.raises(ValidationError):
        OUTCOME.validate_json(b'{"type":"teleported","job":"j","step":"s","attempt":1}')


def test_a_newer_writers_fields_are_ignored() -> None:
    """Within a version fields may be added: an older reader goes on."""
    step = Step(job="j", id="s", home=0)
    newer = json.dumps(json.loads(step.to_bytes()) | {"added_later": {"x": 1}}).encode()
    assert Step.model_validate_json(newer) == step


def test_absent_fields_are_not_written() -> None:
    """Records stay small: None is left out."""
    assert b"null" not in Step(job="j", id="s", home=0).to_bytes()


def test_values_are_immutable() -> None:
    """A message cannot change after it was read."""
    with pytest.raises(ValidationError):
        Job(prompt="a").prompt = "b"  # type: ignore[misc]


@settings(max_examples=25)
@given(USAGE, USAGE, USAGE)
def test_usage_adds_up(a: Usage, b: Usage, c: Usage) -> None:
    """Sums are the same in any order (costs aside, which are floats), and waste keeps every call and token."""
    left, right = a.plus(b).plus(c), c.plus(b).plus(a)
    assert left.model_copy(update={"cost": 0.0}) == right.model_copy(update={"cost": 0.0})
    assert left.cost == pytest.approx(right.cost)
    waste = a.as_waste()
    assert waste.wasted_tokens == a.prompt_tokens + a.completion_tokens + a.wasted_tokens
    assert (waste.wasted_calls, waste.calls, waste.cost) == (a.calls + a.wasted_calls, 0, a.cost)


def test_a_sum_stays_within_what_a_message_can_say() -> None:
    """Foreign numbers may be as large as the type allows: their sums stay there, and the fold of a job goes on."""
    largest = Usage(calls=MOST, prompt_tokens=MOST, completion_tokens=MOST, cost=MOST_COST, wasted_calls=MOST, wasted_tokens=MOST)
    for total in (largest.plus(largest), largest.as_waste().plus(largest)):
        assert Usage.model_validate_json(total.to_bytes()) == total
