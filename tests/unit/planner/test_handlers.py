"""Handlers: what a record is, or one readable sentence about why it is nothing. Nothing that is read may break a later append."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.planner.deciding.admission import JobInput, accept
from services.planner.handlers import CANONICAL_BYTES, JOB_BYTES, JobReader, read_outcome
from services.planner.state.book import OUTCOME_BYTES
from shared.contracts import headers, ids
from shared.contracts.base import INLINE_BYTES, RECORD_BYTES, PriorityClass
from shared.contracts.chat import Answer
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.ids import Maker
from shared.contracts.job import HeldJob, ReplyTo
from shared.contracts.outcome import CancelRequested, StepClaimed, StepFailed, StepSucceeded, StreamPosition
from shared.errors import InvalidInput, InvalidRecord, TooLarge
from shared.topics import Topics, TopicSettings
from tests.unit.planner.desk import Desk, kinds
from tests.unit.planner.records import Written

READER = JobReader("cluster", Topics(TopicSettings()))
CANCEL = ((headers.TYPE, b"cancel"),)
HELD = ((headers.TYPE, headers.HELD_JOB.encode()),)
INPUT = json.loads(Path("schemas/examples/v1/HeldJob.minimal.json").read_bytes())["input_ref"]
"""A reference, as only tutti may write it."""
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def job(**fields: Any) -> JobInput:
    """The record as a job."""
    read = READER.read(Written(**fields), PriorityClass.STANDARD)
    assert isinstance(read, JobInput)
    return read


def made_by(maker: Maker) -> tuple[tuple[str, bytes], ...]:
    return ((headers.MADE_BY, maker.value.encode()),)


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


# Jobs


def test_the_smallest_job() -> None:
    """No headers, no id, no class: a job of the default tenant, with an id from where it lies."""
    given = job(offset=7)
    assert (given.job.prompt, given.job.tenant, given.source, given.source_offset) == ("q", "default", "jobs.standard/0/7", 7)
    assert given.id.startswith("j_")
    assert not given.client_id
    assert given.reply is None


def test_a_derived_id_is_the_records_own() -> None:
    """The same record is the same job; any other place, or a re-created topic, is another."""
    places: list[dict[str, Any]] = [{}, {"offset": 1}, {"partition": 1}, {"topic": "jobs.batch"}, {"timestamp": 5}]
    ids = [job(**place).id for place in places]
    assert len(set(ids)) == len(places)
    assert job().id == ids[0]
    other = JobReader("another cluster", READER.topics).read(Written(), PriorityClass.STANDARD)
    assert isinstance(other, JobInput)
    assert other.id != ids[0]


def replayed(origin: str, **fields: Any) -> JobInput:
    return job(headers=((headers.REPLAY_OF, origin.encode()),), **fields)


def test_a_replayed_job_is_the_job_that_it_would_have_been() -> None:
    """Its dead letter tells where the original lay: sent twice from there it is one job, and its id is remembered after the end."""
    first = replayed("jobs.standard/0/7/1700000000000", offset=100)
    second = replayed("jobs.standard/0/7/1700000000000", offset=101)
    assert first.id == second.id == job(offset=7).id
    assert first.client_id
    assert first.digest == second.digest
    assert replayed("jobs.standard/0/8/1700000000000", offset=100).id != first.id
    assert replayed("jobs.standard/0/7/1700000000000", value=body(id="mine", prompt="q")).id == "mine"


def test_a_strange_origin_is_passed_over() -> None:
    """The record is then a job like any other."""
    for origin in ("", "dead-letters/1/0", "a/b/c/d", "jobs.standard/0/7/" + "9" * 40):
        assert replayed(origin, offset=9).id == job(offset=9).id


def test_what_the_ingress_added_does_not_make_another_request() -> None:
    """A deadline from a header changes with every repetition; the digest in the header does not."""
    mark = (headers.REQUEST_DIGEST, b"0f" * 16)
    given = [job(value=body(id="mine", prompt="q", deadline_at=at), headers=(mark,)) for at in (1e9, 2e9)]
    assert {each.digest for each in given} == {"0f" * 16}
    with pytest.raises(InvalidRecord, match="request-digest"):
        job(headers=((headers.REQUEST_DIGEST, b"nonsense"),))


def test_whose_id_it_is() -> None:
    """A caller's id may come again and is remembered; tutti's own may not, unless the job went through delay."""
    assert job(value=body(prompt="q", id="mine")).client_id
    assert not job(value=body(prompt="q", id="j_01ABC"), headers=made_by(Maker.INGRESS)).client_id
    assert job(value=body(prompt="q", id="j_01ABC", not_before=1_700_000_000), headers=made_by(Maker.INGRESS)).client_id
    assert job(value=body(prompt="q", id="k_abc"), headers=made_by(Maker.KEY)).client_id
    assert job(value=body(prompt="q", id="mine"), headers=made_by(Maker.INGRESS)).client_id, "whoever says so"


@pytest.mark.parametrize("id_", ["j_1", "k_abc", "s_abc", "j_01JDAAAAAAAAAAAAAAAAAAAAAA"])
def test_a_caller_gives_none_of_tuttis_ids(id_: str) -> None:
    """Whatever follows the prefix; who made an id is said by a header, and by none that nobody knows."""
    with pytest.raises(InvalidRecord, match="tutti's own"):
        job(value=body(prompt="q", id=id_))
    with pytest.raises(InvalidRecord, match="made-by"):
        job(value=body(prompt="q", id=id_), headers=((headers.MADE_BY, b"me"),))


def test_an_id_lies_under_its_tenant() -> None:
    """Two tenants with the same id have two jobs; what tutti made is unique by itself."""
    assert [job(value=body(prompt="q", id="x", tenant=tenant)).id for tenant in ("default", "a", "b")] == ["x", "a/x", "b/x"]
    assert job(value=body(prompt="q", id="j_1", tenant="a"), headers=made_by(Maker.INGRESS)).id == "j_1"


@pytest.mark.parametrize(("key", "job_id"), [(b"x", "x"), (b"default/x", "x"), (b"a/x", "a/x"), (b"j_1", "j_1"), (b"a/j_1", "j_1")])
def test_a_cancel_names_a_job_under_its_tenant(key: bytes, job_id: str) -> None:
    """However its tenant is spelled."""
    assert READER.read(Written(key=key, headers=CANCEL), PriorityClass.STANDARD) == CancelRequested(job=job_id)


@pytest.mark.parametrize("key", [b"", b"/", b"a/", b"/x", b"a/b/c", b"a b", b"x" * 200, b"\xff", b"#ids"])
def test_a_cancel_of_what_is_no_id_is_refused(key: bytes) -> None:
    with pytest.raises(InvalidRecord):
        READER.read(Written(key=key, headers=CANCEL), PriorityClass.STANDARD)


@given(st.integers(0, 5), st.integers(0, 2**40))
def test_a_derived_id_is_at_home_where_its_record_lies(partition: int, offset: int) -> None:
    """So that whoever knows the id can reach the job."""
    assert ids.home_of(job(partition=partition, offset=offset).id, 6) == partition


def test_a_job_that_went_through_delay_is_the_one_that_was_sent_there() -> None:
    """Whoever takes over may find its record due, and take it in before the copy comes back: the same id, remembered, the same request."""
    first = job(value=body(prompt="q", not_before=1_700_000_000))
    made = ((headers.MADE_BY, Maker.PLANNER.value.encode()),)
    copy = job(value=first.job.model_copy(update={"id": first.id}).to_bytes(), offset=99, headers=made)
    assert first.client_id
    assert (copy.id, copy.digest, copy.client_id) == (first.id, first.digest, True)


def test_the_digest_is_of_the_meaning_not_of_the_text() -> None:
    """Of jobs with an id: spaces and order of fields do not make another job; other words do."""
    first = job(value=b'{"id": "mine", "prompt": "q"}')
    assert job(value=b'{"prompt":"q",   "id":"mine"}').digest == first.digest
    assert job(value=b'{"prompt":"r","id":"mine"}').digest != first.digest


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"value": None}, InvalidRecord, "empty"),
        ({"value": b""}, InvalidRecord, "empty"),
        ({"value": b"hello"}, InvalidRecord, "not JSON"),
        ({"value": b'{"prompt": "q"'}, InvalidRecord, "not JSON"),
        ({"value": b'["prompt"]'}, InvalidRecord, "must be a JSON object"),
        ({"value": b"\xff\xfe"}, InvalidRecord, "not JSON"),
        ({"value": b"{}"}, InvalidRecord, "exactly one of prompt, messages, texts"),
        ({"value": body(prompt="q", promt="x")}, InvalidRecord, "unknown field `promt`; did you mean `prompt`?"),
        ({"value": body(prompt="q", id="has space")}, InvalidRecord, "`id`"),
        ({"value": body(prompt="q", capability="teleport")}, InvalidRecord, "does not offer the job's capability; it offers chat, code"),
        ({"value": body(prompt="x" * JOB_BYTES)}, TooLarge, "holds at most 1048576: what is larger comes by REST"),
        ({"value": body(prompt="q", input_ref=INPUT)}, InvalidRecord, "unknown field `input_ref`"),
        ({"value": body(operation="chat", input_ref=INPUT)}, InvalidRecord, "unknown field `input_ref`"),
        ({"value": body(prompt="q", input_ref=INPUT), "headers": HELD}, InvalidRecord, "holds nothing of what lies in its blob"),
        ({"value": body(input_ref=INPUT), "headers": HELD}, InvalidRecord, "says its operation"),
        ({"value": b'{"prompt":' + b"[" * 40 + b"]" * 40 + b"}"}, TooLarge, "nested deeper"),
        ({"headers": ((headers.TYPE, b"job"), (headers.VERSION_HEADER, b"2"))}, InvalidRecord, "job version 2 is not known"),
        ({"headers": ((headers.VERSION_HEADER, b"new"),)}, InvalidRecord, "version is not a number"),
        ({"headers": ((headers.TYPE, b"step"),)}, InvalidRecord, "neither job nor cancel"),
        ({"headers": ((headers.TYPE, b"\xff"),)}, InvalidRecord, "not UTF-8"),
        ({"headers": ((headers.REPLY_TOPIC, b"job-events"),)}, InvalidRecord, "replies may not go"),
        ({"headers": ((headers.REPLY_TOPIC, b"bad topic"),)}, InvalidRecord, "not a topic name"),
        ({"headers": ((headers.REPLY_TOPIC, b"replies"), (headers.REPLY_PARTITION, b"16"))}, InvalidRecord, "no such partition"),
        ({"headers": ((headers.REPLY_TOPIC, b"replies"), (headers.REPLY_PARTITION, b"-1"))}, InvalidRecord, "not a partition number"),
        ({"headers": ((headers.SPRING_REPLY_TOPIC, b"replies"), (headers.SPRING_REPLY_PARTITION, b"1"))}, InvalidRecord, "4-byte"),
        ({"headers": ((headers.REPLY_TOPIC, b"replies"), (headers.CORRELATION_ID, b"x" * 257))}, InvalidRecord, "too long"),
        ({"headers": CANCEL}, InvalidRecord, "needs the job's id as its key"),
        ({"headers": CANCEL, "key": b"not an id!"}, InvalidRecord, "not a job id"),
        ({"headers": CANCEL, "key": b"\xff\xff"}, InvalidRecord, "not a job id"),
    ],
)
def test_what_is_no_job_is_told_in_a_sentence(fields: dict[str, Any], error: type[InvalidInput], words: str) -> None:
    """Every bad record becomes a typed error that names the problem, never the caller's text."""
    with pytest.raises(error) as caught:
        READER.read(Written(**fields), PriorityClass.STANDARD)
    assert words in caught.value.message
    assert "x" * 50 not in caught.value.message


