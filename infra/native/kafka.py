"""A real Apache Kafka broker in KRaft mode, from Maven artefacts and a Java runtime.

    broker = Kafka(home=StackHome(Path(".tutti")), cache=Path("~/.cache/tutti").expanduser(), port=19092, controller_port=19093)
    broker.start()          # downloads once, formats once, waits until clients are served
    broker.stop()           # data stays; start() brings it back

`kill()` is for tests of faults.
"""

from __future__ import annotations

import asyncio
import base64
import re
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError
from pydantic import Secret

from infra.native import install, ports
from infra.native.causes import explain
from infra.native.errors import MissingTool, StartFailed
from infra.native.install import Need
from infra.native.paths import StackHome, locked
from infra.native.processes import Daemon
from shared.kafka.client.security import security_of
from shared.settings import KafkaSettings

VERSION = "4.3.1"
JAVA_MINIMUM = 17
START_SECONDS = 60.0
STOP_SECONDS = 15.0
PROBE_SECONDS = 5.0
_TEMPLATES = Path(__file__).parent / "broker"
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
"""In full: without a network Maven says of the short name only that it knows no such plugin."""
_LEADERS_BACK = "leader.imbalance.check.interval.seconds=10"
"""A broker that comes back leads again soon: each does its part, and can be lost again."""
_JAVA = Need("java", ("default-jre-headless",), "Kafka's broker runs on it")
_MAVEN = Need("mvn", ("maven",), "it fetches Kafka's jars")


@dataclass(frozen=True, slots=True)
class BrokerSecurity:
    """Of a broker that lets nobody in without TLS and a password, and denies what no ACL allows. `users`: name → password, known from its
    first start on; the first is an administrator.
    """

    keystore: Path
    """Its key and certificate, PEM in one file."""
    authorities: Path
    users: Mapping[str, str]
    mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256"] = "SCRAM-SHA-512"

    @property
    def admin(self) -> str:
        return next(iter(self.users))

    def settings(self, user: str = "") -> KafkaSettings:
        """How a client reaches it as `user`, the administrator unless named."""
        name = user or self.admin
        return KafkaSettings(
            kafka_security_protocol="SASL_SSL",
            kafka_ca_file=str(self.authorities),
            kafka_sasl_mechanism=self.mechanism,
            kafka_sasl_username=name,
            kafka_sasl_password=Secret(self.users[name]),
        )

    @property
    def words(self) -> dict[str, str]:
        """Of its configuration."""
        of_admin = {"ADMIN": self.admin, "ADMIN_PASSWORD": self.users[self.admin]}
        files = {"KEYSTORE": str(self.keystore), "AUTHORITIES": str(self.authorities)}
        return {**files, **of_admin, "MECHANISM": self.mechanism, "MECHANISM_LOWER": self.mechanism.lower()}


