"""Hand-made histories for the history checker: a whole life, and for each kind of violation one that is broken in just that way.

A story is told of one home; the same stories are written into the in-memory log and into a real Kafka.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from infra.verify.laws import LawKind
from shared.contracts import event as events
from shared.contracts import headers, outcome
from shared.contracts.base import PriorityClass, StepId
from shared.contracts.chat import Answer
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.event import PlannerStarted
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import Job
from shared.contracts.limits import Limits
from shared.contracts.result import Result, Status
from shared.kafka.port import Message, TopicPartition
from shared.processing.delays import build_delayed
from shared.topics import Topics, partition_of

AT = 1_700_000_000.0
JOBS = PriorityClass.STANDARD


@dataclass
class Story:
    """Messages of one home in the order of writing. Offsets are foreseen, so nothing else may write there."""

    topics: Topics
    home: int
    messages: list[Message] = field(default_factory=list)
    committed: dict[TopicPartition, int] = field(default_factory=dict)
    """Of the planner's group."""
    epoch: int = -1
    _next: Counter[TopicPartition] = field(default_factory=Counter)

    def name(self, job: str) -> str:
        """Ids differ between homes, so that stories share `results`."""
        return f"{job}-{self.home}"

    def write(self, topic: str, value: bytes, kind: str | None = None, key: str = "k", partition: int | None = None) -> int:
        """One record; returns its offset, which is right only on the story's own home."""
        where = TopicPartition(topic, self.home if partition is None else partition)
        envelope = headers.envelope(kind) if kind else ()
        self.messages.append(Message(topic, value, key.encode(), where.partition, envelope))
        self._next[where] += 1
        return self._next[where] - 1

    def started(self) -> int:
        """A planner takes the home."""
        start = PlannerStarted(nonce="n", planner="p")
        self.epoch = self.write(self.topics.job_events, start.to_bytes(), start.type)
        return self.epoch

    def event(self, kind: type[Any], job: str, *, epoch: int | None = None, at: float = AT, **fields: Any) -> int:
        """One event of the planner in force, unless another epoch is given."""
        event = kind(epoch=self.epoch if epoch is None else epoch, job=self.name(job), at=at, **fields)
        return self.write(self.topics.job_events, event.to_bytes(), event.type, event.job)

    def job(self, job: str, **fields: Any) -> int:
        """The job's record."""
        body = Job(id=self.name(job), prompt="hello", **fields)
        return self.write(self.topics.jobs(JOBS), body.to_bytes(), "job", self.name(job))

    def accept(self, job: str, *, client_id: bool = False, record: int = 0, **fields: Any) -> int:
        """`record`: offset of the job's record."""
        return self.event(
            events.JobAccepted,
            job,
            request=Job(id=self.name(job), prompt="hello"),
            client_id=client_id,
            priority_class=JOBS,
            home=self.home,
            source="jobs.standard/0/0",
            source_offset=record,
            pattern_version=1,
            limits=Limits(),
            deadline_at=AT + 60,
            digest="d",
            **fields,
        )

    def ask(self, job: str, step: str = "s", **fields: Any) -> int:
        return self.event(events.StepAsked, job, step=self.step(job, step), path=step, agent="chat", model="auto", **fields)

    def step(self, job: str, step: str) -> StepId:
        return StepId(f"{self.name(job)}-{step}")

    def answer(self, job: str, step: str = "s", *, attempt: int = 1, text: str = "hi", **fields: Any) -> int:
        return self.event(events.StepAnswered, job, step=self.step(job, step), attempt=attempt, answer=Answer(text=text), **fields)

    def retry(self, job: str, step: str = "s", *, attempt: int = 2, **fields: Any) -> int:
        return self.event(events.StepRetried, job, step=self.step(job, step), attempt=attempt, **fields)

    def fail(self, job: str, step: str = "s", *, attempt: int = 1, again: float | None = 0.5) -> int:
        failure = Failure(kind=FailureKind.MODEL_ERROR, message="no")
        return self.event(events.AttemptFailed, job, step=self.step(job, step), attempt=attempt, failure=failure, retry_after_seconds=again)

    def claim(self, job: str, claim: str, step: str = "s") -> int:
        made: dict[str, Any] = {"claim": claim, "node": "n", "mailbox": 0, "lease_seconds": 20.0}
        return self.event(events.StepClaimedBy, job, step=self.step(job, step), attempt=1, **made)

    def result_of(self, job: str, text: str = "hi") -> Result:
        return Result(job=self.name(job), status=Status.SUCCEEDED, answer=Answer(text=text), accepted_at=AT, finished_at=AT + 1)

    def settle(self, job: str, text: str = "hi", **fields: Any) -> int:
        return self.event(events.JobSettled, job, result=self.result_of(job, text), **fields)

    def publish(self, job: str, text: str = "hi") -> None:
        key = self.name(job)
        partition = partition_of(key.encode(), self.topics.settings.other_partitions)
        self.write(self.topics.results, self.result_of(job, text).to_bytes(), "result", key, partition)

    def success(self, job: str, step: str = "s", *, attempt: int = 1, text: str = "hi", claim: str = "c1") -> None:
        """A worker's success on `outcomes`."""
        sent = outcome.StepSucceeded(
            job=self.name(job), step=self.step(job, step), attempt=attempt, claim=claim, node="n", answer=Answer(text=text)
        )  # fmt: skip
        self.write(self.topics.outcomes, sent.to_bytes(), sent.type)

    def commit(self, jobs: int, watermark: int = 0) -> None:
        """The planner's group: next offset of the jobs topic, position on `job-events`."""
        self.committed[TopicPartition(self.topics.jobs(JOBS), self.home)] = jobs
        self.committed[TopicPartition(self.topics.job_events, self.home)] = watermark

    def run(self, job: str, text: str = "hi") -> None:
        """From acceptance to answer."""
        self.accept(job)
        self.ask(job)
        self.success(job, text=text)
        self.answer(job, text=text)

    def life(self, job: str) -> None:
        """A whole one, without fault."""
        self.commit(self.job(job) + 1)
        self.run(job)
        self.settle(job)
        self.publish(job)


