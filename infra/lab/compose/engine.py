"""A Docker engine with Compose: the one that answers here, else Debian's, started in the cache.

One that is started here leaves the machine's firewall and routes alone: containers reach each other, and this machine their published
ports, but nothing beyond. So images are built of what was fetched before.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.lab.ollama_build import debian
from infra.native import install
from infra.native.errors import StartFailed
from infra.native.install import Need
from infra.native.paths import locked
from infra.native.processes import Daemon

START_SECONDS, STOP_SECONDS = 60.0, 60.0
COMMAND_SECONDS = 600.0
_NEEDS = (
    Need("dockerd", ("docker.io",), "containers run on it"),
    Need("iptables", ("iptables",), "Docker's engine asks for it"),
)
_ISOLATED = ("--iptables=false", "--ip6tables=false", "--ip-masq=false", "--ip-forward=false")
_CLASSIC = {"DOCKER_BUILDKIT": "0", "COMPOSE_BAKE": "false"}
"""The builder that is in every engine; the other one is a plugin."""
_SAID = 3_000


class Engine:
    """Of this machine or our own, below `cache`."""

    def __init__(self, cache: Path) -> None:
        self.root = cache / "docker"
        self._socket = self.root / "docker.sock"
        self._plugin = self.root / "compose"
        command = ("dockerd", "--data-root", str(self.root / "data"), "--exec-root", str(self.root / "run"))
        places = ("-p", str(self.root / "docker.pid"), "-H", f"unix://{self._socket}")
        self._daemon = Daemon("dockerd", (*command, *places, *_ISOLATED), self.root / "dockerd.json", self.root / "dockerd.log")
        self.environment: Mapping[str, str] = _CLASSIC
        """Of every command that is to reach it."""

    @property
    def ours(self) -> bool:
        """Whether it was started here."""
        return "DOCKER_HOST" in self.environment

    def start(self) -> None:
        """Find or start it. Raises MissingTool or StartFailed."""
        if self._answers():
            return
        install.provide(*_NEEDS)
        if self._answers():  # a package that is installed where a system manager runs may start it
            return
        self.root.mkdir(parents=True, exist_ok=True)
        with locked(self.root / "start.lock"):
            self.environment = {**_CLASSIC, "DOCKER_HOST": f"unix://{self._socket}"}
            self._daemon.start()
        self._daemon.await_ready(self._answers, START_SECONDS, "Docker's engine does not start here")

    def stop(self) -> None:
        """Ends what was started here, with all its containers; images and volumes stay."""
        if self.ours:
            self._daemon.stop(STOP_SECONDS)
            if ip := shutil.which("ip"):  # it leaves its bridge
                self.ran([ip, "link", "delete", "docker0"], {})

    def clear(self) -> None:
        """No container, network, volume is left, nor an image that another one has replaced."""
        if found := self.docker("ps", "-aq").split():
            self.docker("rm", "-f", "-v", *found)
        for kind in ("network", "volume", "image"):
            self.docker(kind, "prune", "-f")

    def _answers(self) -> bool:
        docker = shutil.which("docker")
        if docker is None:
            return False
        return self.ran([docker, "info"], {}).returncode == 0

    def docker(self, *arguments: str, seconds: float = COMMAND_SECONDS) -> str:
        """What it printed. Raises StartFailed."""
        return self.run(["docker", *arguments], {}, seconds)

    def run(self, command: Sequence[str], values: Mapping[str, str], seconds: float = COMMAND_SECONDS) -> str:
        """What a command printed that talks to it, with these variables besides. Raises StartFailed with the end of what it said."""
        done = self.ran(command, values, seconds)
        if done.returncode != 0:
            end = f"{done.stdout[-_SAID:]}\n{done.stderr[-_SAID:]}".strip()
            raise StartFailed(f"`{' '.join([Path(command[0]).name, *command[1:]])[:300]}` failed ({done.returncode}):\n{end}")
        return done.stdout

    def ran(self, command: Sequence[str], values: Mapping[str, str], seconds: float = COMMAND_SECONDS) -> subprocess.CompletedProcess[str]:
        """The same, however it ended. Raises StartFailed when that takes longer than `seconds`."""
        try:
            return subprocess.run(
                command,
                env={**os.environ, **self.environment, **values},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            raise StartFailed(f"`{' '.join(command)[:300]}` took longer than {seconds:.0f} s") from None

    def has(self, image: str, recipe: str) -> bool:
        """Whether there is such an image, of this recipe."""
        try:
            return self.docker("image", "inspect", "-f", '{{index .Config.Labels "recipe"}}', image).strip() == recipe
        except StartFailed:
            return False

    def compose(self) -> list[str]:
        """The command: of this machine, else Debian's. Raises MissingTool or StartFailed."""
        for found in (["docker", "compose"], ["docker-compose"]):
            if shutil.which(found[0]) and self.ran([*found, "version"], {}).returncode == 0:
                return found
        with locked(self.root / "compose.lock"):
            if not self._plugin.exists():
                debian.unpack(("docker-compose",), debian.SUITE, self._plugin)
        return [str(self._plugin / "usr" / "libexec" / "docker" / "cli-plugins" / "docker-compose")]
