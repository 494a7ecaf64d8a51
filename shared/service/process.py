"""A process of tutti: settings, logs, event loop, HTTP servers, signals, exit code, around one service or several."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import os
import signal
import socket
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal

import uvicorn
from pydantic import ValidationError
from pydantic_settings import SettingsError

from shared.clock import Clock, SystemClock
from shared.errors import ConfigurationError
from shared.kafka.client.security import security_of
from shared.kafka.client.watched import WatchedLog
from shared.kafka.port import Log
from shared.processing.topic_news import TopicNews, TopicWatch
from shared.sealing.sealed_log import sealed
from shared.service import Answering, Build, Environment
from shared.service.application import Application
from shared.service.bounded import BoundedProtocol
from shared.service.configuration import ShellSettings, instance_name, listen, ports_of, problems
from shared.service.lifecycle import EXIT_OK, EXIT_SETTINGS, Life, Word
from shared.tasks import beside, ended
from shared.telemetry import logs
from shared.tls import Pair, server_context, watch
from shared.topics import Topics

log = logs.get(__name__)
UNHEARD = "Kafka acknowledges no writes: fewer replicas than min.insync.replicas, or no leader"
KEPT_SECONDS = 120
"""An idle connection, as whole seconds: longer than clients keep theirs (httpx and with it OpenAI's 5 s, load balancers 60, Go 90). Who
hangs up first decides; the other's next request may meet a connection that is just gone.
"""
_HANG_UP_SECONDS = 0.5
"""Within this a client takes something, or it is taken to have gone."""


def word_of(news: Word, kafka: Log, *, takes_requests: bool) -> Word:
    """What the brokers say of us, and what they have (`news`). That nothing is acknowledged is only told where requests are taken: it may
    be one partition's trouble, and who is led nobody writes to no other.
    """

    def word() -> tuple[bool, tuple[str, ...]]:
        ready, reasons = news()
        told = tuple(filter(None, (kafka.trouble, UNHEARD if kafka.unheard else None)))
        return ready and kafka.trouble is None and (takes_requests or not kafka.unheard), (*told, *reasons)

    return word


def _new_event_loop() -> asyncio.AbstractEventLoop:
    """Prefer uvloop where it exists; Windows has asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def run_process(builds: Sequence[tuple[str, Build]]) -> int:
    """Run the services until a signal or until one of them ends; returns the exit code (`lifecycle`)."""
    names = [name for name, _ in builds]
    try:
        settings = ShellSettings()
        ports = ports_of(settings, names)
        random = Random()
        instance = settings.instance or instance_name(random, os.getpid())
        logs.configure("+".join(names), instance, settings.log_level)
        with asyncio.Runner(loop_factory=_new_event_loop) as runner:
            return runner.run(_run(builds, settings, ports, instance, random))
    except (ConfigurationError, SettingsError) as error:
        return _refuse(names, [str(error)])
    except ValidationError as error:
        lines = problems(error)
        if lines is None:
            raise
        return _refuse(names, lines)


def _refuse(names: Sequence[str], lines: Sequence[str]) -> int:
    for line in lines:
        print(f"tutti {' '.join(names)}: wrong settings: {line}", file=sys.stderr)  # noqa: T201
    return EXIT_SETTINGS


async def _run(builds: Sequence[tuple[str, Build]], settings: ShellSettings, ports: dict[str, int], instance: str, random: Random) -> int:
    from shared.kafka.client.aio import AioLog

    clock = SystemClock()
    security, topics = security_of(settings), Topics(settings.topics)
    compression: Literal["lz4"] | None = "lz4" if settings.kafka_compression == "lz4" and not settings.sealing.keys_file else None
    kafka = sealed(AioLog(servers=settings.kafka_servers, clock=clock, compression=compression, security=security), settings, clock, topics)
    environment = Environment(settings, kafka, clock, random, topics, instance)
    try:
        return await _Process(settings, [*security.pairs]).run(builds, environment, ports)
    finally:
        await kafka.close()


class _Server(uvicorn.Server):
    """Signals are the process's business: it has several servers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


@dataclass(slots=True)
class _Member:
    """One service with its HTTP server."""

    life: Life
    news: TopicNews
    server: _Server
    socket: socket.socket
    own_application: bool
    clock: Clock
    grace_seconds: float

    async def wind_down(self) -> None:
        """The service drains. Its own application takes no new connections meanwhile; a bare shell serves metrics to the end."""
        if self.own_application:
            self.server.should_exit = True
        await self.life.drain()
        self.server.should_exit = True
        await self._hang_up()

    async def _hang_up(self) -> None:
        """A client that still takes what is left for it may do so, within the grace period; one that takes nothing holds nobody up."""
        left: dict[Any, float] = {}
        for _ in range(math.ceil(self.grace_seconds / _HANG_UP_SECONDS)):
            for connection in (connections := list(self.server.server_state.connections)):
                size = connection.transport.get_write_buffer_size()
                if size >= left.get(connection, math.inf):
                    connection.transport.abort()
                left[connection] = size
            if not connections:
                return
            await self.clock.sleep(_HANG_UP_SECONDS)


class _Process:
    def __init__(self, settings: ShellSettings, pairs: list[Pair]) -> None:
        self._settings, self._pairs = settings, pairs
        self._stopping = asyncio.Event()

    async def run(self, builds: Sequence[tuple[str, Build]], environment: Environment, ports: dict[str, int]) -> int:
        members = [self._member(name, build, environment, ports[name]) for name, build in builds]
        topics = TopicWatch(environment.log, environment.topics, environment.clock, [member.news for member in members])
        self._handle_signals()
        _settle_memory()
        servers = [asyncio.create_task(member.server.serve(sockets=[member.socket])) for member in members]
        for member in members:
            host, port, *_ = member.socket.getsockname()
            log.info("listening", service=member.life.service.name, host=host, port=port)
        watching = [beside(topics.run(), "topics"), beside(watch(self._pairs, environment.clock), "certificates")]
        await self._stopping.wait()
        log.info("stopping")
        await asyncio.gather(*(member.wind_down() for member in members))
        await ended(*watching)
        await asyncio.gather(*servers)
        codes = {member.life.exit_code for member in members} - {EXIT_OK}
        log.info("stopped", exit_code=max(codes, default=EXIT_OK))
        return max(codes, default=EXIT_OK)

    def _member(self, name: str, build: Build, environment: Environment, port: int) -> _Member:
        listening = listen(name, self._settings.host, port)
        told: list[Callable[[str], None]] = []
        takes_requests = name == "ingress"
        news = TopicNews(name, environment.clock, told, takes_requests=takes_requests)
        watched = WatchedLog(environment.log, environment.clock, missed=news.missed)
        service = build(replace(environment, log=watched, topics_made_anew=told))

        topics = word_of(news.readiness, environment.log, takes_requests=takes_requests)
        life = Life(service, self._settings.grace_seconds, self._stopping.set, topics)
        own = service.asgi() if isinstance(service, Answering) else None
        application = Application(alive=life.alive, readiness=life.readiness, own=own, lifespan=life.lifespan)
        config = uvicorn.Config(
            application,
            loop="none",
            http=BoundedProtocol,
            lifespan="on",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEPT_SECONDS,
            timeout_graceful_shutdown=math.ceil(self._settings.grace_seconds),
        )
        self._encrypt(name, config)
        return _Member(life, news, _Server(config), listening, own is not None, environment.clock, self._settings.grace_seconds)

    def _encrypt(self, name: str, config: uvicorn.Config) -> None:
        """Where it has a certificate. Raises ConfigurationError."""
        files = self._settings.tls.get(name)
        if files is not None:
            context = server_context()
            self._pairs.append(Pair(name, files, context))
            config.load()
            config.ssl = context

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError):  # Windows
                loop.add_signal_handler(number, self._on_signal, number.name)

    def _on_signal(self, name: str) -> None:
        """The first asks for an orderly end, the second ends at once: nothing is lost, the log has every lease."""
        if self._stopping.is_set():
            log.warning("stopped_at_once", signal=name)
            sys.stderr.flush()
            os._exit(1)
        log.info("signal", signal=name)
        self._stopping.set()


def _settle_memory() -> None:
    """Imported modules are never garbage: keep the collector off them. Services make hardly any garbage in cycles, but it looks at all that
    is live: of 8,000 jobs it found a few hundred objects, in a tenth of a planner's time, when it looked after every 10,000.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
