"""`tutti submit`: options become a job, a job's course becomes output and an exit code."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner, Result

from infra.cli.answer import AnswerEnd, AnswerText, Display, Note, Update
from infra.cli.cluster import Cluster, Edge
from infra.cli.exits import CommandExit, Exit
from infra.cli.main import main
from infra.cli.produce import send, watch
from infra.cli.submit import WaitOptions, show
from shared.clock import LoopClock, ManualClock
from shared.contracts.base import PriorityClass
from shared.contracts.callback import Callback
from shared.contracts.chat import Answer
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.headers import Envelope
from shared.contracts.job import Job
from shared.contracts.reply import Chunk, Chunks, Final
from shared.contracts.result import Result as JobResult
from shared.contracts.result import Status
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.port import Message, TopicPartition
from shared.processing.provision import ensure_topics
from shared.settings import ClusterSettings
from shared.topics import Topics
from shared.tree import StepStatus, Tree, tree_of

TOPICS = Topics()
NOW = 1_700_000_000.0
HOW = WaitOptions(wait=True, stream=False, as_json=False, timeout_seconds=5.0)


def result(text: str = "Mars.", status: Status = Status.SUCCEEDED, **fields: Any) -> JobResult:
    answer = Answer(text=text, model="m", node="n", simulated=fields.pop("simulated", False)) if status is Status.SUCCEEDED else None
    return JobResult(job="j1", status=status, answer=answer, accepted_at=NOW, finished_at=NOW + 1, **fields)


def submit(log: MemoryLog, *arguments: str, text: str | None = None) -> Result:
    edge = Edge(open_log=lambda _settings, _clock: log, clock=ManualClock(NOW), random=Random(7))
    return CliRunner().invoke(main, ["submit", *arguments, "--via", "kafka", "--no-wait"], obj=edge, input=text, catch_exceptions=False)


def sent(log: MemoryLog, topic: str) -> list[Job]:
    async def read() -> list[Job]:
        consumer = await log.consumer(client_id="test")
        partitions = [TopicPartition(topic, n) for n in range(6)]
        consumer.assign(partitions)
        found: list[Job] = []
        while len(found) < sum((await consumer.end_offsets(partitions)).values()):
            found += [
                Job.model_validate_json(r.value or b"") for records in (await consumer.poll(timeout_seconds=1)).values() for r in records
            ]
        return found

    return asyncio.run(read())


@pytest.fixture
def log() -> MemoryLog:
    memory = MemoryLog(LoopClock())
    asyncio.run(ensure_topics(memory, TOPICS))
    return memory


def test_options_become_a_job_on_the_topic_of_its_class(log: MemoryLog, tmp_path: Path) -> None:
    """Each option stands in its field; what was not given stays absent."""
    chain = tmp_path / "steps.yaml"
    chain.write_text("steps:\n- {name: draft, template: 'Write about {input}'}\n- {name: final, template: 'Shorten {draft}'}\n")
    done = submit(
        log, "a topic", "--class", "batch", "--model", "m:1", "--system", "Be brief.", "--tenant", "acme", "--pattern", "chain",
        "--input", str(chain), "--deadline", "5m", "--temperature", "0.5", "--max-tokens", "9", "--seed", "3", "--id", "mine",
        "--capability", "research", "--conversation", "talk", "--callback", "https://h.example/", "--callback-secret", "two",
    )  # fmt: skip
    assert (done.exit_code, done.stdout) == (0, "mine\n")
    (job,) = sent(log, TOPICS.jobs(PriorityClass.BATCH))
    assert (job.id, job.prompt, job.pattern, job.model, job.system, job.tenant) == ("mine", "a topic", "chain", "m:1", "Be brief.", "acme")
    assert (job.capability, job.conversation) == ("research", "talk")
    assert job.callback == Callback(url="https://h.example/", secret="two")
    assert [step["name"] for step in job.input["steps"]] == ["draft", "final"]
    assert (job.deadline_at, job.deadline_seconds) == (None, 300.0)
    assert job.options.model_dump(exclude_defaults=True) == {"temperature": 0.5, "max_tokens": 9, "seed": 3}


def test_a_job_gets_an_id_before_it_is_sent(log: MemoryLog) -> None:
    """So that it can be looked for whatever happens; --json gives it to scripts."""
    identifier = json.loads(submit(log, "a", "--json").stdout)["job"]
    assert [job.id for job in sent(log, TOPICS.jobs(PriorityClass.INTERACTIVE))] == [identifier]


def test_the_prompt_may_come_from_standard_input(log: MemoryLog) -> None:
    """Long texts do not fit a command line."""
    submit(log, "-", text="a long text\n")
    assert [job.prompt for job in sent(log, TOPICS.jobs(PriorityClass.INTERACTIVE))] == ["a long text\n"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "--temperature", "9"], "`options.temperature`"),
        (["a", "--deadline", "soon"], "`deadline_at`"),
        (["a", "--not-before", "2026-01-31T12:00:00"], "needs an offset"),
        (["a", "--pattern", "chain"], "the chain input lacks `steps`"),
        (["a", "--id", "has space"], "`id`"),
        (["a", "--capability", "cooking"], "it offers chat, code, creative, critic, embed, reasoning, research"),
        ([""], "`prompt`"),
        (["a", "--callback", "ftp://x"], "`callback.url`"),
        (["a", "--callback-secret", "x"], "--callback"),
    ],
)
def test_an_invalid_job_is_a_usage_error_and_is_not_sent(log: MemoryLog, arguments: list[str], message: str) -> None:
    """Exit code 2 and the field's name."""
    done = submit(log, *arguments)
    assert done.exit_code == Exit.USAGE
    assert message in done.stderr
    assert sent(log, TOPICS.jobs(PriorityClass.INTERACTIVE)) == []


