"""A planner, or several, on the in-memory log under virtual time, with a pretended router and worker. Simulated: no model answers here.

The pretended node claims every step it reads and answers `<number> from <digest of the step's input>`: answers differ from run to run,
so a result made from another history than the accepted one is seen.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from typing import Any, Self

from services.planner.app import Planner
from services.planner.settings import PlannerSettings
from shared.clock import LoopClock
from shared.contracts import headers
from shared.contracts.base import PriorityClass
from shared.contracts.budget import TenantLimits
from shared.contracts.chat import Answer
from shared.contracts.event import EVENT, JobSettled, PlannerStarted, StepAnswered, StepAsked, facts_of
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.outcome import StepClaimed, StepFailed, StepRouted, StepSucceeded
from shared.contracts.result import Result
from shared.contracts.step import Step
from shared.contracts.usage import Usage
from shared.errors import LogError
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.port import Message, NewTopic, TopicPartition
from shared.processing.registry import registry_key
from shared.service import Environment
from shared.settings import ClusterSettings
from shared.topics import Topics, TopicSettings


class JumpingClock(LoopClock):
    """Virtual time whose wall clock a test may set: days pass without their seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = 0.0

    def wall(self) -> float:
        return super().wall() + self.ahead


@dataclass(slots=True)
class NodeBehaviour:
    """Probabilities are per step read."""

    seconds: tuple[float, float] = (0.0, 0.05)
    """Of a generation."""
    silent: float = 0.0
    """Takes the step and never says anything."""
    fails: float = 0.0
    runs_twice: float = 0.0
    """A second worker claims and answers the same attempt."""
    repeats_outcome: float = 0.0
    """The same outcome is sent twice."""


def digest_of(step: Step) -> str:
    """What an answer says it was made from."""
    return blake2b(repr((step.messages, step.prompt, step.texts)).encode(), digest_size=6).hexdigest()


