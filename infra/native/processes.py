"""Daemons: processes that outlive the command that started them, known by a pid file that a reused pid does not fool.

A pid file holds the pid *and* the process's start time; both must agree. Output goes to a log file that is appended to.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import psutil

from infra.native.causes import full_disk
from infra.native.errors import StartFailed
from infra.native.waiting import wait_until, wait_while_moving

SAID_BYTES = 200_000
BUSY_SECONDS = 5.0
"""One that only waits uses less in a minute: a service a hundredth of a core, a broker a few hundredths."""
STOP_SECONDS = 5.0
KILL_SECONDS = 5.0
"""How long a process may take to vanish after SIGKILL."""


class _Component(Protocol):
    def start(self) -> object: ...

    def stop(self) -> object: ...


C = TypeVar("C", bound=_Component)


@contextmanager
def started(component: C) -> Iterator[C]:
    """It runs meanwhile: a daemon, a broker, a store. Raises NativeError kinds."""
    try:
        component.start()
        yield component
    finally:
        component.stop()


def identity(pid: int, *, ended_too: bool = False) -> str | None:
    """What tells this process from a later one with the same pid; None when there is no such process (a zombie is none).

    `ended_too`: also of a zombie: a child of ours that ended before we could look.
    """
    if Path("/proc/self/stat").exists():
        return _linux_identity(pid, ended_too)
    shown = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout.strip()
    return None if not shown or (shown.startswith("Z") and not ended_too) else shown.split(maxsplit=1)[1]


def _linux_identity(pid: int, ended_too: bool) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    fields = stat.rsplit(")", 1)[1].split()  # the name before it may contain anything
    state, threads, started = fields[0], int(fields[17]), fields[19]
    ended = state in "ZX" and threads <= 1  # with threads left its ports and files are still open
    return None if ended and not ended_too else f"{boot}/{started}"


def _machine(of_process: str | None) -> str:
    """Which start of which machine an identity is of; nothing where it does not tell."""
    return (of_process or "").rpartition("/")[0]


def cpu_seconds(pid: int | None) -> float:
    """User and system time of all threads so far, in steps of 10 ms; 0 of a process that is not there."""
    try:
        used = psutil.Process(pid or -1).cpu_times()
    except (psutil.Error, ValueError):
        return 0.0
    return float(used.user + used.system)


def tail(path: Path, lines: int = 20) -> str:
    """The last lines of a log file; empty when there is none."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


