"""One `docker compose` project of its own name, of this checkout's files and the images made here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infra.lab.compose.engine import Engine

ROOT = Path(__file__).parents[3]
LOCAL = ROOT / "infra" / "lab" / "compose" / "local.yml"


class Project:
    """`values` are those of .env."""

    def __init__(self, engine: Engine, name: str, values: Mapping[str, str]) -> None:
        self._engine, self._name, self._values = engine, name, dict(values)
        self._plain = [*engine.compose(), "--project-directory", str(ROOT), "-p", name, "-f", str(ROOT / "docker-compose.yml")]
        self._command = [*self._plain, "-f", str(LOCAL)]

    def beside(self, name: str) -> Project:
        """Another one of the same files."""
        return Project(self._engine, f"{self._name}-{name}", self._values)

    def compose(self, *arguments: str, **values: str) -> str:
        """What it printed; `values` for this once. Raises StartFailed with what it said."""
        return self._run(self._command, arguments, values)

    def plain(self, *arguments: str, **values: str) -> str:
        """The same of docker-compose.yml alone, with the registries' images: nothing can be started."""
        return self._run(self._plain, arguments, values)

    def _run(self, command: list[str], arguments: Sequence[str], values: Mapping[str, str]) -> str:
        return self._engine.run([*command, *arguments], {**self._values, **values})

    def down(self) -> None:
        """Nothing is left of it but images."""
        self.compose("down", "-v", "--remove-orphans", "--timeout", "2", COMPOSE_PROFILES="*")

    def containers(self) -> dict[str, dict[str, Any]]:
        """Of each service that has one, ended ones too, what the engine knows of it."""
        found = self.compose("ps", "-a", "-q").split()
        inspected = json.loads(self._engine.docker("inspect", *found)) if found else []
        return {of["Config"]["Labels"]["com.docker.compose.service"]: of for of in inspected}

    def ready(self) -> dict[str, str]:
        """Of each service that is neither healthy nor through with its work, how it stands."""
        return {name: state for name, of in self.containers().items() if (state := _standing(of["State"])) not in ("healthy", "exited 0")}

    def run_in(self, service: str, *command: str) -> subprocess.CompletedProcess[str]:
        """A command in its container."""
        return self._engine.ran([*self._command, "exec", "-T", service, *command], self._values)

    def processes(self, service: str) -> list[int]:
        """Ids, as this machine has them."""
        container = self.containers()[service]["Id"]
        return [int(line) for line in self._engine.docker("top", container, "-o", "pid").split()[1:]]

    def kill(self, service: str) -> None:
        """SIGKILL to its first process, from outside: a crash, so its restart policy applies. After a `docker kill` it would not."""
        os.kill(self.containers()[service]["State"]["Pid"], signal.SIGKILL)

    def logs(self) -> str:
        """The end of what each container said."""
        return self.compose("logs", "--no-color", "--tail", "40")


def _standing(state: Mapping[str, Any]) -> str:
    if state["Status"] == "exited":
        return f"exited {state['ExitCode']}"
    return str(state.get("Health", {}).get("Status", state["Status"]))
