"""The history checker on hand-made histories: each violation is found, and only that; what is right passes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from random import Random

import pytest
from click.testing import CliRunner

from infra.cli.cluster import Edge
from infra.cli.main import main
from infra.verify.checker import Scope
from infra.verify.laws import LAWS, LawKind
from infra.verify.reading import verify
from infra.verify.report import EXAMPLES, Report
from shared.clock import LoopClock, ManualClock
from shared.contracts import headers, ids
from shared.contracts.base import PriorityClass
from shared.contracts.event import FirstAsk, LastAnswer
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.port import NewTopic, TopicPartition
from shared.topics import Topics, TopicSettings
from tests.support.violations import AT, VIOLATIONS, Story, lost, whole

TOPICS = Topics(TopicSettings(home_partitions=2, other_partitions=2))

EVENTS = TopicPartition(TOPICS.job_events, 1)
JOBS_AT_1 = TopicPartition(TOPICS.jobs(PriorityClass.STANDARD), 1)


def told(*stories: Callable[[Story], None], home: int = 1) -> tuple[MemoryLog, Story]:
    """A log with these stories, after a whole life of another job."""
    log, story = MemoryLog(LoopClock()), Story(TOPICS, home)
    log.create([NewTopic(t.name, t.partitions, 1, {}) for t in TOPICS.all()])
    story.started()
    story.life("before")
    for tell in stories:
        tell(story)

    async def write() -> None:
        for message in story.messages:
            log.write(TopicPartition(message.topic, message.partition or 0), [message])
        log.group("tutti-planner").offsets.update(story.committed)

    asyncio.run(write())
    return log, story


def checked(log: MemoryLog, **scope: float | bool) -> Report:
    return asyncio.run(verify(log, Scope(TOPICS, "memory", **scope), LoopClock()))  # type: ignore[arg-type]


@pytest.mark.parametrize(("tell", "kind"), VIOLATIONS.items(), ids=[tell.__name__ for tell in VIOLATIONS])
def test_each_violation_is_found_and_nothing_else(tell: Callable[[Story], None], kind: LawKind) -> None:
    report = checked(told(tell)[0])
    assert {found: finding.count for found, finding in report.findings.items()} == {kind: 1}
    (example,) = report.findings[kind].examples
    assert example.place.offset >= 0
    assert example.place.topic in [topic.name for topic in TOPICS.all()]


def test_every_kind_has_a_meaning_and_a_story() -> None:
    assert set(LAWS) == set(LawKind)
    assert set(LawKind) - set(VIOLATIONS.values()) == {LawKind.UNFINISHED}


def test_what_looks_strange_and_is_right_passes() -> None:
    """Resubmissions, late and wasted outcomes, take-overs, stale events, repeated results, delayed, waiting and refused jobs."""
    report = checked(told(whole)[0])
    counts = report.counts
    assert report.findings == {}
    assert (counts.accepted, counts.settled["succeeded"], counts.live) == (4, 3, 1)
    assert (counts.resubmitted, counts.delayed, counts.waiting, counts.dead_letters, counts.cancels) == (1, 1, 1, 1, 1)
    assert (counts.epochs, counts.stale_events, counts.retries) == (2, 2, 1)
    assert (counts.executions, counts.answers, counts.wasted_executions) == (4, 3, 1)


def test_settled_means_that_nothing_may_be_open() -> None:
    """Live, delayed and waiting: each is a job that has not ended."""
    report = checked(told(whole)[0], settled=True)
    assert {kind: finding.count for kind, finding in report.findings.items()} == {LawKind.UNFINISHED: 3}
    assert report.lost == 3


@pytest.mark.parametrize("sent", ["hi", "other"])
def test_asks_and_answers_that_ride_in_other_events_are_judged(sent: str) -> None:
    """The answer of the end must have been sent, as one of its own must."""

    def tell(story: Story) -> None:
        step = story.step("a", "s")
        story.job("a")
        story.accept("a", asks=(FirstAsk(step=step, path="0.0", agent="chat", model="auto"),))
        story.success("a", text=sent)
        story.settle("a", answered=LastAnswer(step=step, attempt=1))
        story.publish("a")

    report = checked(told(tell)[0])
    assert (report.counts.steps, report.counts.answers) == (2, 2), "with those of the job before"
    assert set(report.findings) == (set() if sent == "hi" else {LawKind.ANSWER_FROM_NOBODY})


def test_what_was_accepted_is_no_refused_record() -> None:
    """Whatever has changed since about what may be a job: capabilities may go."""

    def tell(story: Story) -> None:
        body = b'{"id":"%s","prompt":"x","capability":"gone"}' % story.name("a").encode()
        record = story.write(JOBS_AT_1.topic, body)
        story.commit(record + 1)
        story.accept("a", record=record)

    report = checked(told(tell)[0])
    assert report.findings == {}
    assert (report.counts.live, report.counts.dead_letters) == (1, 0)


def test_an_id_used_again_after_its_window_is_another_run() -> None:
    def tell(story: Story) -> None:
        story.life("a")
        story.accept("a", client_id=True, at=AT + 7_200)
        story.ask("a")
        story.success("a", text="second", claim="c9")
        story.answer("a", text="second")
        story.settle("a", "second", at=AT + 7_201)
        story.publish("a", "second")

    assert checked(told(tell)[0]).findings == {}


def test_the_same_id_on_two_homes_is_two_ends() -> None:
    """Homes are read one after the other; an id belongs to one of them."""
    log, story = told()
    other = Story(TOPICS, 0)
    other.name = story.name  # type: ignore[method-assign]
    other.started()
    other.life("before")
    asyncio.run(_write(log, other))
    assert set(checked(log).findings) == {LawKind.SETTLED_TWICE}


async def _write(log: MemoryLog, story: Story) -> None:
    for message in story.messages:
        log.write(TopicPartition(message.topic, message.partition or 0), [message])


def test_all_are_counted_and_few_are_shown() -> None:

    def many(story: Story) -> None:
        for number in range(EXAMPLES + 3):
            story.job(f"lost-{number}")
            story.job(f"lost-{number}")  # sent twice, lost once
        story.commit(story.job("last") + 1)

    log, story = told(many)
    finding = checked(log).findings[LawKind.LOST]
    assert (finding.count, len(finding.examples)) == (EXAMPLES + 4, EXAMPLES)
    assert {example.job for example in finding.examples} <= {story.name(f"lost-{number}") for number in range(EXAMPLES + 3)}


@pytest.mark.parametrize("arrives", [True, False])
def test_what_lies_elsewhere_must_have_come_home(arrives: bool) -> None:
    """A record whose id is at home on another partition is lost if nothing came there; what came there came of it."""
    name = next(f"far-{number}" for number in range(99) if ids.home_of(f"far-{number}-1", 2) == 0)

    def sent(story: Story) -> None:
        story.commit(story.job(name) + 1)

    log, story = told(sent)
    assert {kind: finding.count for kind, finding in checked(log).findings.items()} == {LawKind.LOST: 1}
    other = Story(TOPICS, 0)
    other.name = story.name  # type: ignore[method-assign]
    if arrives:
        mark = headers.Origin(TOPICS.jobs(PriorityClass.STANDARD), 1, story.committed[JOBS_AT_1] - 1, 0).header(headers.FORWARDED_FROM)
        other.started()
        other.life(name)
        other.messages = [m._replace(headers=(*m.headers, mark)) if m.topic == JOBS_AT_1.topic else m for m in other.messages]
        asyncio.run(_write(log, other))
        assert checked(log).findings == {}


@pytest.mark.parametrize("taken", [False, True])
@pytest.mark.parametrize("body", ["large", "without an id"])
def test_what_is_sent_on_to_its_own_home_may_wait_there(taken: bool, body: str) -> None:
    """A large record goes by reference behind all that its home has not taken yet; taken, and in no history, it is lost."""
    name = next(f"near-{number}" for number in range(99) if ids.home_of(f"near-{number}-1", 2) == 1)

    def sent(story: Story) -> None:
        value = b'{"prompt": "hello"}' if body == "without an id" else json.dumps({"id": story.name(name), "prompt": "x" * 99_000}).encode()
        first = story.write(JOBS_AT_1.topic, value, "job", story.name(name))
        mark = headers.Origin(JOBS_AT_1.topic, 1, first, 0).header(headers.FORWARDED_FROM)
        last = story.job(name)
        story.messages[-1] = story.messages[-1]._replace(headers=(*story.messages[-1].headers, mark))
        story.commit(last + taken)

    found = checked(told(sent)[0]).findings
    assert {kind: finding.count for kind, finding in found.items()} == ({LawKind.LOST: 1} if taken else {})


def _middle() -> tuple[MemoryLog, int]:
    """A fenced planner's settle event is the first that is read; its offset."""

    def tail(story: Story) -> None:
        fenced = story.epoch
        story.started()
        story.settle("before", "stale", epoch=fenced)
        story.life("after")

    log, _ = told(tail)
    records = log.existing(EVENTS).records
    return log, next(n for n, record in enumerate(records) if b'"stale"' in (record.value or b""))


