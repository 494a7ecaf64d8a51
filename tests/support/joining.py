"""A machine that joins a cluster, for tests: a shell elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Machine:
    """A shell elsewhere: its own folder, and nothing of the cluster in its environment."""

    def __init__(self, directory: Path, ollama: str) -> None:
        self.directory, self.home = directory, directory / "node"
        directory.mkdir()
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("TUTTI_")}
        self._environment |= {"OLLAMA_HOST": ollama, "PYTHONPATH": str(ROOT)}

    def tutti(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "infra.cli", *words]
        surroundings = {**self._environment, **environment}
        return subprocess.run(command, cwd=self.directory, env=surroundings, capture_output=True, text=True, timeout=120, check=False)

    def join(self, token: str, *words: str) -> subprocess.CompletedProcess[str]:
        return self.tutti("join", "--home", str(self.home), "--dedicated", *words, TUTTI_JOIN_TOKEN=token)

    def leave(self) -> subprocess.CompletedProcess[str]:
        return self.tutti("leave", "--home", str(self.home))
