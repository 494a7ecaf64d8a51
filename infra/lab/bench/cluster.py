"""What is measured, running: a Kafka broker (started, or one that is there), the bare services, tutti's services, a simulated node.

Everything is on topics with a prefix of this run; nothing is left behind.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from infra.lab.bench import bare
from infra.lab.bench.load import QueueTarget
from infra.lab.bench.local import own_broker
from infra.lab.bench.processes import continue_processes, stop_processes
from infra.native import http, ports
from infra.native.paths import StackHome
from infra.native.processes import Daemon, tail
from infra.native.services import REPOSITORY, ServiceProcess
from infra.native.waiting import wait_until
from shared.clock import SystemClock
from shared.kafka.client.aio import AioLog
from shared.kafka.port import NewTopic
from shared.processing.provision import new_topics
from shared.settings import ClusterSettings
from shared.topics import Topics

START_SECONDS = 60.0
STOP_SECONDS = 5.0
BROKER_SESSION_MS = 30_000
"""Load must not make the broker's own controller take it for dead."""
SERVICES = ("planner", "router", "worker", "ingress")
SAID_LINES = 1_000
"""Of a service's log: what a client complains of before its topics have leaders comes after what it said."""
SLOTS = 320
INSTANT, PACED, IN_PROCESS = "instant", "paced", "in-process"
"""Models: the simulated node at zero latency, the same with a steady rhythm, and the worker's own backend without a network."""
PACED_TOKENS_PER_SECOND = 100.0
_MODELS = [
    {"name": INSTANT, "bytes_per_context_token": 0},
    {"name": PACED, "bytes_per_context_token": 0, "decode_tokens_per_second": PACED_TOKENS_PER_SECOND},
]


class DidNotStart(Exception):
    """A component of the bench did not come up; says which and shows the end of its log."""


@dataclass(slots=True)
class System:
    """Something that answers jobs: where to post, where to queue, and its processes by service."""

    name: str
    url: str
    queue: QueueTarget
    pids: Mapping[str, int]
    ready: Callable[[], bool] = lambda: True
    paused: bool = False

    def pause(self) -> None:
        """Stop its processes (SIGSTOP): what only waits costs the other one time too."""
        stop_processes(self.pids.values())
        self.paused = True

    def resume(self) -> None:
        """Let them go on; returns when they take work. Nothing when they run. Raises DidNotStart."""
        if self.paused:
            continue_processes(self.pids.values())
            self.paused = False
            if not wait_until(self.ready, START_SECONDS):
                raise DidNotStart(f"{self.name} is not ready {START_SECONDS:.0f} s after a pause")


@dataclass(slots=True)
class Bench:
    """The running whole. `node_url` is the simulated node itself, without tutti before it."""

    servers: str
    bare: System
    tutti: System | None
    node_url: str
    pids: dict[str, int] = field(default_factory=dict)
    """Of what both share: broker (when it is ours) and simulated node."""

    @property
    def systems(self) -> list[System]:
        return [self.bare] if self.tutti is None else [self.bare, self.tutti]

    def only(self, wanted: System | None) -> bool:
        """Pause every other system. Returns whether the wanted one had been paused. Raises DidNotStart."""
        for system in self.systems:
            if system is not wanted and not system.paused:
                system.pause()
        woken = wanted is not None and wanted.paused
        if wanted is not None:
            wanted.resume()
        return woken


@contextmanager
def running(directory: Path, servers: str | None, *, only_bare: bool) -> Iterator[Bench]:
    """Start everything, and stop and remove it afterwards. Raises DidNotStart, NativeError."""
    prefix = f"bench-{Random().getrandbits(32):08x}-"
    home = StackHome(directory)
    with ExitStack() as stack:
        shared: dict[str, int] = {}
        if servers is None:
            broker = stack.enter_context(own_broker(home, BROKER_SESSION_MS))
            servers, shared["kafka"] = broker.servers, broker.daemon.pid() or 0
        stack.enter_context(_topics(servers, prefix))
        node_url = stack.enter_context(_node(home, shared))
        baseline = stack.enter_context(_bare(home, servers, prefix, node_url))
        system = None if only_bare else stack.enter_context(_tutti(home, servers, prefix, node_url))
        bench = Bench(servers, baseline, system, node_url, shared)
        try:
            yield bench
        finally:
            for one in bench.systems:
                continue_processes(one.pids.values())


