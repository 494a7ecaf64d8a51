"""Promise: a pattern is one file. Dropped into an operator's folder it answers jobs over REST (`input`, `tutti/<name>`), by Kafka
record and from the command line, is offered among the models, and its input is checked at the door (simulated, virtual time).

How: a pattern that product code has never heard of, in a folder of the test's own, on the whole in-memory cluster.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner

from infra.cli.cluster import Edge
from infra.cli.exits import Exit
from infra.cli.main import main
from shared.clock import LoopClock, ManualClock
from shared.contracts.base import PriorityClass
from shared.contracts.job import Job
from shared.contracts.result import Status
from shared.errors import ConfigurationError
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.port import Message, TopicPartition
from shared.patterns import load
from shared.processing.provision import ensure_topics
from tests.support.cluster import processes, settings
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.rest import Answer, Request
from tests.support.cluster.world import World

PATTERN = '''
"""rounds: asks as often as it is told, each time about the last answer."""

from pydantic import Field

from shared.contracts.base import ModelName
from shared.contracts.chat import Answer, ChatMessage
from shared.patterns.context import chat
from shared.patterns.port import Pattern, PatternInput


class RoundsInput(PatternInput):
    times: int = Field(default=2, ge=1, le=5)
    model: ModelName | None = None


async def rounds(ctx, job, ask):
    answer = Answer()
    for number in range(ask.times):
        said = (*job.turns, ChatMessage(role="user", content=f"round {number} after {answer.text}"))
        answer = await ctx.ask(chat(job, said, agent="rounds"))
    return answer


ROUNDS = Pattern("rounds", 1, rounds, RoundsInput, likely_calls=lambda job, ask: [50] * ask.times)
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "rounds.py").write_text(PATTERN)
    monkeypatch.setenv("TUTTI_PATTERNS", str(tmp_path))
    return tmp_path


def typed(*arguments: str) -> tuple[Job, bytes]:
    """The record that `tutti submit` writes."""
    log, topics = MemoryLog(LoopClock()), settings.topics()
    asyncio.run(ensure_topics(log, topics))
    edge = Edge(open_log=lambda _settings, _clock: log, clock=ManualClock(1_700_000_000.0), random=Random(7))
    command = ["submit", "a stone", *arguments, "--via", "kafka", "--no-wait"]
    env = {"TUTTI_TOPICS__HOME_PARTITIONS": str(settings.HOMES)}
    assert CliRunner().invoke(main, command, obj=edge, catch_exceptions=False, env=env).exit_code == Exit.OK
    partitions = [log.existing(TopicPartition(topics.jobs(PriorityClass.INTERACTIVE), n)) for n in range(settings.HOMES)]
    [value] = [record.value or b"" for partition in partitions for record in partition.records]
    return Job.model_validate_json(value), value


async def called(world: World, request: Request) -> Answer:
    world.call("ingress-1", request.run(world.instances["ingress-1"].service.asgi()))
    assert await world.until(lambda: request.answer.complete, 60.0)
    return request.answer


def test_a_pattern_from_a_folder_is_offered_and_answers_on_every_way_in(folder: Path) -> None:
    """The same steps whichever way the job came; each in history with the pattern's name."""
    (folder / "input.yaml").write_text("times: 4\n")
    by_command, value = typed("--pattern", "rounds", "--input", str(folder / "input.yaml"), "--id", "typed")
    assert (by_command.pattern, by_command.input) == ("rounds", {"times": 4})

    def post(path: str, **body: Any) -> Request:
        return Request("POST", path, body)

    chat = {"model": "tutti/rounds", "messages": [{"role": "user", "content": "a stone"}]}

    async def scenario() -> None:
        async with World(3, FaultMix()) as world:
            world.start_all()
            assert await world.until(lambda: all(found.service.readiness().ready for found in world.instances.values()), 60.0)
            offered = (await called(world, Request("GET", "/v1/models"))).json["data"]
            assert {"tutti/auto", "tutti/rounds"} <= {model["id"] for model in offered}

            done = await called(world, post("/v1/chat/completions", **chat))
            assert (done.status, done.json["model"]) == (200, "small:latest")
            given = await called(world, post("/v1/chat/completions", **chat, input={"times": 3}))
            assert given.status == 200
            job = await called(world, post("/v1/jobs?wait=30", id="rest", prompt="a stone", pattern="rounds", input={"times": 1}))
            assert (job.status, job.json["result"]["status"]) == (200, "succeeded")
            topic = world.topics.jobs(PriorityClass.INTERACTIVE)
            for record in (value, b'{"id":"plain","prompt":"a stone","pattern":"rounds"}'):
                world.log.write(TopicPartition(topic, 0), [Message(topic, record, None, 0)])
            assert await world.until(lambda: world.history.result_count == 5, 60.0)
            results = [written.value for [written] in world.history.results.values()]
            assert {(result.status, result.pattern) for result in results} == {(Status.SUCCEEDED, "rounds")}
            assert sorted(result.steps for result in results) == [1, 2, 2, 3, 4]

            for body, param in (
                ({"pattern": "nonesuch"}, "pattern"),
                ({"pattern": "rounds", "input": {"times": 9}}, "input"),
                ({"pattern": "rounds", "input": {"time": 1}}, "input"),
                ({"texts": ["x"], "prompt": None, "pattern": "rounds"}, "input"),
            ):
                refused = await called(world, post("/v1/jobs", **{"prompt": "x", **body}))
                assert (refused.status, refused.json["error"]["param"]) == (400, param), body
            refused = await called(world, post("/v1/jobs", prompt="x", pattern="rounds", input={"model": "nobody-has-it"}))
            assert (refused.status, refused.json["error"]["code"]) == (404, "model_not_found")
            assert (await called(world, post("/v1/chat/completions", **{**chat, "model": "auto"}, input={"times": 3}))).status == 400

    processes.run(scenario())


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("broken.py", "import nothing_of_this_name", "broken.py cannot be loaded: ModuleNotFoundError"),
        ("twice.py", "from shared.patterns.port import Pattern\nA = Pattern('single', 1, print)", "two patterns single of version 1"),
    ],
)
def test_what_cannot_be_a_pattern_is_told_at_the_start(tmp_path: Path, name: str, text: str, words: str) -> None:
    """The process ends with a sentence that names the file, or what is there twice."""
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigurationError, match=words):
        load(str(tmp_path))
    with pytest.raises(ConfigurationError, match="names no folder"):
        load(str(tmp_path / "absent"))