@pytest.mark.parametrize(
    "value",
    [
        body(prompt="x" * INLINE_BYTES),
        body(prompt="q", tools=[{"a": [1e15] * 10_000}]).replace(b"1000000000000000.0", b"1e15"),
        body(texts=["x" * 2_000] * 100),
    ],
)
def test_above_the_inline_bound_a_job_is_large(value: bytes) -> None:
    """As it came, or as it would be written out. By reference it is not any more."""
    read = READER.read(Written(value), PriorityClass.STANDARD)
    assert isinstance(read, JobInput)
    assert read.large
    again = READER.read(Written(body(operation="chat", input_ref=INPUT), headers=HELD), PriorityClass.STANDARD)
    assert isinstance(again, JobInput)
    assert isinstance(again.job, HeldJob)
    assert not again.large


names = st.sampled_from([headers.TYPE, headers.VERSION_HEADER, headers.REPLY_TOPIC, headers.SPRING_REPLY_TOPIC, "x"])


@given(st.binary(max_size=200), st.lists(st.tuples(names, st.binary(max_size=9)), max_size=4))
def test_any_bytes_are_a_job_or_a_typed_error(value: bytes, found: list[tuple[str, bytes]]) -> None:
    """Nothing else ever comes out, so one bad record cannot stop a partition."""
    try:
        read = READER.read(Written(value, headers=tuple(found)), PriorityClass.BATCH)
    except InvalidInput:
        return
    assert isinstance(read, JobInput | CancelRequested)


