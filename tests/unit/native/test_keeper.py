"""The keeper of a service: what ends by itself is started again, what refuses its settings is told and left."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from infra.native import keeper
from infra.native.keeper import Keeper, how_it_ended, pause_seconds
from infra.native.paths import StackHome
from infra.native.ports import free_ports
from infra.native.processes import Daemon
from infra.native.services import ServiceProcess
from infra.native.waiting import wait_until

SLEEPS = "import time; time.sleep(60)"


def daemon(directory: Path, code: str) -> Daemon:
    return Daemon("it", [sys.executable, "-c", code], directory / "it.json", directory / "it.log", dies_with_parent=True)


@contextmanager
def kept(it: Daemon) -> Iterator[Thread]:
    one = Keeper(it)
    thread = Thread(target=one.run)
    thread.start()
    try:
        yield thread
    finally:
        one.stop()
        thread.join()
        it.stop(5)


def test_one_that_is_killed_is_started_again_and_this_is_said(tmp_path: Path) -> None:
    """Under another pid, with a remark for the status and whoever else asks."""
    it = daemon(tmp_path, SLEEPS)
    with kept(it):
        assert wait_until(lambda: it.pid() is not None, 10)
        first = it.pid()
        it.signal(signal.SIGKILL)
        assert wait_until(lambda: it.pid() not in (None, first), 10)
        assert wait_until(lambda: it.remarked() == "restarts: 1, the last because it was killed by SIGKILL", 10)


def test_one_that_refuses_its_settings_is_not_started_again(tmp_path: Path) -> None:
    """It would refuse them again; the remark stays after its end."""
    it = daemon(tmp_path, f"open({str(tmp_path / 'starts')!r}, 'a').write('x'); raise SystemExit(78)")
    assert Keeper(it).run() == os.EX_CONFIG
    assert (tmp_path / "starts").read_text() == "x"
    assert "refuses its settings" in (it.remarked() or "")


def test_the_keeper_that_ends_leaves_its_service_alone_and_the_next_takes_it_over(tmp_path: Path) -> None:
    """A killed keeper costs nothing: the next `tutti up` starts another, which knows the service by its pid file."""
    it = daemon(tmp_path, SLEEPS)
    it.start()
    pid = it.pid()
    with kept(it):
        assert it.pid() == pid
    again = daemon(tmp_path, SLEEPS)
    with kept(again):
        assert wait_until(lambda: again.pid() is not None, 10)


def test_pauses_grow_and_have_an_end() -> None:
    """One, two, four seconds, and half a minute at most."""
    assert [pause_seconds(ends) for ends in (1, 2, 3)] == [0.25, 0.5, 1.0]
    assert pause_seconds(1_000) == keeper.LONGEST_SECONDS


def test_an_end_is_told_in_words() -> None:
    """A signal by its name, a code by its number; another keeper's child tells nothing."""
    assert how_it_ended(-9) == "was killed by SIGKILL"
    assert how_it_ended(1) == "ended with exit code 1"
    assert how_it_ended(None) == "ended"


def test_a_kept_service_is_started_by_its_keeper_and_stopped_for_good(tmp_path: Path) -> None:
    """With a real service, which waits for a Kafka that is not there: killed, it comes again; told to stop, it stays away."""
    port, nobody = free_ports(2)
    service = ServiceProcess(
        "delay", StackHome(tmp_path), port, {"TUTTI_KAFKA_SERVERS": f"127.0.0.1:{nobody}"}, dies_with_parent=True, kept=True
    )
    service.start()
    try:
        first = service.daemon.pid()
        assert first is not None
        os.kill(first, signal.SIGKILL)
        assert wait_until(lambda: service.daemon.pid() not in (None, first), 20)
        assert wait_until(lambda: service.reason() is not None, 30)
    finally:
        service.stop()
    assert not wait_until(service.running, 2.0)
    assert "is started again" in service.daemon.log.read_text()
