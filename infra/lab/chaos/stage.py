"""Stage: the broker and the cluster under test, and how each fault is done to them. Everything here blocks: call it in a thread."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import httpx

from infra.lab.chaos import callbacks, odd
from infra.lab.chaos.callers import Balancer
from infra.lab.chaos.crashes import Absence, Crash
from infra.lab.chaos.jobs import FAILS_SOMETIMES, NEVER, POLICED, POLICIES
from infra.lab.chaos.plan import Fault, FaultKind
from infra.native.brokers import Brokers
from infra.native.cluster import LocalCluster
from infra.native.errors import MissingTool, NativeError
from infra.native.kafka import Kafka
from infra.native.mongo import MongoServer
from infra.native.paths import REPOSITORY, StackHome
from infra.native.ports import free_ports
from infra.native.processes import Daemon, started, tail
from infra.native.redis import RedisServer
from infra.native.services import GRACE_SECONDS, ServiceProcess
from infra.native.settings import NativeSettings
from infra.native.waiting import wait_until
from infra.verify.report import RecordPlace
from shared.clock import Clock, SystemClock

Store = TypeVar("Store", MongoServer, RedisServer)
NAMESPACE = "chaos"
COPIES = {"planner": 2, "router": 2, "delay": 2, "sink": 2, "critic": 2, "cache": 2, "ingress": 2}
WORKERS = 3
"""With a node each; one more serves tools."""
_TOOLS = {"tools": {"calculator": {"kind": "calculator"}}}
_COMPARED_SHARE = "0.25"
"""Few jobs have something to be compared with."""
SLOTS = 32
_NODE = {
    "num_parallel": SLOTS,
    "decode_sharing": 0,
    "models": [{"name": "small", "bytes_per_context_token": 0, "decode_tokens_per_second": 400.0}],
    "answer_tokens": [8, 8],
    "failures": {
        "triggers": [
            {"mode": "error_500", "contains": FAILS_SOMETIMES, "every": 5},
            {"mode": "disconnect", "contains": FAILS_SOMETIMES, "every": 20},
        ],
        "fail_after_tokens": 2,
    },
}
"""A simulated node: 2.5 ms a token, so that work is in flight when a fault strikes."""
_DECLARE_SECONDS = 30.0
_BROKER_BACK_SECONDS = 180.0
"""A killed broker reads its logs again, while everybody tries to reach it."""
_BROKER_STOP_SECONDS = 30.0
_WRITERS = frozenset({"planner", "router", "worker"})
"""Services that write all the time; the ingress stays ready as long as nobody has met a refusal."""
_UNLED_SECONDS = 5.0
"""From the moment at which a balancer leads nobody to an ingress any more until that is told to end (`preStopSeconds` of the chart)."""
QUICK_ENVIRONMENT = {"TUTTI_PLANNER__LEASE_SECONDS": "8"}
"""Of the short run: what a lost worker had is begun again sooner."""
QUICK_RATE = 20.0
"""Jobs a second of the short run: some thousands while its faults last, on a machine of half the record's speed as well."""


