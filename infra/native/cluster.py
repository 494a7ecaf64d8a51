"""A whole tutti cluster of real processes against a given broker, on free ports and under a topic prefix of its own.

For tests and benchmarks: several can share one broker. `tutti up` is stack.py.

    with LocalCluster(servers, "mine", directory) as cluster:
        requests to cluster.url; cluster.services["planner"].daemon.kill(); cluster.services["planner"].start()
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from infra.native.node import ModelServer, simulator
from infra.native.paths import StackHome
from infra.native.ports import free_ports
from infra.native.processes import tail
from infra.native.services import ServiceProcess
from infra.native.topics import delete_topics, ensure_topics
from shared.services import SERVICES
from shared.settings import KafkaSettings
from shared.topics import Topics, TopicSettings

_BACKEND = "TUTTI_WORKER__BACKEND"


@dataclass(slots=True)
class LocalCluster:
    """The services that jobs need, `workers` of them workers, each with a simulated node of its own unless `nodes` names its backend.

    `copies` says how many of another service there are, for example {"planner": 2}: the second is called planner-2.

    `environment` is added to that of every service. Processes end with the one that started them, whatever happens.
    """

    servers: str
    namespace: str
    directory: Path
    workers: int = 1
    nodes: Sequence[Mapping[str, str]] = ()
    """Worker settings of each node (TUTTI_WORKER__...), one worker each; simulated where they name no backend."""
    simulator: Sequence[str] = ("--profile", "instant")
    copies: Mapping[str, int] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    of_service: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The same for all processes of one service."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Fields of TopicSettings: partitions, replication; the same for the topics and all services."""
    reached: KafkaSettings | None = None
    """How topics are made and deleted: by the TUTTI_KAFKA settings unless given."""
    services: dict[str, ServiceProcess] = field(default_factory=dict, init=False)
    """By name: planner, router, delay, ingress, worker-1, worker-2, ..."""
    simulators: list[ModelServer] = field(default_factory=list, init=False)

    @property
    def url(self) -> str:
        """Of the ingress."""
        return self.services["ingress"].url

    @property
    def prefix(self) -> str:
        """Of every topic's name and every group's."""
        return f"{self.namespace}-"

    @property
    def topics(self) -> Topics:
        return Topics(TopicSettings.model_validate({"prefix": self.prefix, **self.counts}))

    def start(self) -> Self:
        """Bring everything up; returns when every service is ready. Raises NativeError kinds; what was started is stopped then."""
        try:
            ensure_topics(self.servers, self.topics, reached=self.reached)
            nodes: Sequence[Mapping[str, str]] = self.nodes or [{}] * self.workers
            self._define([own if _BACKEND in own else {**self._simulate(number), **own} for number, own in enumerate(nodes, 1)])
            self._start_services()
        except BaseException:
            self.stop()
            raise
        return self

    def _simulate(self, number: int) -> dict[str, str]:
        self.simulators.append(node := simulator(StackHome(self.directory), f"simulator-{number}", *self.simulator))
        node.start()
        return {_BACKEND: "ollama", "TUTTI_WORKER__URL": node.url}

    def _define(self, nodes: Sequence[Mapping[str, str]]) -> None:
        copies = {one.name: self.copies.get(one.name, 0 if one.aside else 1) for one in SERVICES if one.name != "worker"}
        wanted = [(name, number) for name, count in copies.items() for number in range(1, count + 1)]
        home, numbers = StackHome(self.directory), free_ports(len(wanted) + len(nodes))
        ports, page_calls = iter(numbers), f"http://127.0.0.1:{numbers[wanted.index(('ingress', 1))]}" if ("ingress", 1) in wanted else ""
        shared = {"TUTTI_KAFKA_SERVERS": self.servers, "TUTTI_TOPICS__PREFIX": self.prefix, "TUTTI_SINK__INGRESS_URL": page_calls}
        shared |= {f"TUTTI_TOPICS__{name}".upper(): str(count) for name, count in self.counts.items()}
        shared |= self.environment
        for name, number in wanted:
            own = {**shared, **self.of_service.get(name, {})}
            service = ServiceProcess(name, home, next(ports), own, str(number) if number > 1 else "", dies_with_parent=True)
            self.services[service.name] = service
        for number, node in enumerate(nodes, 1):
            own = {**shared, **self.of_service.get("worker", {}), "TUTTI_WORKER__NODE": f"{self.namespace}-node-{number}", **node}
            worker = ServiceProcess("worker", home, next(ports), own, str(number), dies_with_parent=True)
            self.services[worker.name] = worker

    def _start_services(self) -> None:
        for service in self.services.values():
            service.start()
        with ThreadPoolExecutor(max_workers=max(1, len(self.services))) as pool:
            list(pool.map(ServiceProcess.await_ready, self.services.values()))

    def pids(self) -> dict[str, int | None]:
        """Service → pid; None for one that does not run."""
        return {name: service.daemon.pid() for name, service in self.services.items()}

    def stop(self, *, grace_seconds: float = 10.0) -> None:
        """End all processes (SIGTERM, then SIGKILL) and delete the topics."""
        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(lambda service: service.stop(grace_seconds), self.services.values()))
        for node in self.simulators:
            node.stop(grace_seconds)
        delete_topics(self.servers, self.topics, reached=self.reached)

    def log_ends(self, lines: int = 40) -> str:
        """The end of every log, for the report of a failed test."""
        logs = sorted((self.directory / "log").glob("*.log"))
        return "\n".join(f"--- {path.name}\n{tail(path, lines)}" for path in logs)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