@pytest.mark.parametrize("content", ["{", "- not an object", "\x00"])
def test_an_input_file_that_is_no_object_is_a_usage_error(log: MemoryLog, tmp_path: Path, content: str) -> None:
    """Exit code 2 with the file's name."""
    chain = tmp_path / "steps.yaml"
    chain.write_text(content)
    done = submit(log, "a", "--pattern", "chain", "--input", str(chain))
    assert done.exit_code == Exit.USAGE
    assert "steps.yaml" in done.stderr


async def course(*updates: Update) -> AsyncIterator[Update]:
    for update in updates:
        yield update


async def test_an_answer_is_printed_and_0_returned(capsys: pytest.CaptureFixture[str]) -> None:
    """Only the answer is on standard output."""
    assert await show(course(Note("accepted"), AnswerEnd(result())), "j1", HOW, LoopClock()) is Exit.OK
    assert capsys.readouterr() == ("Mars.\n", "")


async def test_a_failure_is_told_on_standard_error_and_1_returned(capsys: pytest.CaptureFixture[str]) -> None:
    """With its kind, its reason, and what is missing."""
    failure = Failure(kind=FailureKind.NO_NODE, message="no node can run it", missing=("model m",))
    assert await show(course(AnswerEnd(result(status=Status.FAILED, failure=failure))), "j1", HOW, LoopClock()) is Exit.FAILED
    assert capsys.readouterr() == ("", "tutti: job j1 failed: no_node: no node can run it (missing: model m)\n")


async def test_a_simulated_answer_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody may take it for a model's."""
    await show(course(AnswerEnd(result(simulated=True))), "j1", HOW, LoopClock())
    assert capsys.readouterr().out == "Mars.\n[simulated: no model was asked]\n"


async def test_a_course_that_breaks_off_is_told() -> None:
    """Exit code 3 with the command that tells the end."""
    with pytest.raises(CommandExit) as caught:
        await show(course(Note("accepted")), "j1", HOW, LoopClock())
    assert caught.value.code is Exit.UNREACHABLE
    assert "tutti jobs get j1" in caught.value.message


def test_the_time_limit_is_kept() -> None:
    """Exit code 5; the job goes on."""
    from infra.lab.virtual_loop import run

    async def silence() -> AsyncIterator[Update]:
        await LoopClock().sleep(1e6)
        yield Note("never")

    async def scenario() -> float:
        with pytest.raises(CommandExit) as caught:
            await show(silence(), "j1", HOW, LoopClock())
        assert caught.value.code is Exit.TIMEOUT
        return LoopClock().monotonic()

    assert run(scenario()) == pytest.approx(5.0, abs=0.3)


