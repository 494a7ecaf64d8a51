"""Comparing: which jobs owe a comparison, and that it is one job however often, and by whom, it is sent."""

from __future__ import annotations

from typing import Any

import pytest

from services.planner.deciding.admission import JobInput
from services.planner.handlers import JobReader
from services.planner.job.live import LiveJob
from services.planner.sending.comparing import comparison_of
from services.planner.state.policy import Policy
from shared.contracts import headers, ids
from shared.contracts.base import PriorityClass
from shared.contracts.conversation import TurnGranted
from shared.contracts.failure import FailureKind
from shared.contracts.result import Status
from shared.derived import comparison_id
from shared.kafka.port import Message
from shared.patterns.compare import COMPARE, CompareInput
from shared.patterns.comparison import COMPARED_CHARACTERS, Spent
from shared.scheduling.retry import RetryPolicy
from shared.topics import Topics
from tests.unit.planner.desk import Desk, claimed, failed, succeeded, two_steps
from tests.unit.planner.records import Written

TOPICS = Topics()
HOMES = TOPICS.settings.home_partitions
VOTE: dict[str, Any] = {"prompt": "Q?", "pattern": "vote", "input": {"answer": "number", "samples": 1}, "tenant": "acme"}


def mapped(**changes: Any) -> dict[str, Any]:
    """A job whose pattern keeps no baseline: two calls side by side, and one over them."""
    return {"prompt": "one\ntwo", "pattern": "map", **changes}


def answer(desk: Desk, text: str = "Answer: 1") -> None:
    for step in list(desk.job.steps.values()):
        if step.request is not None:
            desk.say(claimed(desk.job, step), succeeded(desk.job, step, text))


def ended(text: str = "Answer: 1", *, id_: str | None = None, **job: Any) -> Desk:
    """A job that has ended, each of its steps with this text after two seconds."""
    desk = Desk(Policy(retry=RetryPolicy(attempts=1)))
    desk.submit(id_=id_, **(job or VOTE))
    while desk.job.settled is None:
        desk.wait(2.0)
        answer(desk, text)
    return desk


def owed(job: LiveJob, share: float = 1.0) -> Message | None:
    return comparison_of(job, share, TOPICS)


def read(message: Message) -> JobInput:
    """As the planner's reader takes it."""
    record = Written(message.value, 7, message.topic, message.partition or 0, key=message.key, headers=tuple(message.headers))
    given = JobReader("c", TOPICS).read(record, PriorityClass.BATCH)
    assert isinstance(given, JobInput)
    return given


def asked(job: LiveJob) -> CompareInput:
    message = owed(job)
    assert message is not None
    ask = COMPARE.read(read(message).job)
    assert isinstance(ask, CompareInput)
    return ask


def test_it_is_a_job_of_the_same_tenant_at_the_same_home_behind_everybody_else() -> None:
    desk = ended(id_="acme/x")
    message = owed(desk.job)
    assert message is not None
    given = read(message)
    assert (message.topic, message.partition) == (TOPICS.jobs(PriorityClass.BATCH), ids.home_of("acme/x", HOMES))
    assert (given.id, given.job.tenant, given.job.pattern) == (comparison_id("acme/x", desk.job.accepted.at, HOMES), "acme", "compare")
    assert (given.client_id, given.reply, given.large) == (True, None, False), "it may come again, and nobody waits"
    assert ids.home_of(given.id, HOMES) == message.partition, "no hop"


def test_what_its_pattern_kept_is_not_asked_again() -> None:
    ask = asked(ended().job)
    assert (ask.answer, ask.pattern, ask.baseline.what, ask.baseline.text) == ("Answer: 1", "vote", "first sample", "Answer: 1")
    assert ask.took == ask.baseline.took == Spent(calls=1, tokens=15, seconds=2.0)


def test_where_its_pattern_kept_none_the_whole_input_goes_with_it() -> None:
    desk = ended("a", **mapped(system="Be brief.", model="m", options={"temperature": 0.5}, limits={"calls": 9}, deadline_seconds=9.0))
    message = owed(desk.job)
    assert message is not None
    job = read(message).job
    assert (job.prompt, job.system, job.model, job.options.temperature) == ("one\ntwo", "Be brief.", "m", 0.5)
    assert (job.limits.calls, job.deadline_seconds) == (None, None), "what the caller set was for his own job"
    assert asked(desk.job).took == Spent(calls=3, tokens=45, seconds=4.0)


