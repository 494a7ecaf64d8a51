"""Everything on one machine: Kafka, Redis, MongoDB or its stand-in, a model node, the services. Up is idempotent; down keeps the data.

Up:   Kafka → topics │ Redis, twice │ MongoDB │ model node   in parallel
      planner, router, worker, delay, sink, cache, ingress    in parallel, each until its /readyz says yes
Down: ingress (it lets callers finish) → the other services → model node → MongoDB, Redis and Kafka
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cached_property
from pathlib import Path
from typing import Any

from infra.native import install, ports
from infra.native import node as nodes
from infra.native.announcing import Beacon
from infra.native.errors import MissingTool, NativeError, PortTaken, StartFailed
from infra.native.install import Need
from infra.native.kafka import VERSION, Kafka, fetched, needs, serves
from infra.native.mongo import MongoServer
from infra.native.node import ModelNode, Say
from infra.native.paths import locked, writing
from infra.native.redis import RedisServer
from infra.native.report import Row, all_ready
from infra.native.services import ServiceProcess, service_port
from infra.native.settings import NativeSettings
from infra.native.topics import ensure_topics
from infra.native.waiting import now, seconds_since, wait_until
from shared.errors import LogError
from shared.services import listed

STILL_WAITING_SECONDS = 10.0
LOOK_AGAIN_SECONDS = 10.0
ENDING_SECONDS = 5.0
"""A broker that cannot write its log closes connections before it ends."""


class Stack:
    """The stack of one data directory. `say` hears of progress, one short sentence at a time."""

    def __init__(self, settings: NativeSettings, say: Say) -> None:
        self.settings = settings
        self.home = settings.stack_home
        self._say = say

    @cached_property
    def kafka(self) -> Kafka:
        settings, open_at = self.settings, self._open_at
        return Kafka(self.home, settings.cache_directory, settings.kafka_port, settings.kafka_controller_port, open_at=open_at)

    @property
    def _open_at(self) -> str:
        return f"{self.settings.kafka_open_host}:{self.settings.kafka_open_port}" if self.settings.kafka_open_host else ""

    @cached_property
    def beacon(self) -> Beacon:
        return Beacon(self.settings, self._open_at or self.kafka_servers)

    @cached_property
    def redis(self) -> RedisServer:
        return RedisServer(self.home, self.settings.redis_port)

    @cached_property
    def redis_cache(self) -> RedisServer:
        return RedisServer(self.home, self.settings.redis_cache_port, name="redis-cache", evicts=True)

    @cached_property
    def mongo(self) -> MongoServer:
        return MongoServer(self.home, self.settings.mongo_port)

    @property
    def kafka_servers(self) -> str:
        """Bootstrap servers: the broker started here unless settings name another."""
        return self.settings.kafka_servers or self.kafka.servers

    def up(self) -> list[Row]:
        """Start what is not running and wait until everything is ready; returns the status. Raises NativeError kinds."""
        with writing(), locked(self.home.root / "lock", wait=False):
            self._check_tools()
            self._check_ports()
            node = self._start_components()
            self._start_services(node)
            self.beacon.start()
        looks: list[list[Row]] = []

        def ready() -> bool:
            looks.append(self.status())
            return all_ready(looks[-1])

        wait_until(ready, LOOK_AGAIN_SECONDS, every_seconds=1.0)  # each has been ready: one look at a busy machine does not say it is not
        return looks[-1]

    def _check_tools(self) -> None:
        """Before anything is downloaded: what only an administrator can install is told at once."""
        if install.missing(*self._kafka_needs()):
            install.require(*self.needs())

    def needs(self) -> tuple[Need, ...]:
        """What `up` needs of the system here: nothing for a Kafka or a model that is there already."""
        return (*self._kafka_needs(), *nodes.needs(self.settings))

    def _check_ports(self) -> None:
        """Before anything is downloaded too. The node's port is known only when its kind is."""
        wanted = [(service.daemon, (service.port, f"the {service.service}", service.port_setting)) for service in self.services(None)]
        wanted += [(one.daemon, (one.port, "Redis", one.port_setting)) for one in self._redises()]
        if not self.settings.sink_store:
            wanted.append((self.mongo.daemon, (self.mongo.port, "MongoDB", "TUTTI_MONGO_PORT")))
        if not self.settings.kafka_servers:
            wanted += [(self.kafka.daemon, listener) for listener in self.kafka.listeners()]
        taken = [reason for daemon, port in wanted if daemon.pid() is None and (reason := ports.taken(*port))]
        if taken:
            raise PortTaken("\n".join(taken))

    def _kafka_needs(self) -> tuple[Need, ...]:
        here = not self.settings.kafka_servers and not self.kafka.daemon.running()
        return needs(self.settings.cache_directory) if here else ()

    def _start_components(self) -> ModelNode:
        with ThreadPoolExecutor(max_workers=4) as pool:
            kafka = pool.submit(self._timed, "Kafka", self._start_kafka)
            redis = pool.submit(self._timed, "Redis", self._start_redis)
            mongo = pool.submit(self._timed, "MongoDB", self._start_mongo)
            node = pool.submit(self._start_node)
            self._await_all({"Kafka": kafka, "Redis": redis, "MongoDB": mongo, "the model node": node})
        return node.result()

    def _start_kafka(self) -> None:
        if self.settings.kafka_servers:
            if not asyncio.run(serves(self.kafka_servers, reached=self.settings)):
                raise StartFailed(f"no Kafka answers at {self.kafka_servers} (TUTTI_KAFKA_SERVERS); unset it to start one here")
        else:
            if not fetched(self.settings.cache_directory):
                self._say(f"fetching Kafka {VERSION} (54 MB, once)")
            self.kafka.start()
        try:
            ensure_topics(self.kafka_servers)
        except (LogError, TimeoutError):
            if not self.settings.kafka_servers and wait_until(lambda: self.kafka.daemon.pid() is None, ENDING_SECONDS):
                raise self.kafka.daemon.failure("the broker ended while topics were made") from None
            raise

    def _redises(self) -> list[RedisServer]:
        return [self.redis] if self.settings.cache_store else [self.redis, self.redis_cache]

    def _start_redis(self) -> None:
        try:
            for one in self._redises():
                one.start()
        except MissingTool as error:  # job status is then kept in memory, answers are not
            self._say(f"going on without Redis: {error.message}")

    def _start_mongo(self) -> None:
        if self.settings.sink_store:
            return
        try:
            self.mongo.start()
        except MissingTool as error:  # the sink then counts metrics and keeps nothing
            self._say(f"going on without MongoDB: {error.message}")

    def _start_node(self) -> ModelNode:
        start = now()
        node = nodes.current(self.settings) or nodes.start(self.settings, self._say)
        nodes.remember(self.home, node)
        self._say(f"model node ready after {seconds_since(start):.1f} s: {node.about}")
        return node

    def _timed(self, name: str, action: Callable[[], None]) -> None:
        start = now()
        action()
        self._say(f"{name} ready after {seconds_since(start):.1f} s")

    def _start_services(self, node: ModelNode | None) -> None:
        start = now()
        services = self.services(node)
        for service in services:
            service.start()
        with ThreadPoolExecutor(max_workers=len(services)) as pool:
            self._await_all({service.name: pool.submit(service.await_ready) for service in services})
        self._say(f"{', '.join(service.name for service in services)} ready after {seconds_since(start):.1f} s")

    def _await_all(self, named: Mapping[str, Future[Any]]) -> None:
        """Wait for all, telling now and then for what. One error tells of every failure."""
        waiting = set(named.values())
        while waiting:
            _, waiting = wait(waiting, timeout=STILL_WAITING_SECONDS)
            if waiting:
                self._say(f"still waiting for {', '.join(name for name, future in named.items() if future in waiting)}")
        failures = [error for error in (future.exception() for future in named.values()) if error is not None]
        if len(failures) > 1 and all(isinstance(error, NativeError) for error in failures):
            raise StartFailed("\n".join(str(error) for error in failures))
        if failures:
            raise failures[0]

    def services(self, node: ModelNode | None) -> list[ServiceProcess]:
        """All of them, running or not; `node` is what the worker serves."""
        shared, places = (
            {"TUTTI_KAFKA_SERVERS": self.kafka_servers},
            {one.name: service_port(one, self.settings.http_ports) for one in listed()},
        )
        own = {
            "worker": node.worker_environment() if node else {},
            "sink": {
                "TUTTI_SINK__STORE": self.settings.sink_store or (self.mongo.url if self.mongo.daemon.pid() else ""),
                "TUTTI_SINK__INGRESS_URL": self.settings.ingress_url or f"http://127.0.0.1:{places['ingress']}",
            },
            "cache": {"TUTTI_CACHE__STORE": self.settings.cache_store or (self.redis_cache.url if self.redis_cache.daemon.pid() else "")},
            "ingress": {"TUTTI_INGRESS__REDIS_URL": self.redis.url} if self.redis.daemon.pid() else {},
        }
        return [
            ServiceProcess(
                service.name,
                self.home,
                places[service.name],
                {**shared, **own.get(service.name, {})},
                kept=True,
                module=service.module,
            )
            for service in listed()
        ]

    def down(self, *, clean: bool = False) -> None:
        """Stop everything that was started here; with `clean` remove its data and logs too."""
        with writing(), locked(self.home.root / "lock", wait=False):
            self.beacon.stop()
            by_name = {service.service: service for service in self.services(None)}
            self._stop([by_name.pop("ingress")])
            self._stop(list(by_name.values()))
            for kind in nodes.STARTED_HERE:
                nodes.daemon_of(self.home, kind).stop(nodes.STOP_SECONDS)
            self.mongo.stop()
            self.redis_cache.stop()
            self.redis.stop()
            self.kafka.stop()
            self._say("stopped")
            if clean:
                self._remove()

    def _stop(self, services: Sequence[ServiceProcess]) -> None:
        running = [service for service in services if service.running()]
        with ThreadPoolExecutor(max_workers=len(services)) as pool:
            in_order = list(pool.map(ServiceProcess.stop, services))
        for service, orderly in zip(services, in_order, strict=True):
            if service in running:
                self._say(f"{service.name} {'stopped' if orderly else 'did not stop within its grace period and was killed'}")

    def _remove(self) -> None:
        """Only what this launcher makes: the directory may hold a person's files too."""
        for name in ("data", "log", "run"):
            shutil.rmtree(self.home.root / name, ignore_errors=True)
        self._say(f"removed data and logs under {self.home.root}")

    def status(self) -> list[Row]:
        """One row a component, in the order of starting."""
        with ThreadPoolExecutor(max_workers=8) as pool:
            questions = [pool.submit(ask) for ask in self._component_rows()]
            questions += [pool.submit(_service_row, service) for service in self.services(None)]
        rows = [question.result() for question in questions]
        return rows + ([announced] if (announced := self.beacon.row()) else [])

    def _component_rows(self) -> tuple[Callable[[], Row], ...]:
        redis, cache, mongo, settings = self.redis, self.redis_cache, self.mongo, self.settings
        cache_at, store_at = settings.cache_store and "TUTTI_CACHE__STORE", settings.sink_store and "TUTTI_SINK__STORE"
        return (
            self._kafka_row,
            lambda: _row("redis", redis, redis.url, "Redis: job status", stopped="job status; kept in memory without it"),
            lambda: _row(
                "redis-cache", cache, cache.url, "Redis that evicts: answers", stopped="answers; not kept without it", named_by=cache_at
            ),
            lambda: _row(
                "mongodb", mongo, mongo.url, f"{mongo.about}: usage, audit", stopped="usage, audit; not kept without it", named_by=store_at
            ),
            self._node_row,
        )

    def _kafka_row(self) -> Row:
        if self.settings.kafka_servers:
            there = asyncio.run(serves(self.kafka_servers, reached=self.settings))
            return Row("kafka", "elsewhere" if there else "not ready", "named by TUTTI_KAFKA_SERVERS", self.kafka_servers)
        about = f"Apache Kafka {VERSION}, KRaft" + (f"; open to everybody at {self._open_at}" if self._open_at else "")
        return _row("kafka", self.kafka, self.kafka.servers, about, stopped="Apache Kafka")

    def _node_row(self) -> Row:
        node = nodes.current(self.settings)
        if node is None:
            return Row("model node", "stopped", "Ollama, embedded llama.cpp or simulator")
        pid = node.daemon.pid() if node.daemon else None
        lacking = install.missing(*nodes.needs(self.settings)) if node.simulated else []
        remedy = f"{install.told(lacking)}; then `tutti down` and `tutti up`" if lacking else ""
        return Row("model node", "ready" if node.daemon else "elsewhere", node.about, node.url, pid, node.simulated, remedy)

    def logs(self) -> dict[str, Path]:
        """Component → its log file, of everything that ever ran here."""
        return {path.stem: path for path in sorted((self.home.root / "log").glob("*.log"))}


def _row(name: str, component: Kafka | RedisServer | MongoServer, address: str, about: str, *, stopped: str, named_by: str = "") -> Row:
    """`named_by`: the setting that names one elsewhere; `stopped`: what is so without it."""
    if named_by:
        return Row(name, "elsewhere", f"named by {named_by}")
    pid = component.daemon.pid()
    if pid is None:
        return Row(name, "stopped", stopped)
    return Row(name, "ready" if component.healthy() else "not ready", about, address, pid)


def _service_row(service: ServiceProcess) -> Row:
    pid, remark = service.daemon.pid(), service.daemon.remarked()
    about = f"tutti service; {remark}" if remark else "tutti service"
    if pid is None:
        return Row(service.name, "stopped", about)
    if service.ready():
        return Row(service.name, "ready", about, service.url, pid)
    return Row(service.name, "not ready", service.reason() or "it does not answer", service.url, pid)