def test_an_unknown_minor_thing_is_no_reason_to_refuse() -> None:
    """Foreign headers, a malformed traceparent (the specification says so), an older version."""
    given = job(headers=(("x", b"\xff"), (headers.TRACEPARENT, b"nonsense"), (headers.VERSION_HEADER, b"1"), (headers.TYPE, b"job")))
    assert given.trace is None
    assert job(headers=((headers.TRACEPARENT, TRACE),)).trace == TRACE.decode()


def test_the_name_of_the_key_goes_from_the_record_into_history() -> None:
    """Into the acceptance and the end, which the sink sums by; what is no name says nothing."""
    assert job(headers=((headers.KEY_NAME, b"team-a"),)).key == "team-a"
    for odd in (b"", b"-", b"a b", b"\xff", b"x" * 65):
        assert job(headers=((headers.KEY_NAME, odd),)).key is None
    kept = headers.read_ones(((headers.KEY_NAME, b"team-a"), ("else", b"x")))
    assert kept == ((headers.KEY_NAME, b"team-a"),), "also through delay and to another home"
    desk = Desk()
    given = job(headers=((headers.KEY_NAME, b"team-a"),), value=body(prompt="q", pattern="none-such"))
    round_ = desk.round(lambda round_: accept(round_, given))
    said = [json.loads(value) for _, value in round_.events[given.id]]
    assert {event["type"]: event["key"] for event in said} == {"job_accepted": "team-a", "job_settled": "team-a"}


