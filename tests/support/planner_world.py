"""A planner, or several, on the in-memory log under virtual time, with a pretended worker. Simulated: no model answers here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Self

from services.planner.app import Planner
from services.planner.settings import PlannerSettings
from shared.contracts import headers
from shared.contracts.base import PriorityClass
from shared.contracts.budget import TenantLimits
from shared.contracts.event import EVENT, PlannerStarted, facts_of
from shared.contracts.result import Result
from shared.kafka.port import NewTopic, TopicPartition
from shared.processing.registry import registry_key
from shared.topics import TopicSettings
from tests.support.pretended_worker import PretendedWorker
from tests.support.stage import JumpingClock, Stage


class World(Stage):
    """Planners on a stage, and a node that takes steps as they are asked for."""

    clock: JumpingClock

    def __init__(
        self, seed: int = 0, *, homes: int = 2, options: PlannerSettings | None = None, capabilities: tuple[str, ...] = ("chat", "embed")
    ) -> None:
        counts = dict.fromkeys(("steps_partitions", "work_partitions", "other_partitions"), 2)
        topics = TopicSettings(home_partitions=homes, capabilities=capabilities, **counts)
        super().__init__(topics, seed=seed)
        self.options = options or PlannerSettings()
        self.node = PretendedWorker(self.process("node"), self.topics, self.clock, self.random, tell=self.outcome)
        self._lives: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        self.log.create([NewTopic("replies.test", 1, 1, {})])
        self.run("node", self.node)
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