@dataclass(slots=True)
class Daemon:
    """One background process. `dies_with_parent` is for tests: a killed test run leaves nothing behind."""

    name: str
    command: Sequence[str]
    pid_file: Path
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: Path | None = None
    dies_with_parent: bool = False
    port: int | None = None
    """Where it listens; noted, so that a later command with another port in its settings is told."""
    _child: subprocess.Popen[bytes] | None = None
    _boot: str = ""
    _log_start: int = 0
    """Bytes in the log before this start: what earlier runs said explains nothing."""

    def pid(self) -> int | None:
        """Of the running process; None when it does not run."""
        if self._child is not None:
            return self._child.pid if self._child.poll() is None else None  # poll reaps it when it has ended
        noted = self._noted()
        return noted["pid"] if noted is not None and identity(noted["pid"]) == noted["identity"] else None

    def progress(self) -> tuple[int, int]:
        """What changes while it starts: bytes in its log, CPU time in steps that a process that only waits does not reach in a minute."""
        try:
            logged = self.log.stat().st_size
        except OSError:
            logged = 0
        return logged, int(cpu_seconds(self.pid()) / BUSY_SECONDS)

    def _noted(self) -> dict[str, Any] | None:
        """What the pid file says; None when there is none or it is broken."""
        try:
            noted = json.loads(self.pid_file.read_text())
            return noted if isinstance(noted["pid"], int) and isinstance(noted["identity"], str) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def exit_code(self) -> int | None:
        """Of one that was started here and has ended; negative for a signal."""
        return None if self._child is None else self._child.returncode

    def remark(self, text: str) -> None:
        """Note beside the pid, for people who ask after it."""
        noted = self._noted()
        if noted is not None:
            self._write_note({**noted, "remark": text})

    def remarked(self) -> str | None:
        """The last remark on this process, or on the one before it that has ended."""
        noted = self._noted()
        return None if noted is None else noted.get("remark")

    def start(self) -> int:
        """Start it in a session of its own and return the pid; the running one's when there is one.

        Raises StartFailed when the running one listens on another port than wanted.
        """
        if self.running():
            return self.pid() or 0
        self.log.parent.mkdir(parents=True, exist_ok=True)
        dead, self._boot = self._dead_boot(), secrets.token_hex(6)
        lives = {"TUTTI_BOOT": self._boot, "TUTTI_DEAD_BOOT": dead}
        with self.log.open("ab") as output:
            self._log_start = output.tell()
            self._child = subprocess.Popen(
                [*self._wrapper(), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.directory,
                env={**os.environ, **self.environment, **lives},
            )
        self._note(self._child.pid)
        return self._child.pid

    def _dead_boot(self) -> str:
        """Of the process that is noted and runs no longer; empty where another machine may have noted it, or this one before it started."""
        noted = self._noted()
        return str(noted.get("boot", "")) if noted is not None and _machine(noted["identity"]) == _machine(identity(os.getpid())) else ""

    def running(self) -> bool:
        """Whether it runs. Raises StartFailed when it runs on another port than this one's."""
        noted = self._noted()
        if self.pid() is None or noted is None:
            return False
        if noted.get("port") != self.port:
            raise StartFailed(f"{self.name} runs already, on port {noted.get('port')} and not {self.port}; stop it with `tutti down` first")
        return True

    def _wrapper(self) -> list[str]:
        setpriv = shutil.which("setpriv") if self.dies_with_parent else None
        return [setpriv, "--pdeathsig", "KILL"] if setpriv else []

    def _note(self, pid: int) -> None:
        self.pid_file.parent.mkdir(parents=True, exist_ok=True)
        noted = {"name": self.name, "pid": pid, "identity": identity(pid, ended_too=True), "boot": self._boot, "port": self.port}
        self._write_note({**noted, "command": list(self.command)})

    def _write_note(self, noted: Mapping[str, Any]) -> None:
        draft = self.pid_file.with_suffix(".new")
        draft.write_text(json.dumps(noted))
        draft.replace(self.pid_file)

    def await_ready(self, ready: Callable[[], bool], quiet_seconds: float, why_not: str = "does not answer") -> None:
        """Return when it is `ready`. Raises StartFailed when the process ends, or when nothing has moved for so long."""
        if not wait_while_moving(lambda: self.pid() is None or ready(), self.progress, quiet_seconds):
            raise self.failure(f"{why_not}, and nothing has moved for {quiet_seconds:.0f} s")
        if self.pid() is None:
            raise self.failure("ended at once")

    def signal(self, number: int) -> None:
        """Send a signal if it runs."""
        if (pid := self.pid()) is not None:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                return

    def stop(self, grace_seconds: float = STOP_SECONDS) -> bool:
        """SIGTERM, and SIGKILL to what is left after `grace_seconds`. Returns whether it ended by itself. Nothing running is fine."""
        group = self._group()
        self.signal(signal.SIGTERM)
        in_order = wait_until(lambda: self.pid() is None, grace_seconds, every_seconds=0.05)
        if not in_order:
            self.kill()
        _end(group)
        self.pid_file.unlink(missing_ok=True)
        return in_order

    def kill(self) -> None:
        """SIGKILL, to what it has started too (a model server's runners outlive it), and wait until it is gone."""
        group = self._group()
        self.signal(signal.SIGKILL)
        wait_until(lambda: self.pid() is None, KILL_SECONDS, every_seconds=0.02)
        _end(group)

    def _group(self) -> int | None:
        """The process group that it leads, in the session that it was started in."""
        pid = self.pid()
        try:
            return pid if pid is not None and os.getpgid(pid) == pid else None
        except ProcessLookupError:
            return None

    def _said(self) -> str:
        """The end of what it wrote since it was started here."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(self._log_start, self.log.stat().st_size - SAID_BYTES))
                return log.read().decode(errors="replace")
        except OSError:
            return ""

    def failure(self, what: str) -> StartFailed:
        """The error for a start that did not work, with the end of the log."""
        if full := full_disk(self._said()):
            return StartFailed(f"{self.name}: {what}: {full}")
        end = tail(self.log)
        return StartFailed(f"{self.name}: {what}; its log {self.log} ends:\n{end}" if end else f"{self.name}: {what}; {self.log} is empty")


def _end(group: int | None) -> None:
    """Whatever is left of it."""
    if group is not None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