@dataclass(slots=True)
class Stage:
    """What faults are done to. What ended by itself is in `crashes` and is started again; `absences` are the broker's."""

    kafka: Kafka | Brokers
    cluster: LocalCluster
    directory: Path
    balancer: Balancer
    clock: Clock = field(default_factory=SystemClock)
    crashes: list[Crash] = field(default_factory=list)
    absences: list[Absence] = field(default_factory=list)
    hook_port: int = 0
    """Where callbacks are received; 0: there are none."""
    store: MongoServer | None = None
    """Of the sinks; None where there is none on this machine: they count metrics alone."""
    deceived: list[str] = field(default_factory=list)
    """Processes that called themselves ready while Kafka acknowledged nothing."""
    odd: set[RecordPlace] = field(default_factory=set)
    """Where odd records were written: what cannot be read there is no fault."""
    _struck: set[str] = field(default_factory=set)
    """Processes that a fault has in its hands: not the supervisor's business."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    """A fault must not begin while the supervisor looks: what the fault ends would seem to have ended by itself."""

    @property
    def services(self) -> Mapping[str, list[str]]:
        """Service → names of its processes."""
        found: dict[str, list[str]] = defaultdict(list)
        for name, service in self.cluster.services.items():
            found[service.service].append(name)
        return found

    def strike(self, fault: Fault) -> None:
        """Do it, and undo it after its time. Returns when what was taken away is started again."""
        taken = () if fault.kind is FaultKind.UPGRADE else fault.targets  # of that one at a time
        with self._lock:
            self._struck.update(taken)
        try:
            _DO[fault.kind](self, fault)
        finally:
            with self._lock:
                self._struck.difference_update(taken)

    def processes(self, fault: Fault) -> list[ServiceProcess]:
        return [self.cluster.services[name] for name in fault.targets]

    def supervise(self) -> None:
        """Start again what has ended by itself."""
        with self._lock:
            for name, service in self.cluster.services.items():
                if name not in self._struck and service.daemon.pid() is None:
                    self.crashed(name, f"ended by itself: {tail(service.daemon.log, 3)}")
                    service.start()

    @contextmanager
    def absent(self) -> Iterator[None]:
        """Kafka acknowledges nothing meanwhile."""
        since = self.clock.monotonic()
        self.absences.append(Absence(since, NEVER))
        yield
        self.absences[-1] = Absence(since, self.clock.monotonic())

    def crashed(self, process: str, what: str) -> None:
        self.crashes.append(Crash(process, self.clock.monotonic(), what))


def _kill(stage: Stage, fault: Fault) -> None:
    for service in stage.processes(fault):
        service.daemon.kill()
        service.start()


def _pause(stage: Stage, fault: Fault) -> None:
    for service in stage.processes(fault):
        service.daemon.signal(signal.SIGSTOP)
    time.sleep(fault.seconds)
    for service in stage.processes(fault):
        service.daemon.signal(signal.SIGCONT)


def _restart(stage: Stage, fault: Fault) -> None:
    """One SIGTERM each, no more: a second one ends a service at once."""
    for service in stage.processes(fault):
        service.daemon.signal(signal.SIGTERM)
    for service in stage.processes(fault):
        if not wait_until(lambda service=service: service.daemon.pid() is None, GRACE_SECONDS):  # type: ignore[misc]
            stage.crashed(service.name, "did not stop within its grace period and was killed")
            service.daemon.kill()
        service.start()


def _upgrade(stage: Stage, fault: Fault) -> None:
    """As a rolling update does it: one after the other, each ready before the next; an ingress's callers are led elsewhere first."""
    for service in stage.processes(fault):
        stage.balancer.away.add(service.url)
        if service.service == "ingress":
            time.sleep(_UNLED_SECONDS)
        stage.strike(Fault(FaultKind.RESTART, (service.name,)))
        service.await_ready()
        stage.balancer.away.discard(service.url)


def _broker(stage: Stage, fault: Fault) -> None:
    """One alone is all of Kafka; of several it is one that leads."""
    if isinstance(stage.kafka, Brokers):
        [name] = fault.targets
        _await_lead(stage.kafka, name)
        _brokers_away(stage, stage.kafka, fault)
        return
    with stage.absent():
        stage.kafka.kill()
        time.sleep(fault.seconds)
        stage.kafka.start(timeout_seconds=_BROKER_BACK_SECONDS)


def _await_lead(kafka: Brokers, name: str) -> None:
    """Who leads nothing is no loss."""
    if not wait_until(lambda: (found := kafka.copies()) is not None and found.leads.get(name, 0) > 0, _BROKER_BACK_SECONDS):
        raise NativeError(f"broker {name} does not lead again: {kafka.copies()}")


def _brokers_away(stage: Stage, kafka: Brokers, fault: Fault, *, in_order: bool = False) -> None:
    """Each is away for the same time; afterwards every partition has all its copies."""
    for name in fault.targets:
        kafka.one[name].stop(grace_seconds=_BROKER_STOP_SECONDS) if in_order else kafka.one[name].kill()
    time.sleep(fault.seconds)
    if fault.kind in (FaultKind.INSYNC_KILLED, FaultKind.INSYNC_STOPPED):
        services = stage.cluster.services.values()
        stage.deceived += [service.name for service in services if service.service in _WRITERS and service.ready()]
    kafka.start(timeout_seconds=_BROKER_BACK_SECONDS)
    kafka.await_in_sync(_BROKER_BACK_SECONDS)


def _several(stage: Stage) -> Brokers:
    assert isinstance(stage.kafka, Brokers), "the plan has this for several brokers only"
    return stage.kafka


def _broker_restart(stage: Stage, fault: Fault) -> None:
    for name in fault.targets:
        _brokers_away(stage, _several(stage), Fault(fault.kind, (name,)), in_order=True)


def _insync_killed(stage: Stage, fault: Fault) -> None:
    with stage.absent():
        _brokers_away(stage, _several(stage), fault)


def _insync_stopped(stage: Stage, fault: Fault) -> None:
    with stage.absent():
        _brokers_away(stage, _several(stage), fault, in_order=True)


def _worker_loss(stage: Stage, fault: Fault) -> None:
    for service in stage.processes(fault):
        service.daemon.kill()
    time.sleep(fault.seconds)
    for service in stage.processes(fault):
        service.start()