def test_reply_headers_of_both_spellings() -> None:
    """Ours, and Spring's with its big-endian partition; the correlation's bytes are kept as they are."""
    ours = ((headers.REPLY_TOPIC, b"replies"), (headers.REPLY_PARTITION, b"3"), (headers.CORRELATION_ID, b"\x00\xff"))
    assert job(headers=ours).reply == ReplyTo(topic="replies", partition=3, correlation=b"\x00\xff")
    spring = (
        (headers.SPRING_REPLY_TOPIC, b"replies.mine"),
        (headers.SPRING_REPLY_PARTITION, b"\x00\x00\x00\x02"),
        (headers.SPRING_CORRELATION_ID, b"\x01" * 16),
    )
    assert job(headers=spring).reply == ReplyTo(topic="replies.mine", partition=2, correlation=b"\x01" * 16, dialect="spring")


def test_a_cancel_is_a_record_with_the_jobs_key() -> None:
    """Whatever its value."""
    assert READER.read(Written(None, headers=CANCEL, key=b"mine"), PriorityClass.STANDARD) == CancelRequested(job="mine")


def test_the_largest_job_fits_every_record_that_it_becomes() -> None:
    """JobAccepted, and a snapshot that quotes it."""
    value = body(prompt='"' * 32_000)
    assert INLINE_BYTES - 2_000 < len(value) <= INLINE_BYTES
    given = job(value=value)
    desk = Desk()
    desk.submit(**given.job.model_dump(exclude_none=True))
    desk.snapshot(desk.job)
    assert max(len(record) for _, record in desk.history) < RECORD_BYTES - 4_096
    assert 2 * (CANONICAL_BYTES + 4_096) < RECORD_BYTES


# Outcomes