@pytest.mark.parametrize(
    ("pieces", "printed"),
    [
        ([(0, "Ma"), (2, "rs.")], "Mars.\n"),
        ([(0, "Ma"), (0, "Mars")], "Mars.\n"),
        ([(0, "Ma"), (3, "s.")], "Mars.\n"),
        ([], "Mars.\n"),
        ([(0, "Venus")], "Venus\n[the answer was begun again elsewhere]\nMars.\n"),
    ],
)
def test_a_stream_prints_every_character_once(pieces: list[tuple[int, str]], printed: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Repeated, lost and overtaken pieces do not show; another attempt's text does."""
    display = Display("j1", as_json=False, stream=True)
    for offset, text in pieces:
        display.show(AnswerText(offset, text))
    display.show(AnswerEnd(result()))
    assert capsys.readouterr().out == printed


def test_a_stream_for_machines_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Chunks, and the result last."""
    display = Display("j1", as_json=True, stream=True)
    display.show(AnswerText(0, "Ma"))
    display.show(AnswerEnd(result()))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["type"] for line in lines] == ["chunk", "result"]
    assert lines[1]["result"]["answer"]["text"] == "Mars."


@pytest.mark.parametrize("stream", [True, False])
async def test_over_kafka_the_watch_hears_of_its_own_job_only(stream: bool) -> None:
    """It stands where the end will appear before the job is sent; others' replies and foreign records are passed over."""
    log = MemoryLog(LoopClock())
    await ensure_topics(log, TOPICS)
    cluster = Cluster(ClusterSettings(), TOPICS, log, LoopClock(), Random(1))
    producer = await log.producer(client_id="planner")
    await producer.send(Message(TOPICS.results, result("an older end").to_bytes(), b"j1"))
    async with watch(cluster, "j1", stream=stream) as watching:
        await send(cluster, Job(id="j1", prompt="a", stream=stream), PriorityClass.STANDARD, watching.reply)
        await producer.send(Message(TOPICS.results, result("another's").to_bytes(), b"j2"))
        if watching.reply is not None:
            await _stream_replies(log, watching.reply.partition)
        else:
            await producer.send(Message(TOPICS.results, result().to_bytes(), b"j1"))
        updates = [update async for update in watching.updates()]
    assert "".join(update.text for update in updates if isinstance(update, AnswerText)) == ("Mars" if stream else "")
    assert isinstance(updates[-1], AnswerEnd)
    assert updates[-1].result == result()


async def _stream_replies(log: MemoryLog, partition: int | None) -> None:
    """What a worker and a planner send, among what is not for this caller."""
    chunks = [
        Chunk(job=job, step="s", attempt=1, sequence=n, offset=2 * n, text=text, correlation=job.encode())
        for n, (job, text) in enumerate([("j1", "Ma"), ("j1", "rs"), ("j2", "no")])
    ]
    producer = await log.producer(client_id="worker")
    for value in (Chunks(chunks=tuple(chunks)).to_bytes(), b"foreign", Final(correlation=b"j1", result=result()).to_bytes()):
        await producer.send(Message(TOPICS.replies, value, partition=partition))


async def test_a_streamed_job_names_its_reply_address() -> None:
    """The headers that planner and worker answer to."""
    log = MemoryLog(LoopClock())
    await ensure_topics(log, TOPICS)
    cluster = Cluster(ClusterSettings(), TOPICS, log, LoopClock(), Random(1))
    async with watch(cluster, "j1", stream=True) as watching:
        await send(cluster, Job(id="j1", prompt="a", stream=True), PriorityClass.STANDARD, watching.reply)
    consumer = await log.consumer(client_id="test")
    consumer.assign([TopicPartition(TOPICS.jobs(PriorityClass.STANDARD), n) for n in range(6)])
    ((record,),) = (await consumer.poll(timeout_seconds=1)).values()
    assert Envelope(record.headers).reply_address() == watching.reply


@pytest.mark.parametrize("as_json", [True, False])
async def test_a_tree_is_drawn_as_it_grows(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """After news, once a tick at most, and once more at the end; the answer comes last."""
    looks = 0

    async def look() -> Tree:
        nonlocal looks
        looks += 1
        return tree_of("j1", "running", [StepStatus(id="s", path="0.0", attempt=looks)], pattern="p", whole=True, result=None)

    how = WaitOptions(wait=True, stream=False, as_json=as_json, timeout_seconds=5.0, watch=True)
    assert await show(course(Note("accepted"), Note("asked"), AnswerEnd(result())), "j1", how, LoopClock(), look) is Exit.OK
    shown = capsys.readouterr()
    assert looks == 1
    if as_json:
        assert [json.loads(line)["type"] for line in shown.out.splitlines()] == ["tree", "result"]
    else:
        assert (shown.err, shown.out) == ("0.0 step: waits for a node\n", "Mars.\n")


@pytest.mark.parametrize("other", ["--stream", "--no-wait", "--via=kafka"])
def test_a_watch_goes_with_no_other_way_of_waiting(other: str) -> None:
    """Exit code 2 before anything is sent."""
    done = CliRunner().invoke(main, ["submit", "a", "--watch", other])
    assert done.exit_code == Exit.USAGE
    assert "--watch" in done.stderr