def _node_loss(stage: Stage, fault: Fault) -> None:
    nodes = [stage.cluster.simulators[int(number)] for number in fault.targets]
    for node in nodes:
        node.kill()
    time.sleep(fault.seconds)
    for node in nodes:
        node.start()


def _odd_records(stage: Stage, fault: Fault) -> None:
    stage.odd |= asyncio.run(odd.write(stage.kafka.servers, stage.cluster.topics, stage.clock))


def _nothing(stage: Stage, fault: Fault) -> None:
    """For comparison."""


_DO: dict[FaultKind, Callable[[Stage, Fault], None]] = {
    FaultKind.NOTHING: _nothing,
    FaultKind.KILL: _kill,
    FaultKind.PAUSE: _pause,
    FaultKind.RESTART: _restart,
    FaultKind.BROKER_KILL: _broker,
    FaultKind.BROKER_OUTAGE: _broker,
    FaultKind.BROKER_RESTART: _broker_restart,
    FaultKind.INSYNC_KILLED: _insync_killed,
    FaultKind.INSYNC_STOPPED: _insync_stopped,
    FaultKind.UPGRADE: _upgrade,
    FaultKind.WORKER_LOSS: _worker_loss,
    FaultKind.NODE_LOSS: _node_loss,
    FaultKind.ODD_RECORDS: _odd_records,
}


@contextmanager
def running(directory: Path, environment: Mapping[str, str], brokers: int = 1) -> Iterator[Stage]:
    """So many brokers, and a cluster of their own. Raises NativeError kinds. The directory, with all logs, is left to the caller."""
    parameters, tools = directory / "node.json", directory / "tools.yaml"
    parameters.write_text(json.dumps(_NODE))
    tools.write_text(json.dumps(_TOOLS))  # which is YAML, too
    [hook_port] = free_ports(1)
    mongo = MongoServer(StackHome(directory / "store"), free_ports(1)[0], dies_with_parent=True)
    redis = RedisServer(StackHome(directory / "redis"), free_ports(1)[0], dies_with_parent=True, name="redis-cache", evicts=True)
    with _own_kafka(directory / "kafka", brokers) as kafka, _if_there(mongo) as store, _if_there(redis) as cache:
        cluster = LocalCluster(
            kafka.servers,
            NAMESPACE,
            directory / "cluster",
            nodes=[*[{}] * WORKERS, {"TUTTI_WORKER__BACKEND": "tools", "TUTTI_WORKER__TOOLS": str(tools)}],
            simulator=("--profile", "instant", "--parameters", str(parameters)),
            environment={
                "TUTTI_WORKER__SLOTS": str(SLOTS),
                "TUTTI_PLANNER__COMPARED_SHARE": _COMPARED_SHARE,
                "TUTTI_SINK__STORE": store.url if store else "",
                "TUTTI_CACHE__STORE": cache.url if cache else "",
                **callbacks.environment(directory, hook_port),
                **environment,
            },
            copies=COPIES,
            counts={"replication": brokers, "min_insync_replicas": max(1, brokers - 1)},
        )
        try:
            cluster.start()
            _declare(cluster, tools)
            httpx.put(f"{cluster.url}/v1/tenants/{POLICED}", json=POLICIES, timeout=_DECLARE_SECONDS).raise_for_status()
            balancer = Balancer([service.url for service in cluster.services.values() if service.service == "ingress"])
            yield Stage(kafka, cluster, directory, balancer, hook_port=hook_port, store=store)
        finally:
            _stop(kafka, cluster)


def _own_kafka(directory: Path, brokers: int) -> AbstractContextManager[Kafka | Brokers]:
    cache = NativeSettings().cache_directory
    return started(Kafka.beside(StackHome(directory), cache)) if brokers == 1 else Brokers.beside(directory, cache, brokers)


@contextmanager
def _if_there(server: Store) -> Iterator[Store | None]:
    """Without it the sinks count metrics alone, and caches keep nothing: equal steps wait for one another all the same."""
    try:
        server.start()
    except MissingTool:
        yield None
        return
    try:
        yield server
    finally:
        server.stop()


def _declare(cluster: LocalCluster, tools: Path) -> None:
    environment = {"PYTHONPATH": str(REPOSITORY), "TUTTI_URL": cluster.url}
    command = [sys.executable, "-m", "infra.cli", "tools", "declare", str(tools)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise NativeError(f"the tools cannot be declared: {done.stderr.strip()}")


def _stop(kafka: Kafka | Brokers, cluster: LocalCluster) -> None:
    """At once: whatever is judged has been judged."""
    daemons: list[Daemon] = [service.daemon for service in cluster.services.values()]
    for kill in (*(daemon.kill for daemon in (*daemons, *cluster.simulators)), kafka.kill):
        try:
            kill()
        except NativeError:
            continue