def lost(story: Story) -> None:
    story.commit(story.job("a") + 1)


def refused_in_silence(story: Story) -> None:
    """That the id is known makes no job of the record."""
    story.life("a")
    story.commit(story.write(story.topics.jobs(JOBS), b'{"id":"%s","promt":"x"}' % story.name("a").encode()) + 1)


def cancel_without_a_key(story: Story) -> None:
    story.commit(story.write(story.topics.jobs(JOBS), b"", "cancel", "") + 1)


def cancel_of_no_id(story: Story) -> None:
    story.commit(story.write(story.topics.jobs(JOBS), b"", "cancel", "größe") + 1)


def result_missing(story: Story) -> None:
    story.run("a")
    story.commit(0, story.settle("a") + 1)


def accepted_while_live(story: Story) -> None:
    story.accept("a")
    story.accept("a")


def accepted_again_within_the_window(story: Story) -> None:
    story.life("a")
    story.accept("a", client_id=True, at=AT + 60)


def settled_twice(story: Story) -> None:
    story.life("a")
    story.settle("a")


def results_differ(story: Story) -> None:
    story.life("a")
    story.publish("a", "something else")


def result_without_acceptance(story: Story) -> None:
    story.accept("a")
    story.publish("a")


def result_is_not_what_was_settled(story: Story) -> None:
    story.run("a")
    story.settle("a")
    story.publish("a", "something else")


def answered_twice(story: Story) -> None:
    story.run("a")
    story.answer("a")


def answer_not_asked(story: Story) -> None:
    story.accept("a")
    story.success("a")
    story.answer("a")


def answer_after_the_end(story: Story) -> None:
    story.accept("a")
    story.ask("a")
    story.settle("a")
    story.publish("a")
    story.success("a")
    story.answer("a")


def answer_of_an_attempt_to_come(story: Story) -> None:
    story.accept("a")
    story.ask("a")
    story.success("a", attempt=2)
    story.answer("a", attempt=2)


def answer_from_nobody(story: Story) -> None:
    story.accept("a")
    story.ask("a")
    story.success("a", text="another text")
    story.answer("a")


def asked_twice(story: Story) -> None:
    story.accept("a")
    story.ask("a")
    story.ask("a")


def asked_after_the_end(story: Story) -> None:
    story.life("a")
    story.ask("a", "t")


def retried_after_the_answer(story: Story) -> None:
    story.run("a")
    story.retry("a")


def claimed_twice(story: Story) -> None:
    story.accept("a")
    story.ask("a")
    story.claim("a", "c1")
    story.claim("a", "c2")


def retried_without_a_failure(story: Story) -> None:
    story.accept("a")
    story.ask("a")
    story.retry("a")


def failed_twice(story: Story) -> None:
    story.accept("a")
    story.ask("a")
    story.fail("a")
    story.fail("a")


def attempts_do_not_increase(story: Story) -> None:
    story.accept("a")
    story.ask("a")
    story.fail("a")
    story.retry("a", attempt=2)
    story.fail("a", attempt=2)
    story.retry("a", attempt=2)


def failure_of_an_old_attempt(story: Story) -> None:
    story.accept("a")
    story.ask("a")
    story.fail("a")
    story.retry("a", attempt=2)
    story.fail("a", attempt=1)


def attempt_not_begun(story: Story) -> None:
    story.life("a")
    story.success("a", attempt=2, claim="c2")


