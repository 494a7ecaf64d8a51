"""What is measured beside each other: the bare services and tutti's before one simulated node, on one Kafka. Each is stopped while another
one is asked: what only waits costs the other time, too.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from random import Random

from infra.lab.bench import bare, machine
from infra.lab.bench.load import QueueTarget, call_in_loop
from infra.lab.bench.runner import Lab
from infra.native import node, ports
from infra.native.errors import StartFailed
from infra.native.paths import REPOSITORY
from infra.native.processes import Daemon, started, tail
from infra.native.topics import created
from infra.native.waiting import wait_until
from shared.clock import SystemClock
from shared.kafka.port import NewTopic
from shared.settings import ClusterSettings

START_SECONDS = 60.0
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
_CLOCK = SystemClock()


@dataclass(slots=True)
class System:
    """Something that answers jobs: where to post, what is posted, its processes by service; where to queue, if it has a queue."""

    name: str
    url: str
    pids: Mapping[str, int]
    warm: Sequence[bytes]
    """Bodies that bring it to its working temperature: connections, caches, loaded models; no part of any figure."""
    queue: QueueTarget | None = None
    ready: Callable[[], bool] = lambda: True
    paused: bool = False

    def pause(self) -> None:
        machine.pause(self.pids.values(), paused=True)
        self.paused = True

    async def resume(self) -> None:
        """Let it go on; returns when it takes work, and is warm. Nothing when it runs. Raises StartFailed, Unmeasured."""
        if self.paused:
            machine.pause(self.pids.values(), paused=False)
            self.paused = False
            if not wait_until(self.ready, START_SECONDS):
                raise StartFailed(f"{self.name} is not ready {START_SECONDS:.0f} s after a pause")
            await call_in_loop(self.url, self.warm, 5, _CLOCK)


async def only(wanted: System | None, systems: Sequence[System]) -> None:
    """Pause every other one. Raises StartFailed, Unmeasured."""
    for system in systems:
        if system is not wanted and not system.paused:
            system.pause()
    if wanted is not None:
        await wanted.resume()


@dataclass(slots=True)
class Systems:
    """The running whole. `node_url` is the simulated node itself, without tutti before it; `pids`: of broker (when it is ours) and node;
    `tutti`: None where only the bare services are asked.
    """

    servers: str
    bare: System
    tutti: System | None
    node_url: str
    pids: dict[str, int] = field(default_factory=dict)

    @property
    def started(self) -> list[System]:
        return [system for system in (self.bare, self.tutti) if system is not None]


def bare_body(number: int, model: str | None) -> bytes:
    named = {} if model is None else {"model": model}
    return json.dumps({"id": f"j-{number}-{Random(number).getrandbits(64):x}", "prompt": f"question {number}", **named}).encode()


def chat_body(number: int, model: str | None, tokens: int = bare.NODE_TOKENS, *, stream: bool = False) -> bytes:
    body = {"model": model, "messages": [{"role": "user", "content": f"question {number}"}], "max_tokens": tokens, "stream": stream}
    return json.dumps(body).encode()


@contextmanager
def systems(lab: Lab, *, only_bare: bool = False) -> Iterator[Systems]:
    """Both, started, or the bare services alone. Raises NativeError kinds, Unmeasured."""
    with ExitStack() as stack:
        shared: dict[str, int] = {}
        if lab.servers_given is None:
            shared["kafka"] = lab.broker.daemon.pid() or 0
        parameters = lab.home.directory("data") / "node.json"
        parameters.write_text(json.dumps({"num_parallel": SLOTS, "decode_sharing": 0, "models": _MODELS, "answer_tokens": [50, 50]}))
        simulated = stack.enter_context(started(node.simulator(lab.home, "node", "--profile", "instant", "--parameters", str(parameters))))
        shared["node"] = simulated.pid() or 0
        lab.run(call_in_loop(f"{simulated.url}/api/chat", [bare.node_body(model, "question") for model in (INSTANT, PACED)], 1, _CLOCK))
        found = Systems(
            lab.servers,
            stack.enter_context(_bare(lab, simulated.url)),
            None if only_bare else stack.enter_context(_tutti(lab, simulated.url)),
            simulated.url,
            shared,
        )
        for system in found.started:
            stack.callback(machine.pause, system.pids.values(), paused=False)
            lab.run(call_in_loop(system.url, system.warm, 5, _CLOCK))
        yield found


@contextmanager
def _bare(lab: Lab, node_url: str) -> Iterator[System]:
    [port] = ports.free_ports(1)
    home, prefix, daemons = lab.home, f"bare-{Random().getrandbits(32):08x}-", dict[str, Daemon]()
    with ExitStack() as stack:
        stack.enter_context(created(lab.servers, [NewTopic(prefix + name, count, 1, {}) for name, count in bare.TOPICS.items()]))
        for role in bare.ROLES:
            own = {"front": (str(port),), "worker": (node_url,)}.get(role, ())
            command, name = (sys.executable, "-m", "infra.lab.bench.bare", role, lab.servers, prefix, *own), f"bare-{role}"
            daemon = Daemon(name, command, home.pid_file(name), home.log(name), {"PYTHONPATH": str(REPOSITORY)}, dies_with_parent=True)
            daemons[role] = stack.enter_context(started(daemon))
        logs = [daemon.log for role, daemon in daemons.items() if role != "front"]
        if not wait_until(lambda: all("ready" in tail(log, SAID_LINES) for log in logs) and not ports.is_free(port), START_SECONDS):
            raise StartFailed("bare services:\n" + "\n".join(map(tail, logs)))
        queue = QueueTarget(f"{prefix}jobs", f"{prefix}results", bare.TOPICS["results"], bool)
        warm = [bare_body(number, model) for model in (None, INSTANT) for number in range(20)]
        pids = {role: daemon.pid() or 0 for role, daemon in daemons.items()}
        yield System("bare", f"http://127.0.0.1:{port}/", pids, warm, queue)


@contextmanager
def _tutti(lab: Lab, node_url: str) -> Iterator[System]:
    """Without a delay service: nothing waits here. Counts of partitions are those of TUTTI_TOPICS settings."""
    workers = (
        {"TUTTI_WORKER__BACKEND": "in_process", "TUTTI_WORKER__MODELS": IN_PROCESS},
        {"TUTTI_WORKER__BACKEND": "ollama", "TUTTI_WORKER__URL": node_url},
    )
    lab.options["partitions"] = counts = {name: count for name, count in ClusterSettings().topics if name.endswith("_partitions")}
    own = {"TUTTI_WORKER__SLOTS": str(SLOTS)}
    with lab.cluster("bench", nodes=workers, copies={"delay": 0}, counts=counts, environment=own) as cluster:
        topics, services = cluster.topics, cluster.services.values()
        queue = QueueTarget(
            f"{cluster.prefix}jobs.standard", topics.results, topics.partitions("other"), lambda value: b'"status":"succeeded"' in value
        )
        pids = {name: pid or 0 for name, pid in cluster.pids().items()}
        warm = [chat_body(number, model) for model in (INSTANT, PACED, IN_PROCESS) for number in range(20)]
        url = f"{cluster.url}/v1/chat/completions"
        yield System("tutti", url, pids, warm, queue, lambda: all(service.ready() for service in services))