class World:
    """Everything that one simulated run needs; use under tests.support.virtual_loop.run."""

    def __init__(
        self, seed: int = 0, *, homes: int = 2, options: PlannerSettings | None = None, capabilities: tuple[str, ...] = ("chat", "embed")
    ) -> None:
        self.random = Random(seed)
        self.clock = JumpingClock()
        self.log = MemoryLog(self.clock, random=Random(seed + 1))
        self.topics = Topics(
            TopicSettings(home_partitions=homes, steps_partitions=2, work_partitions=2, other_partitions=2, capabilities=capabilities)
        )
        self.options = options or PlannerSettings()
        self.node = NodeBehaviour()
        self.answer: Callable[[Step, int], str | Answer] = lambda step, number: f"{number} from {digest_of(step)}"
        self.usage: Callable[[Step], Usage] = lambda _: Usage(calls=1, prompt_tokens=1, completion_tokens=1)
        self.steps_seen: list[Step] = []
        self.runs = 0
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stops: dict[str, asyncio.Event] = {}
        self._lives: dict[str, int] = defaultdict(int)
        self._background: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        self.log.create([NewTopic(t.name, t.partitions, 1, {}) for t in self.topics.all()])
        self.log.create([NewTopic("replies.test", 1, 1, {})])
        self._later(self._pretend_node())
        return self

    async def __aexit__(self, *_: object) -> None:
        for name in list(self._tasks):
            self.kill(name)
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    # Planners

    def start(self, name: str) -> Planner:
        """Start a planner process; a killed name starts anew."""
        self._lives[name] += 1
        process = self.log.process(name)
        instance = f"{name}-{self._lives[name]}"
        environment = Environment(ClusterSettings(), process, self.clock, Random(self.random.random()), self.topics, instance)
        planner = Planner(environment, self.options)
        self._stops[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(planner.run(self._stops[name]))
        return planner

    def kill(self, name: str) -> None:
        """SIGKILL: nothing of the process runs on."""
        self.log.kill(name)
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
            self._background.add(task)

    async def stop(self, name: str) -> None:
        """SIGTERM."""
        self._stops[name].set()
        await self._tasks.pop(name)

    def freeze(self, name: str) -> None:
        self.log.freeze(name)

    def thaw(self, name: str) -> None:
        self.log.thaw(name)

    # Jobs

    def produce(
        self,
        value: bytes,
        *,
        home: int = 0,
        priority_class: PriorityClass = PriorityClass.STANDARD,
        key: bytes | None = None,
        headers_: Iterable[tuple[str, bytes]] = (),
    ) -> int:
        """One record on jobs.<class>; returns its offset."""
        topic = self.topics.jobs(priority_class)
        return self.log.write(TopicPartition(topic, home), [Message(topic, value, key, home, tuple(headers_))])

    def declare(self, tenant: str, limits: TenantLimits) -> None:
        """An administrator's entry in the registry."""
        entry = Message(self.topics.registry, limits.to_bytes(), registry_key("tenant", tenant), 0)
        self.log.write(TopicPartition(self.topics.registry, 0), [entry])

    def outcome(self, outcome: Any, home: int = 0) -> None:
        """One record on outcomes."""
        message = Message(self.topics.outcomes, outcome.to_bytes(), None, home, headers.envelope(outcome.type))
        self.log.write(TopicPartition(self.topics.outcomes, home), [message])

    # What can be seen

    def values(self, topic: str, partition: int | None = None) -> list[bytes]:
        """All record values of a topic, in log order per partition."""
        partitions = range(self.log.partition_count(topic)) if partition is None else [partition]
        return [r.value or b"" for p in partitions for r in self.log.existing(TopicPartition(topic, p)).records]

    def results(self) -> dict[str, list[bytes]]:
        """job id → every value ever published for it, duplicates removed."""
        found: dict[str, list[bytes]] = {}
        for value in self.values(self.topics.results):
            seen = found.setdefault(Result.model_validate_json(value).job, [])
            if value not in seen:
                seen.append(value)
        return found

    def finished(self) -> int:
        """How many jobs have a result. Cheap: counts keys."""
        partitions = range(self.log.partition_count(self.topics.results))
        return sum(len({r.key for r in self.log.existing(TopicPartition(self.topics.results, p)).records}) for p in partitions)

    def history(self, home: int) -> list[Any]:
        """The facts of a home's valid events, by the definition of ARCHITECTURE, planner protocol, written a second time on purpose."""
        epoch: int | None = None
        valid: list[Any] = []
        for record in self.log.existing(TopicPartition(self.topics.job_events, home)).records:
            event = EVENT.validate_json(record.value or b"")
            if isinstance(event, PlannerStarted):
                epoch = record.offset
            elif event.epoch == epoch:
                valid += facts_of(event)
        return valid

    async def until(self, condition: Callable[[], bool], seconds: float = 600.0) -> None:
        """Let virtual time pass until the condition holds; AssertionError after `seconds` of it."""
        deadline = self.clock.monotonic() + seconds
        while not condition():
            assert self.clock.monotonic() < deadline, f"not reached within {seconds} virtual seconds"
            await asyncio.sleep(0.1)

    def check_laws(self, submitted: int) -> None:
        """Laws 1-3 over everything that was written."""
        results = self.results()
        assert len(results) == submitted, f"{submitted} jobs, {len(results)} results"
        settled: dict[str, list[bytes]] = defaultdict(list)
        for home in range(self.topics.settings.home_partitions):
            self._check_history(self.history(home), settled)
        for job, published in results.items():
            assert len(published) == 1, f"job {job} has {len(published)} different results"
            assert len(settled[job]) == 1, f"job {job} has {len(settled[job])} settle events"
            assert published == settled[job], f"job {job}: the result is not the settle event's"

    def _check_history(self, events: list[Any], settled: dict[str, list[bytes]]) -> None:
        answered: set[str] = set()
        asked: set[str] = set()
        for event in events:
            if isinstance(event, StepAsked):
                assert event.step not in asked, f"step {event.step} asked twice"
                asked.add(event.step)
            elif isinstance(event, StepAnswered):
                assert event.step in asked, f"step {event.step} answered, never asked for"
                assert event.step not in answered, f"step {event.step} answered twice"
                answered.add(event.step)
            elif isinstance(event, JobSettled):
                settled[event.job].append(event.result.to_bytes())

    # The pretended node

    def _later(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _pretend_node(self) -> None:
        consumer = await self.log.process("node").consumer(client_id="node", reset="earliest")
        steps = [TopicPartition(t.name, p) for t in self.topics.all() if t.family.count == "steps" for p in range(t.partitions)]
        consumer.assign(steps)
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                try:
                    batches = await consumer.poll(timeout_seconds=10.0)
                except LogError:
                    await asyncio.sleep(0.5)
                    continue
                for records in batches.values():
                    for record in records:
                        self._handle(Step.model_validate_json(record.value or b""))

    def _handle(self, step: Step) -> None:
        self.steps_seen.append(step)
        draw, node = self.random.random, self.node
        if draw() < node.silent:
            return
        times = 2 if draw() < node.runs_twice else 1
        for number in range(times):
            self._later(self._run(step, f"node-{number}"))

    async def _run(self, step: Step, node: str) -> None:
        self.runs += 1
        number = self.runs
        of = {"job": step.job, "step": step.id, "attempt": step.attempt, "node": node}
        claim = f"{node}-{number}"
        self.outcome(StepRouted(**of, mailbox=0, offset=number), step.home)
        await asyncio.sleep(self.random.uniform(*self.node.seconds) / 2)
        self.outcome(StepClaimed(**of, claim=claim, mailbox=0, lease_seconds=step.lease_seconds), step.home)
        await asyncio.sleep(self.random.uniform(*self.node.seconds))
        usage = self.usage(step)
        if self.random.random() < self.node.fails:
            failure = Failure(kind=FailureKind.MODEL_ERROR, message="pretended", node=node)
            self.outcome(StepFailed(**of, claim=claim, failure=failure, usage=usage), step.home)
            return
        said = self.answer(step, number)
        outcome = StepSucceeded(**of, claim=claim, answer=Answer(text=said) if isinstance(said, str) else said, usage=usage)
        self.outcome(outcome, step.home)
        if self.random.random() < self.node.repeats_outcome:
            await asyncio.sleep(self.random.uniform(0, 1))
            self.outcome(outcome, step.home)