def fenced_result(story: Story) -> None:
    fenced = story.epoch
    story.run("a")
    story.started()
    story.settle("a", "of the fenced one", epoch=fenced)
    story.settle("a")
    story.publish("a", "of the fenced one")


def fenced_result_of_a_live_job(story: Story) -> None:
    fenced = story.epoch
    story.run("a")
    story.started()
    story.settle("a", epoch=fenced)
    story.publish("a")


def fenced_retry(story: Story) -> None:
    fenced = story.epoch
    story.accept("a")
    story.ask("a")
    story.started()
    story.retry("a", epoch=fenced)
    story.success("a", claim="c1")
    story.success("a", attempt=2, claim="c2")
    story.answer("a")
    story.settle("a")
    story.publish("a")


def impossible_epoch(story: Story) -> None:
    story.accept("a", epoch=story.epoch + 5)


def unreadable(story: Story) -> None:
    story.write(story.topics.job_events, b'{"type":"job_imagined","epoch":0}', "job_imagined")


VIOLATIONS: Mapping[Callable[[Story], None], LawKind] = {
    lost: LawKind.LOST,
    refused_in_silence: LawKind.LOST,
    cancel_without_a_key: LawKind.LOST,
    cancel_of_no_id: LawKind.LOST,
    result_missing: LawKind.RESULT_MISSING,
    accepted_while_live: LawKind.ACCEPTED_TWICE,
    accepted_again_within_the_window: LawKind.ACCEPTED_TWICE,
    settled_twice: LawKind.SETTLED_TWICE,
    results_differ: LawKind.RESULTS_DIFFER,
    result_without_acceptance: LawKind.RESULT_WITHOUT_ACCEPTANCE,
    result_is_not_what_was_settled: LawKind.RESULT_WITHOUT_ACCEPTANCE,
    answered_twice: LawKind.ANSWERED_TWICE,
    answer_not_asked: LawKind.ANSWER_NOT_ASKED,
    answer_after_the_end: LawKind.ANSWER_NOT_ASKED,
    answer_of_an_attempt_to_come: LawKind.ANSWER_NOT_ASKED,
    answer_from_nobody: LawKind.ANSWER_FROM_NOBODY,
    asked_twice: LawKind.ASKED_TWICE,
    asked_after_the_end: LawKind.AFTER_THE_END,
    retried_after_the_answer: LawKind.AFTER_THE_END,
    claimed_twice: LawKind.CLAIMED_TWICE,
    retried_without_a_failure: LawKind.ATTEMPTS_NOT_INCREASING,
    failed_twice: LawKind.ATTEMPTS_NOT_INCREASING,
    attempts_do_not_increase: LawKind.ATTEMPTS_NOT_INCREASING,
    failure_of_an_old_attempt: LawKind.ATTEMPTS_NOT_INCREASING,
    attempt_not_begun: LawKind.ATTEMPT_NOT_BEGUN,
    fenced_result: LawKind.FENCED_WRITER,
    fenced_result_of_a_live_job: LawKind.FENCED_WRITER,
    fenced_retry: LawKind.FENCED_WRITER,
    impossible_epoch: LawKind.IMPOSSIBLE_EPOCH,
    unreadable: LawKind.UNREADABLE,
}
"""Story → what it violates. Each is told of a home of its own, after PlannerStarted and a whole life of another job."""


def whole(story: Story) -> None:
    """Everything that looks strange and is right."""
    fenced = story.epoch
    story.life("twice")
    story.job("twice")  # sent again by its caller
    story.accept("retried")
    story.ask("retried")
    story.fail("retried")
    story.retry("retried")
    story.success("retried", attempt=1)  # late, and of a step that is not a stream: good enough
    story.success("retried", attempt=2, text="wasted", claim="c2")
    story.answer("retried", attempt=1)
    story.settle("retried")
    story.publish("retried")
    story.publish("retried")  # published again after a take-over
    story.started()
    story.accept("stale", epoch=fenced)  # without effect
    story.settle("twice", "stale", epoch=fenced)
    story.accept("live")
    not_before = AT + 100
    story.job("delayed", not_before=not_before)
    again = Message(story.topics.jobs(JOBS), Job(id=story.name("delayed"), prompt="hello").to_bytes(), b"k", story.home)
    delayed = build_delayed(story.topics, again, not_before, AT)
    story.write(delayed.topic, delayed.value or b"", "delayed", partition=0)
    refused = story.write(story.topics.jobs(JOBS), b'{"id":"%s","promt":"x"}' % story.name("twice").encode())
    letter = DeadLetter(topic=story.topics.jobs(JOBS), partition=story.home, offset=refused, service="planner", reason="r", code="c", at=AT)
    story.write(story.topics.dead_letters, letter.to_bytes(), "DeadLetter", partition=0)
    story.write(story.topics.jobs(JOBS), b"", "cancel", story.name("live"))
    story.commit(refused + 2, 1)
    story.job("waiting")
