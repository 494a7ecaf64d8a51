"""tutti's own services as background processes, one each, health-checked through /readyz; `kept` ones are started again when they end."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from infra.native import http, keeper, ports
from infra.native.errors import StartFailed
from infra.native.paths import REPOSITORY, StackHome
from infra.native.processes import Daemon
from infra.native.waiting import wait_until, wait_while_moving
from shared.services import ListedService

READY_SECONDS = 60.0
GRACE_SECONDS = 35.0
"""A little more than the services' own grace period (30 s)."""
KEEPER_SECONDS = 10.0
"""A keeper starts its service, and ends, well within this."""


@dataclass(slots=True)
class ServiceProcess:
    """One service. `instance` tells several of a kind apart; `environment` carries its settings."""

    service: str
    home: StackHome
    port: int
    environment: Mapping[str, str]
    instance: str = ""
    dies_with_parent: bool = False
    kept: bool = False
    module: str = ""
    """Of a service that is not one of tutti's own."""
    daemon: Daemon = field(init=False)
    keeper: Daemon | None = field(init=False, default=None)
    """Which starts the daemon, and starts it again (`keeper`)."""

    def __post_init__(self) -> None:
        log, environment = self.home.log(self.name), {**self.environment, "TUTTI_HTTP_PORT": str(self.port), "PYTHONPATH": str(REPOSITORY)}
        command, beside = (sys.executable, "-m", self.module or f"services.{self.service}"), self.dies_with_parent
        self.daemon = Daemon(self.name, command, self.home.pid_file(self.name), log, environment, dies_with_parent=beside, port=self.port)
        if self.kept:
            pid_file = self.home.pid_file(f"{self.name}.keeper")
            self.keeper = Daemon(self.name, keeper.command(self.daemon), pid_file, log, environment, dies_with_parent=beside)

    @property
    def name(self) -> str:
        return f"{self.service}-{self.instance}" if self.instance else self.service

    @property
    def url(self) -> str:
        """Base address of its HTTP server."""
        encrypted = f"TUTTI_TLS__{self.service.upper()}__CERT_FILE" in {**os.environ, **self.environment}
        return f"{'https' if encrypted else 'http'}://127.0.0.1:{self.port}"

    @property
    def port_setting(self) -> str:
        """The variable that moves it to another port."""
        return f"TUTTI_HTTP_PORTS__{self.service.upper()}"

    def start(self) -> None:
        """Start it without waiting. Does nothing when it runs. Raises PortTaken, or StartFailed when it runs on another port."""
        running = self.daemon.running()
        if self.keeper is not None and running and self.keeper.pid() is not None:
            return
        if self.keeper is not None:
            self.keeper.stop(KEEPER_SECONDS)  # it may be pausing between two starts
        if not running:
            ports.require_free(self.port, f"the {self.service}", self.port_setting)
        if self.keeper is None:
            self.daemon.start()
        else:
            self.keeper.start()
            wait_until(self.running, KEEPER_SECONDS, every_seconds=0.05)

    def running(self) -> bool:
        """Whether its process is there."""
        return self.daemon.pid() is not None

    def await_ready(self, timeout_seconds: float = READY_SECONDS) -> None:
        """Return when it takes work. Raises StartFailed, with the reason it gives, when nothing has moved for so long."""

        def progress() -> object:
            return self.daemon.progress(), self.reason()

        if not wait_while_moving(lambda: self.ready() or not self.running(), progress, timeout_seconds):
            why = self.reason() or "it does not answer"
            raise self._failure(f"is not ready, and nothing has moved for {timeout_seconds:.0f} s ({why})")
        if not self.running():
            raise self._failure("ended at once")

    def _failure(self, what: str) -> StartFailed:
        return (self.keeper or self.daemon).failure(what)

    def ready(self) -> bool:
        """Whether /readyz says yes."""
        return http.answers(f"{self.url}/readyz")

    def reason(self) -> str | None:
        """Why it is not ready, in its own words."""
        return http.refusal(f"{self.url}/readyz")

    def stop(self, grace_seconds: float = GRACE_SECONDS) -> bool:
        """SIGTERM, then SIGKILL after the grace period. Returns whether it ended by itself."""
        if self.keeper is not None:
            self.keeper.stop(KEEPER_SECONDS)
        return self.daemon.stop(grace_seconds)


def service_port(service: ListedService, chosen: Mapping[str, int]) -> int:
    """TUTTI_HTTP_PORTS__<SERVICE>, else the registry's."""
    return chosen.get(service.name, service.port)
