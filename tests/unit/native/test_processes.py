"""Daemons: started once, known by a pid file that a reused pid does not fool, stopped in order or by force."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.native.errors import StartFailed
from infra.native.processes import Daemon, identity
from infra.native.waiting import wait_until

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
OBEDIENT = "import time; print('ready', flush=True); time.sleep(60)"


def daemon(directory: Path, code: str) -> Daemon:
    return Daemon("it", [sys.executable, "-c", code], directory / "it.json", directory / "it.log", dies_with_parent=True)


def started(directory: Path, code: str) -> Daemon:
    it = daemon(directory, code)
    it.start()
    assert wait_until(lambda: it.log.read_text() == "ready\n", 10, every_seconds=0.01)
    return it


def test_starting_twice_starts_once(tmp_path: Path) -> None:
    """The second start returns the pid of the first, also from another command."""
    first = started(tmp_path, OBEDIENT)
    assert daemon(tmp_path, OBEDIENT).start() == first.pid()
    assert first.stop(5)


def test_a_running_daemon_on_another_port_is_said(tmp_path: Path) -> None:
    """Settings changed while it runs: the user is told to stop it first, instead of waiting for a port that never opens."""
    it = daemon(tmp_path, OBEDIENT)
    it.port = 1000
    it.start()
    later = daemon(tmp_path, OBEDIENT)
    later.port = 2000
    with pytest.raises(StartFailed, match=r"on port 1000 and not 2000.*tutti down"):
        later.start()
    it.stop(5)


def test_sigterm_ends_it_and_removes_the_pid_file(tmp_path: Path) -> None:
    """A process that obeys SIGTERM is reported as ended in order."""
    it = started(tmp_path, OBEDIENT)
    assert it.stop(5)
    assert it.pid() is None
    assert not it.pid_file.exists()


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """After the grace period SIGKILL follows, and the caller learns of it."""
    it = started(tmp_path, STUBBORN)
    pid = it.pid()
    assert pid is not None
    assert not it.stop(0.2)
    assert identity(pid) is None


@pytest.mark.parametrize("end", [lambda it: it.stop(5), lambda it: it.kill()], ids=["stop", "kill"])
def test_what_it_has_started_ends_with_it(tmp_path: Path, end: Callable[[Daemon], object]) -> None:
    """As a model server's runners, which outlive a server that is killed."""
    it = daemon(
        tmp_path,
        f"import subprocess, sys, time; print(subprocess.Popen([sys.executable, '-c', {OBEDIENT!r}]).pid, flush=True); time.sleep(60)",
    )
    it.start()
    assert wait_until(lambda: "ready" in it.log.read_text(), 10, every_seconds=0.01)
    runner = int(it.log.read_text().split()[0])
    assert identity(runner) is not None
    end(it)
    assert wait_until(lambda: identity(runner) is None, 5, every_seconds=0.01)


def test_a_reused_pid_is_not_taken_for_the_daemon(tmp_path: Path) -> None:
    """A pid file that names a living process which started at another time counts as not running, and nothing is signalled."""
    it = daemon(tmp_path, OBEDIENT)
    it.pid_file.write_text(json.dumps({"pid": os.getpid(), "identity": "another boot/12345"}))
    assert it.pid() is None
    assert it.stop(0.1)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"pid": "x", "identity": 1}'])
def test_a_broken_pid_file_counts_as_not_running(tmp_path: Path, content: str) -> None:
    """A half-written file (power cut) is no obstacle to the next start."""
    it = daemon(tmp_path, OBEDIENT)
    it.pid_file.write_text(content)
    assert it.pid() is None


def test_a_failure_shows_the_end_of_the_log(tmp_path: Path) -> None:
    """What the process said last is in the error."""
    it = daemon(tmp_path, "raise SystemExit('the disk is full')")
    it.start()
    assert wait_until(lambda: it.pid() is None, 10, every_seconds=0.01)
    assert "the disk is full" in it.failure("ended").message


def test_this_process_has_an_identity_and_a_dead_one_has_none() -> None:
    """Identity is stable for a living process and absent for a pid that is not in use."""
    assert identity(os.getpid()) == identity(os.getpid()) is not None
    assert identity(2**22 + 1) is None


@pytest.mark.parametrize(("says", "full"), [("java.io.IOException: No space left on device", True), ("it is fine", False)])
def test_a_full_disk_is_told_in_one_line_but_not_that_of_an_earlier_run(tmp_path: Path, says: str, full: bool) -> None:
    """Many lines of a stack trace may follow the one that matters; the log goes on from run to run."""
    it = daemon(tmp_path, f"print({says!r}); [print('at line', n) for n in range(100)]")
    it.log.write_text("No space left on device, last week\n")
    it.start()
    assert wait_until(lambda: it.pid() is None, 10, every_seconds=0.01)
    message = it.failure("ended at once").message
    assert ("the disk is full" in message) is full
    assert ("\n" in message) is not full


def test_one_that_ended_at_once_is_noted(tmp_path: Path) -> None:
    """Before anybody could look: what is said of it stays."""
    it = Daemon("it", [sys.executable, "-c", "raise SystemExit(78)"], tmp_path / "it.pid", tmp_path / "it.log")
    child = it.start()
    assert wait_until(lambda: identity(child) is None, 10)
    it._note(child)
    it.remark("why")
    assert (it.pid(), it.remarked()) == (None, "why")