OF = {"job": "mine", "step": "s", "attempt": 1}


def outcome(value: bytes, *found: tuple[str, bytes]) -> Any:
    return read_outcome(Written(value, topic="outcomes", headers=found))


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"", ()),
        (b"nonsense", ()),
        (b"{}", ()),
        (b'{"type": "unheard_of"}', ()),
        (b'{"type": "succeeded", "job": "mine", "step": "s", "attempt": 0, "answer": {}}', ()),
        (b'{"type": "succeeded", "job": "mine", "step": "s", "attempt": 1, "answer": {}, "usage": {"cost": NaN}}', ()),
        (b'{"type": "cancel", "job": "bad id"}', ()),
        (StreamPosition(**OF, text="x" * OUTCOME_BYTES).to_bytes(), ()),
        (
            StepClaimed(**OF, claim="c", node="n", mailbox=0, lease_seconds=1).to_bytes().replace(b'"c"', b'"%b"' % (b"c" * OUTCOME_BYTES)),
            (),
        ),
    ],
)
def test_what_is_no_outcome_is_a_typed_error(value: bytes, found: tuple[tuple[str, bytes], ...]) -> None:
    """Malformed, or too large to be recorded."""
    with pytest.raises(InvalidRecord):
        outcome(value, *found)


def test_an_outcome_of_a_newer_version_is_refused() -> None:
    """Anybody may have written it: one record must not stop the partition."""
    with pytest.raises(InvalidRecord, match="newest known here"):
        outcome(CancelRequested(job="mine").to_bytes(), (headers.VERSION_HEADER, b"9"))


def test_an_answer_that_is_too_large_is_a_typed_failure_of_its_attempt() -> None:
    """It cannot become an event; its consumption still counts."""
    huge = StepSucceeded(**OF, claim="c", node="n", answer=Answer(text="x" * OUTCOME_BYTES), usage={"calls": 1})
    read = outcome(huge.to_bytes())
    assert isinstance(read, StepFailed)
    assert (read.failure.kind, read.claim, read.usage.calls) == (FailureKind.TOO_LARGE, "c", 1)


def test_an_answer_is_measured_as_it_will_be_written() -> None:
    """`1e15` takes 4 bytes here and 18 in the event."""
    numbers = b"[" + b",".join([b"1e15"] * 20_000) + b"]"
    value = b'{"type":"succeeded","job":"mine","step":"s","attempt":1,"answer":{"embeddings":[%b]}}' % numbers
    assert len(value) < OUTCOME_BYTES
    assert isinstance(outcome(value), StepFailed)


def test_a_long_failure_is_cut() -> None:
    """Its kind decides what follows, not its text."""
    failure = Failure(kind=FailureKind.MODEL_ERROR, message="m" * OUTCOME_BYTES)
    read = outcome(StepFailed(**OF, failure=failure).to_bytes())
    assert isinstance(read, StepFailed)
    assert (read.failure.kind, len(read.failure.message)) == (FailureKind.MODEL_ERROR, 500)


@pytest.mark.parametrize("char", ["a", '"', "\n", "\N{EURO SIGN}"])
def test_the_largest_answer_fits_every_record_that_it_becomes(char: str) -> None:
    """StepAnswered, JobSettled, Result; and quoted, a snapshot."""
    weight = len(json.dumps(char, ensure_ascii=False).encode()) - 2
    text = char * ((OUTCOME_BYTES - 1_000) // weight)
    desk = Desk()
    steps = [{"name": "a", "template": "x"}, {"name": "b", "template": "x"}]
    desk.submit(prompt="q", pattern="chain", chain=steps)
    succeeded = StepSucceeded(job=desk.job.id, step=desk.step.id, attempt=1, answer=Answer(text=text), usage={"calls": 1})
    read = outcome(succeeded.to_bytes())
    assert kinds(desk.say(read)) == ["step_answered", "step_asked"]
    desk.snapshot(desk.job)
    last = outcome(succeeded.model_copy(update={"step": desk.step.id}).to_bytes())
    assert kinds(desk.say(last)) == ["step_answered", "job_settled"]
    assert max(len(record) for _, record in desk.history) < RECORD_BYTES - 4_096
