"""The stack's announcement on its network (`tutti up --announce NAME`): a small process beside the services, so that machines find it."""

from __future__ import annotations

import sys

from infra.native.errors import StartFailed
from infra.native.join import mdns
from infra.native.join.invitation import Invitation
from infra.native.paths import REPOSITORY
from infra.native.processes import Daemon
from infra.native.report import Row
from infra.native.settings import NativeSettings
from infra.native.waiting import wait_until
from shared.settings import ClusterSettings

START_SECONDS = 15.0
STOP_SECONDS = 5.0
_SAYS = "announced"


class Beacon:
    """Of one stack. `servers`: where others reach its Kafka."""

    def __init__(self, settings: NativeSettings, servers: str) -> None:
        self._name, self._servers = settings.announce, servers
        spec = Invitation(
            name=settings.announce or "tutti",
            servers=servers,
            topics=ClusterSettings().topics,
            protocol=settings.kafka_security_protocol,
        )
        home, command = (
            settings.stack_home,
            [sys.executable, "-m", "infra.native.join.mdns", spec.model_dump_json(exclude_defaults=True, exclude={"password"})],
        )
        environment = {"PYTHONPATH": str(REPOSITORY)}
        command.append(settings.mdns_interfaces)
        self.daemon = Daemon("announcer", command, home.pid_file("announcer"), home.log("announcer"), environment)
        self._spec = spec

    def start(self) -> None:
        """Where settings name the cluster. Raises MissingTool, StartFailed."""
        if not self._name or self.daemon.running():
            return
        try:
            mdns.record_of(self._spec)
        except ValueError as error:
            raise StartFailed(f"the cluster cannot be announced: {error}") from None
        mdns.available()
        begun = self.daemon.log.stat().st_size if self.daemon.log.exists() else 0
        self.daemon.start()

        def said() -> bool:
            with self.daemon.log.open("rb") as log:
                log.seek(begun)
                return _SAYS.encode() in log.read(10_000)

        if not wait_until(lambda: said() or self.daemon.pid() is None, START_SECONDS) or self.daemon.pid() is None:
            raise self.daemon.failure("does not announce the cluster")

    def stop(self) -> None:
        """It says that it is gone."""
        self.daemon.stop(STOP_SECONDS)

    def row(self) -> Row | None:
        """None where nothing is to be announced."""
        pid = self.daemon.pid()
        if pid is None and not self._name:
            return None
        about = f"announces {self._servers} on this network" + (f" as {self._name}" if self._name else "")
        return Row("announcer", "stopped" if pid is None else "ready", about, "", pid)
