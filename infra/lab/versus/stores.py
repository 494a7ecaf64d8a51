"""What the alternatives need: an environment of the pinned requirements, a Postgres of the machine, a Redis as `tutti up` runs it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from infra.native import ports
from infra.native.errors import MissingTool, StartFailed
from infra.native.paths import StackHome
from infra.native.processes import Daemon, started
from infra.native.redis import RedisServer
from infra.native.settings import NativeSettings

REQUIREMENTS = Path(__file__).parent / "requirements.txt"
START_SECONDS = 60.0
OWNER = "postgres"
"""Postgres refuses to run as root."""


def environment() -> Path:
    """The Python of an environment with the requirements; made or renewed when they have changed. Raises CalledProcessError."""
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    folder = NativeSettings().cache_directory / f"versus-{wanted}"
    made = folder / "made"
    if not made.exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(folder / "bin" / "pip"), "install", "-q", "--disable-pip-version-check", "-r", str(REQUIREMENTS)]
        subprocess.run(pip, check=True)
        made.touch()
    return folder / "bin" / "python"


def redis(home: StackHome) -> AbstractContextManager[RedisServer]:
    """Raises NativeError kinds."""
    return started(RedisServer(home, ports.free_ports(1)[0], dies_with_parent=True))


@contextmanager
def postgres(home: StackHome) -> Iterator[tuple[str, Daemon]]:
    """(URL of a new database, its server), as Debian configures it: every commit is on disk. Raises MissingTool, StartFailed."""
    programs = _programs()
    data, (port,) = home.data("postgres"), ports.free_ports(1)
    data.mkdir(parents=True)
    as_owner: list[str] = []
    if os.geteuid() == 0:
        as_owner = ["setpriv", "--pdeathsig", "KILL", f"--reuid={OWNER}", f"--regid={OWNER}", "--clear-groups"]
        shutil.chown(data, OWNER, OWNER)
        for folder in (home.root.parent, home.root, data.parent):
            folder.chmod(0o711)
    made = subprocess.run([*as_owner, str(programs / "initdb"), "-A", "trust", "-U", OWNER, str(data)], capture_output=True, check=False)
    if made.returncode:
        raise StartFailed(f"initdb: {made.stderr.decode(errors='replace')[-500:]}")
    command = (*as_owner, str(programs / "postgres"), "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", "")
    with started(Daemon("postgres", command, home.pid_file("postgres"), home.log("postgres"), dies_with_parent=True)) as daemon:
        ready = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        daemon.await_ready(lambda: subprocess.run(ready, check=False).returncode == 0, START_SECONDS)
        yield f"postgresql://{OWNER}@127.0.0.1:{port}/versus", daemon


def _programs() -> Path:
    """The folder of its programs: Debian's newest, else that of the PATH."""
    found = [program.parent for program in sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))]
    on_path = shutil.which("postgres")
    if not found and on_path is None:
        raise MissingTool("Postgres is not installed (Debian: apt-get install postgresql)")
    return found[-1] if found else Path(on_path or "").resolve().parent
