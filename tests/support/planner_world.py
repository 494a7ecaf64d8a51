"""A planner, or several, on the in-memory log under virtual time, with a pretended router and worker. Simulated: no model answers here.

The pretended node claims every step it reads and answers `<number> from <digest of the step's input>`: answers differ from run to run,
so a result made from another history than the accepted one is seen.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Self

from services.planner.app import Planner
from services.planner.settings import PlannerSettings
from shared.clock import LoopClock
from shared.contracts import headers
from shared.contracts.base import PriorityClass
from shared.contracts.budget import TenantLimits
from shared.contracts.chat import Answer
from shared.contracts.event import EVENT, PlannerStarted, facts_of
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.outcome import StepClaimed, StepFailed, StepRouted, StepSucceeded
from shared.contracts.result import Result
from shared.contracts.step import Step
from shared.contracts.usage import Usage
from shared.errors import LogError
from shared.kafka.port import NewTopic, TopicPartition
from shared.processing.registry import registry_key
from shared.topics import TopicSettings
from tests.support.stage import Stage


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


class World(Stage):
    """Planners on a stage, and a node that takes steps as they are asked for."""

    clock: JumpingClock

    def __init__(
        self, seed: int = 0, *, homes: int = 2, options: PlannerSettings | None = None, capabilities: tuple[str, ...] = ("chat", "embed")
    ) -> None:
        counts = dict.fromkeys(("steps_partitions", "work_partitions", "other_partitions"), 2)
        topics = TopicSettings(home_partitions=homes, capabilities=capabilities, **counts)
        super().__init__(topics, seed=seed, clock=JumpingClock())
        self.options = options or PlannerSettings()
        self.node = NodeBehaviour()
        self.answer: Callable[[Step, int], str | Answer] = lambda step, number: f"{number} from {digest_of(step)}"
        self.usage: Callable[[Step], Usage] = lambda _: Usage(calls=1, prompt_tokens=1, completion_tokens=1)
        self.steps_seen: list[Step] = []
        self.runs = 0
        self._lives: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        self.log.create([NewTopic("replies.test", 1, 1, {})])
        self._later(self._pretend_node())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def start(self, name: str) -> Planner:
        """Start a planner process; a killed name starts anew."""
        self._lives[name] += 1
        planner = Planner(self.environment(name, f"{name}-{self._lives[name]}"), self.options)
        self.run(name, planner)
        return planner

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
        return self.write(self.topics.jobs(priority_class), home, value, headers_, key)

    def declare(self, tenant: str, limits: TenantLimits) -> None:
        """An administrator's entry in the registry."""
        self.write(self.topics.registry, 0, limits.to_bytes(), key=registry_key("tenant", tenant))

    def outcome(self, outcome: Any, home: int = 0) -> None:
        """One record on outcomes."""
        self.write(self.topics.outcomes, home, outcome.to_bytes(), headers.envelope(outcome.type))

    # What can be seen

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
        return len({record.key for record in self.records(self.topics.results)})

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

    # The pretended node

    def _later(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

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
                        self.handle(Step.model_validate_json(record.value or b""))

    def handle(self, step: Step) -> None:
        """Take a step."""
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