@contextmanager
def _topics(servers: str, prefix: str) -> Iterator[None]:

    wanted = [NewTopic(f"{prefix}bare-{name}", count, 1, {}) for name, count in bare.TOPICS.items()]
    wanted += new_topics(_topics_of(prefix))

    async def change(create: bool) -> None:
        log = AioLog(servers, SystemClock())
        admin = await log.admin()
        try:
            if create:
                await admin.create_topics(wanted)
            else:
                await admin.delete_topics([topic.name for topic in wanted])
        finally:
            await admin.close()
            await log.close()

    asyncio.run(change(create=True))
    try:
        yield
    finally:
        asyncio.run(change(create=False))


@contextmanager
def _node(home: StackHome, pids: dict[str, int]) -> Iterator[str]:
    (port,) = ports.free_ports(1)
    parameters = home.directory("data") / "node.json"
    parameters.write_text(json.dumps({"num_parallel": SLOTS, "decode_sharing": 0, "models": _MODELS, "answer_tokens": [50, 50]}))
    command = ("-m", "infra.lab.simulators.ollama", "--port", str(port), "--profile", "instant", "--parameters", str(parameters))
    with _daemon(home, "node", command) as daemon:
        url = f"http://127.0.0.1:{port}"
        if not wait_until(lambda: http.answers(f"{url}/api/version"), START_SECONDS):
            raise DidNotStart(f"the simulated node: {tail(daemon.log)}")
        pids["node"] = daemon.pid() or 0
        yield url


@contextmanager
def _bare(home: StackHome, servers: str, prefix: str, node_url: str) -> Iterator[System]:
    (port,) = ports.free_ports(1)
    name = f"{prefix}bare-"
    with ExitStack() as stack:
        pids: dict[str, int] = {}
        for role in bare.ROLES:
            own = {"front": (str(port),), "worker": (node_url,)}.get(role, ())
            arguments = ("-m", "infra.lab.bench.bare", role, servers, name, *own)
            daemon = stack.enter_context(_daemon(home, f"bare-{role}", arguments))
            pids[role] = daemon.pid() or 0
        logs = [home.log(f"bare-{role}") for role in bare.ROLES if role != "front"]
        ready = wait_until(lambda: all("ready" in tail(log, SAID_LINES) for log in logs) and not ports.is_free(port), START_SECONDS)
        if not ready:
            raise DidNotStart("bare services:\n" + "\n".join(tail(log) for log in logs))
        queue = QueueTarget(f"{name}jobs", f"{name}results", bare.TOPICS["results"], bool)
        yield System("bare", f"http://127.0.0.1:{port}/", queue, pids)


@contextmanager
def _tutti(home: StackHome, servers: str, prefix: str, node_url: str) -> Iterator[System]:
    shared = {"TUTTI_KAFKA_SERVERS": servers, "TUTTI_TOPICS__PREFIX": prefix, "TUTTI_LOG_LEVEL": "warning"}
    worker = {"TUTTI_WORKER__SLOTS": str(SLOTS)}
    workers = {
        "in-process": worker | {"TUTTI_WORKER__BACKEND": "in_process", "TUTTI_WORKER__NODE": "bench-a", "TUTTI_WORKER__MODELS": IN_PROCESS},
        "node": worker | {"TUTTI_WORKER__BACKEND": "ollama", "TUTTI_WORKER__NODE": "bench-b", "TUTTI_WORKER__URL": node_url},
    }
    free = iter(ports.free_ports(len(SERVICES) + 1))
    services = [ServiceProcess(name, home, next(free), shared, dies_with_parent=True) for name in SERVICES if name != "worker"] + [
        ServiceProcess("worker", home, next(free), shared | own, kind, dies_with_parent=True) for kind, own in workers.items()
    ]
    try:
        for service in services:
            service.start()
        for service in services:
            service.await_ready(START_SECONDS)
        ingress = next(service for service in services if service.service == "ingress")
        pids = {service.name: service.daemon.pid() or 0 for service in services}
        topics = _topics_of(prefix)
        queue = QueueTarget(f"{prefix}jobs.standard", topics.results, topics.partitions("other"), _succeeded)
        yield System("tutti", f"{ingress.url}/v1/chat/completions", queue, pids, lambda: all(service.ready() for service in services))
    finally:
        for service in reversed(services):
            service.stop(STOP_SECONDS)


def _topics_of(prefix: str) -> Topics:
    """As the services see them: partition counts come from the environment."""
    return Topics(ClusterSettings().topics.model_copy(update={"prefix": prefix}))


def _succeeded(value: bytes) -> bool:
    return b'"status":"succeeded"' in value


@contextmanager
def _daemon(home: StackHome, name: str, arguments: tuple[str, ...]) -> Iterator[Daemon]:
    environment = {"PYTHONPATH": str(REPOSITORY)}
    daemon = Daemon(name, (sys.executable, *arguments), home.pid_file(name), home.log(name), environment, dies_with_parent=True)
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.stop(STOP_SECONDS)