@pytest.mark.parametrize(
    "job",
    [
        {"prompt": "q"},
        {"prompt": "q", "pattern": "auto"},
        mapped(tools=[{"type": "function", "function": {"name": "f"}}]),
        mapped(prompt="q" * 60_000),
        two_steps(),
        mapped(input={"items": ["one", "two"]}),
        mapped(input={"template": "Say {item}."}),
        mapped(input={"reduce": "list"}),
    ],
)
def test_what_has_no_baseline_owes_none(job: dict[str, Any]) -> None:
    """A single call, one that `auto` has picked; tools that a second call might use otherwise; an input that is too long; a task that its
    prompt alone does not say.
    """
    assert owed(ended("a" * 6_000, **job).job) is None


def test_an_answer_that_no_judge_reads_whole_owes_none() -> None:
    assert owed(ended("x" * COMPARED_CHARACTERS, **mapped()).job) is not None
    assert owed(ended("x" * (COMPARED_CHARACTERS + 1), **mapped()).job) is None


def test_a_job_that_failed_owes_none() -> None:
    desk = Desk(Policy(retry=RetryPolicy(attempts=1)))
    desk.submit(**mapped(prompt="one"))
    desk.say(claimed(desk.job, desk.step), failed(desk.job, desk.step, FailureKind.BAD_REQUEST))
    assert desk.job.settled is not None
    assert owed(desk.job) is None


def test_a_job_of_a_conversation_owes_none() -> None:
    """Neither a single call nor a judge would know what was said before."""
    desk = Desk(Policy(retry=RetryPolicy(attempts=1)))
    desk.submit(**VOTE, conversation="talk")
    desk.say(TurnGranted(tenant="acme", conversation="talk", job=desk.job.id, turn=1))
    while desk.job.settled is None:
        desk.wait(2.0)
        answer(desk)
    assert desk.job.settled.result.status is Status.SUCCEEDED
    assert owed(desk.job) is None


def test_a_comparison_is_never_compared() -> None:
    first = owed(ended().job)
    assert first is not None
    given = read(first)
    desk = Desk()
    desk.submit(id_=given.id, **given.job.model_dump(exclude_defaults=True, exclude={"id"}))
    assert desk.job.settled is not None, "nothing is to be asked: both say the same"
    assert owed(desk.job) is None


@pytest.mark.parametrize("job", [mapped(), {**VOTE, "input": {"answer": "number", "samples": 3}}])
@pytest.mark.parametrize("died", range(4))
def test_a_successor_sends_the_same_record(job: dict[str, Any], died: int) -> None:
    """After a take-over behind so many answers, and one more behind the end: what is kept, and what it cost, is history's."""
    desk, answers = Desk(Policy(retry=RetryPolicy(attempts=1))), 0
    desk.submit(**job)
    while desk.job.settled is None:
        desk.wait(2.0)
        for name in list(desk.job.steps):
            step = desk.job.steps.get(name)
            if step is not None and step.request is not None:
                desk.say(claimed(desk.job, step), succeeded(desk.job, step, "Answer: 1"))
                answers += 1
                if answers == died:
                    desk.take_over()
    desk.take_over()
    assert owed(desk.job) == owed(ended(**job).job)


def test_another_release_may_write_it_otherwise() -> None:
    """It is known by what it is about: the header says it, not the bytes."""
    message = owed(ended().job)
    assert message is not None
    other = Message(
        message.topic,
        (message.value or b"").replace(b'"accepted_at":', b'"accepted_at": '),
        message.key,
        message.partition,
        message.headers,
    )
    assert read(message).digest == read(other).digest
    assert headers.find(message.headers, headers.MADE_BY) == b"planner"


def test_the_share_is_drawn_by_the_job_and_not_by_chance() -> None:
    """As many as it says, the same ones again, and more of them where it is larger."""
    jobs = [ended(id_=f"job-{number}").job for number in range(400)]
    few, many = ({job.id for job in jobs if owed(job, share)} for share in (0.1, 0.5))
    assert few < many
    assert len(few) == pytest.approx(40, abs=20)
    assert len(many) == pytest.approx(200, abs=35)
    assert few == {job.id for job in jobs if owed(job, 0.1)}
    assert not any(owed(job, 0.0) for job in jobs)


def test_one_id_used_again_later_is_another_job() -> None:
    assert comparison_id("x", 1.0, HOMES) != comparison_id("x", 2.0, HOMES)