@dataclass(slots=True)
class Kafka:
    """One broker. `tier` 1 starts two seconds faster, 4 gives the better throughput; `heap_mb` bounds the JVM's heap."""

    home: StackHome
    cache: Path
    port: int = 19092
    controller_port: int = 19093
    heap_mb: int = 512
    tier: int = 4
    session_timeout_ms: int = 6_000
    """A killed broker comes back this much later; a starved machine may miss heartbeats for as long without being fenced."""
    dies_with_parent: bool = False
    security: BrokerSecurity | None = None
    open_at: str = ""
    """`host:port` at which other machines reach it, too, without being asked who they are; nowhere when empty."""
    number: int = 1
    quorum: Mapping[int, int] = field(default_factory=dict)
    """Of several brokers that are each other's controllers: number → its controller's port. Empty: alone (`brokers` has several)."""
    cluster_id: str = ""
    """Of several: the same for all. Else drawn."""
    daemon: Daemon = field(init=False)

    def __post_init__(self) -> None:
        self.daemon = Daemon(
            f"kafka-{self.number}" if self.quorum else "kafka",
            (),
            self.home.pid_file("kafka"),
            self.home.log("kafka"),
            dies_with_parent=self.dies_with_parent,
            port=self.port,
        )

    @classmethod
    def beside(cls, home: StackHome, cache: Path, **options: Any) -> Self:
        """One that is not started yet, with these fields, on free ports; it ends with this process."""
        port, controller_port = ports.free_ports(2)
        return cls(home, cache, port=port, controller_port=controller_port, dies_with_parent=True, **options)

    @property
    def servers(self) -> str:
        """Bootstrap servers for clients."""
        return f"127.0.0.1:{self.port}"

    def listeners(self) -> list[tuple[int, str, str]]:
        """(port, component, the setting that moves it) of each port that the broker opens."""
        controller = (self.controller_port, "Kafka's controller", "TUTTI_KAFKA_CONTROLLER_PORT")
        return [(self.port, "Kafka", "TUTTI_KAFKA_PORT"), controller]

    def start(self, *, timeout_seconds: float = START_SECONDS) -> None:
        """Bring it up; returns when clients are served. Does nothing when it runs. Raises MissingTool, PortTaken or StartFailed."""
        self.launch()
        self.await_healthy(timeout_seconds)

    def launch(self) -> None:
        """The same without waiting: one of several serves nobody before most of them run."""
        if self.daemon.running():
            return
        java, jars = prepare(self.cache)
        for listener in self.listeners():
            ports.require_free(*listener)
        self._configure(java, jars)
        self.daemon.command = self._java(java, jars, "kafka.Kafka", str(self._properties))
        self.daemon.start()

    def await_healthy(self, timeout_seconds: float = START_SECONDS) -> None:
        """Return when clients are served. Raises StartFailed."""
        self.daemon.await_ready(self.healthy, timeout_seconds, "serves no clients")

    def healthy(self) -> bool:
        """Whether a client is served: versions, metadata and the coordinator of groups. An open port alone says nothing.

        Blocks; from a coroutine call it (and start) in a thread.
        """
        if ports.is_free(self.port):
            return False
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:  # leaves the caller's current loop alone
            return runner.run(serves(self.servers, reached=self.security.settings() if self.security else None))

    def stop(self, *, grace_seconds: float = STOP_SECONDS) -> None:
        """Shut down in order; data stays."""
        self.daemon.stop(grace_seconds)

    def kill(self) -> None:
        """SIGKILL: what a power cut looks like to the clients."""
        self.daemon.kill()

    @property
    def _properties(self) -> Path:
        return self.home.data("kafka") / "server.properties"

    def _configure(self, java: str, jars: Path) -> None:
        directory = self.home.data("kafka")
        directory.mkdir(parents=True, exist_ok=True)
        logs = directory / "logs"
        text = (_TEMPLATES / "server.properties").read_text()
        words = {"PORT": self.port, "CONTROLLER_PORT": self.controller_port, "DATA": logs, "SESSION_TIMEOUT": self.session_timeout_ms}
        words |= {"OPEN": f",OPEN://{self.open_at}", "OPEN_MAP": ",OPEN:PLAINTEXT"} if self.open_at else {"OPEN": "", "OPEN_MAP": ""}
        words["PROTOCOL"] = "SASL_SSL" if self.security else "PLAINTEXT"
        alone = f"controller.quorum.bootstrap.servers=127.0.0.1:{self.controller_port}"
        voters = ",".join(f"{number}@127.0.0.1:{port}" for number, port in self.quorum.items())
        words |= {"NUMBER": self.number, "QUORUM": f"controller.quorum.voters={voters}\n{_LEADERS_BACK}" if voters else alone}
        words |= {"COPIES": max(1, len(self.quorum)), "IN_SYNC": max(1, len(self.quorum) - 1)}
        if self.security is not None:
            text += (_TEMPLATES / "guarded.properties").read_text()
            words |= self.security.words
        for word, value in words.items():
            text = text.replace(f"@{word}@", str(value))
        self._properties.touch(mode=0o600)  # a guarded one's holds a password
        self._properties.write_text(text)
        if not (logs / "meta.properties").exists():
            self._format(java, jars)

    def _format(self, java: str, jars: Path) -> None:
        """Give the log directory its cluster id. Done once; an id stays for the life of the data."""
        alone = () if self.quorum else ("--standalone",)
        arguments = ["format", *alone, "-t", self.cluster_id or new_cluster_id(), "-c", str(self._properties)]
        if self.security is not None:
            users = (f"{self.security.mechanism}=[name={name},password={password}]" for name, password in self.security.users.items())
            arguments += [word for user in users for word in ("--add-scram", user)]
        done = subprocess.run(self._java(java, jars, "kafka.tools.StorageTool", *arguments), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise StartFailed(explain("Kafka's log directory could not be formatted", done.stdout + done.stderr))

    def _java(self, java: str, jars: Path, main: str, *arguments: str) -> list[str]:
        return [
            java,
            "-Xms64m",
            f"-Xmx{self.heap_mb}m",
            "-XX:+UseSerialGC",  # smallest footprint; two cores give a parallel collector nothing
            f"-XX:TieredStopAtLevel={self.tier}",
            "-XX:MaxMetaspaceSize=192m",
            f"-Dlog4j2.configurationFile={_TEMPLATES / 'log4j2.properties'}",
            "-cp",
            f"{jars}/*",
            main,
            *arguments,
        ]


def new_cluster_id() -> str:
    """As Kafka writes it."""
    return base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=").replace("-", "A")


async def serves(servers: str, timeout_seconds: float = PROBE_SECONDS, *, reached: KafkaSettings | None = None) -> bool:
    """Whether the broker at `servers` answers ApiVersions and Metadata and has a group coordinator. `reached`: how it is, where not as
    anybody. Raises ConfigurationError.
    """
    options = security_of(reached).options if reached else {}
    admin: Any = AIOKafkaAdminClient(bootstrap_servers=servers, request_timeout_ms=int(timeout_seconds * 1000), **options)
    try:
        async with asyncio.timeout(timeout_seconds):
            await admin.start()
            await admin.find_coordinator("tutti-health")
        return True
    except GroupAuthorizationFailedError:  # it has looked
        return True
    except (KafkaError, OSError, TimeoutError):
        return False
    finally:
        await admin.close()


def needs(cache: Path) -> tuple[Need, ...]:
    """The programs without which the broker cannot be started here."""
    return (_JAVA,) if fetched(cache) else (_JAVA, _MAVEN)


def prepare(cache: Path) -> tuple[str, Path]:
    """(a Java runtime of at least version 17, the directory of the broker's jars); jars that are missing are downloaded.

    Safe when several processes ask at once. Raises MissingTool, naming all that is missing, or StartFailed.
    """
    target = cache / f"kafka-{VERSION}"
    with locked(cache / f"kafka-{VERSION}.lock"):
        install.require(*needs(cache))
        java = shutil.which(_JAVA.name) or _JAVA.name
        _check_version(java)
        if not fetched(cache):
            _download(target)
    return java, target


def _check_version(java: str) -> None:
    shown = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', shown)
    if found is None or int(found.group(1)) < JAVA_MINIMUM:
        first = shown.splitlines()[0] if shown else "no version"
        raise MissingTool(f"{java} is too old for Kafka ({first}): put a Java of {JAVA_MINIMUM} or later on the PATH")


def fetched(cache: Path) -> bool:
    """Whether the broker's jars are in the cache."""
    return (cache / f"kafka-{VERSION}" / "complete").exists()


def _download(target: Path) -> None:
    draft = target.with_suffix(".new")
    shutil.rmtree(draft, ignore_errors=True)
    command = [_MAVEN.name, "-B", "-ntp", "-q", "-f", str(_TEMPLATES / "pom.xml"), _COPY]
    done = subprocess.run(
        [*command, "-DincludeScope=runtime", f"-DoutputDirectory={draft}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0 or not any(draft.glob("kafka_2.13-*.jar")):
        raise StartFailed(explain(f"Maven could not fetch Kafka {VERSION}", done.stdout + done.stderr))
    (draft / "complete").touch()
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)