def test_reading_from_the_middle_knows_the_epoch() -> None:
    """The PlannerStarted in force is looked for behind where reading begins."""
    log, cut = _middle()
    partitions = [TopicPartition(t.name, n) for t in TOPICS.all() for n in range(t.partitions)]
    for record in (record for partition in partitions for record in log.existing(partition).records):
        record.timestamp = int(AT * 1000)
    for record in log.existing(EVENTS).records[:cut]:
        record.timestamp -= 3_600_000
    report = checked(log, since=AT - 60, window_seconds=60.0)
    assert (report.counts.stale_events, report.counts.epochs) == (1, 0)
    assert report.counts.settled["succeeded"] == 1


def test_reading_where_the_beginning_is_gone_guesses_no_epoch_too_low() -> None:
    """With the PlannerStarted gone as well, the highest epoch that comes is in force: a fenced planner's is always lower."""
    log, cut = _middle()
    log.existing(EVENTS).delete_before(cut)
    report = checked(log, since=AT - 1e6)
    assert report.counts.stale_events == 1
    assert LawKind.SETTLED_TWICE not in report.findings


class TestCommand:
    """`tutti verify`."""

    def tutti(self, log: MemoryLog, *arguments: str) -> tuple[int, str]:
        edge = Edge(open_log=lambda _settings, _clock: log, clock=ManualClock(AT + 60), random=Random(7))
        environment = {"TUTTI_TOPICS__HOME_PARTITIONS": "2", "TUTTI_TOPICS__OTHER_PARTITIONS": "2"}
        result = CliRunner().invoke(main, ["verify", *arguments], obj=edge, catch_exceptions=False, env=environment)
        return result.exit_code, result.stdout

    def test_says_that_all_is_well(self) -> None:
        code, text = self.tutti(told(whole)[0])
        assert (code, "no violation" in text) == (0, True)

    def test_shows_violations_and_ends_with_one(self) -> None:
        code, text = self.tutti(told(lost)[0])
        assert code == 1
        assert "lost" in text
        assert "jobs.standard/1/1" in text

    def test_speaks_json(self) -> None:
        code, text = self.tutti(told(lost)[0], "--json")
        report = json.loads(text)
        assert (code, report["lost"], report["doubly_accepted"]) == (1, 1, 0)
        assert report["findings"][0]["examples"][0]["place"] == "jobs.standard/1/1"

    def test_judges_only_the_range(self) -> None:
        log, _ = told(lost)
        written = asyncio.run(_moment(log))
        assert self.tutti(log, "--since", str(written))[0] == 2
        assert self.tutti(log, "--until", "2020-01-01T00:00:00Z")[0] == 0
        assert self.tutti(log, "--since", "2h")[0] == 1


async def _moment(log: MemoryLog) -> float:
    return log.existing(TopicPartition(TOPICS.jobs(Story(TOPICS, 0).topics.class_of("jobs.standard")), 1)).records[0].timestamp / 1000
