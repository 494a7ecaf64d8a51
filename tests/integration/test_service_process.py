"""A service's process ends as its supervisor expects: in order on SIGTERM, at once on a second one, never silently.

The process is real, its service scripted; no Kafka is needed, because services wait for Kafka by themselves.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from shared.clock import SystemClock

ROOT = Path(__file__).parents[2]
PROGRAM = """
import asyncio, sys
from shared.errors import ConfigurationError
from shared.service import Readiness
from shared.service.process import run_process

class Scripted:
    name = "planner"

    def __init__(self, environment):
        self.environment = environment

    async def run(self, stop):
        match sys.argv[1]:
            case "waits" | "pours": await stop.wait()
            case "hangs": await asyncio.Event().wait()
            case "crashes": raise RuntimeError("boom")
            case "misconfigured": raise ConfigurationError("partition counts differ")

    def readiness(self):
        return Readiness(ready=True)

    def asgi(self):
        return pour if sys.argv[1] == "pours" else None

async def pour(scope, receive, send):
    size = int(scope["path"][1:])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(size).encode())]})
    await send({"type": "http.response.body", "body": b"x" * size})

raise SystemExit(run_process([("planner", Scripted)]))
"""


class Process:
    """The process and its log."""

    def __init__(self, popen: subprocess.Popen[str]) -> None:
        self._popen = popen
        self.entries: list[dict[str, Any]] = []

    def until(self, event: str) -> dict[str, Any]:
        """Read the log up to `event`."""
        assert self._popen.stderr is not None
        for line in self._popen.stderr:
            self.entries.append(json.loads(line))
            if self.entries[-1]["event"] == event:
                return self.entries[-1]
        raise AssertionError(f"ended without {event}: {self.entries}")

    def signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def exit_code(self) -> int:
        """Wait for the end, reading the rest of the log."""
        _, rest = self._popen.communicate(timeout=30)
        self.entries += [json.loads(line) for line in rest.splitlines()]
        return self._popen.returncode

    def events(self) -> list[str]:
        return [entry["event"] for entry in self.entries]


@contextmanager
def process(course: str, **settings: str) -> Generator[Process, None, None]:
    environment = os.environ | {"TUTTI_HTTP_PORT": "0", "TUTTI_KAFKA_SERVERS": "127.0.0.1:1", **settings}
    popen = subprocess.Popen([sys.executable, "-c", PROGRAM, course], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    with popen:
        try:
            yield Process(popen)
        finally:
            popen.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(number: signal.Signals) -> None:
    """It serves health until then, drains, and exits with 0."""
    with process("waits") as running:
        port = running.until("listening")["port"]
        with urlopen(f"http://127.0.0.1:{port}/readyz") as response:
            assert json.load(response) == {"ready": True, "reasons": []}
        running.signal(number)
        assert running.exit_code() == 0
        assert running.events()[-1] == "stopped"


def test_a_second_signal_ends_it_at_once() -> None:
    """Without waiting for the grace period."""
    with process("hangs") as running:
        running.until("listening")
        running.signal(signal.SIGTERM)
        running.until("stopping")
        running.signal(signal.SIGTERM)
        assert running.exit_code() == 1
        assert running.events()[-1] == "stopped_at_once"


def test_the_grace_period_is_a_bound() -> None:
    """A service that does not drain is cut off, and the exit code says so."""
    with process("hangs", TUTTI_GRACE_SECONDS="0.5") as running:
        running.until("listening")
        running.signal(signal.SIGTERM)
        assert running.exit_code() == 1
        assert "grace_expired" in running.events()


@pytest.mark.parametrize("request_", [b"GET /50000000 HTTP/1.1\r\n\r\n", b"POST /5 HTTP/1.1\r\ncontent-length: 9\r\n\r\n", b"GET /50"])
def test_a_client_that_takes_nothing_holds_nobody_up(request_: bytes) -> None:
    """An answer that is not read, a body and a head that do not come: the process ends long before its grace period does."""
    with process("pours", TUTTI_GRACE_SECONDS="25") as running:
        port = running.until("listening")["port"]
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(request_)
            with urlopen(f"http://127.0.0.1:{port}/healthz"):
                running.signal(signal.SIGTERM)
            began = SystemClock().monotonic()
            assert running.exit_code() == 0
            assert SystemClock().monotonic() - began < 10


def test_a_client_that_reads_slowly_has_its_whole_answer() -> None:
    """As long as it takes something."""
    with process("pours", TUTTI_GRACE_SECONDS="25") as running:
        port = running.until("listening")["port"]
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /20000000 HTTP/1.1\r\n\r\n")
            received = len(client.recv(1_000))
            running.signal(signal.SIGTERM)
            clock = SystemClock()
            until = clock.monotonic() + 2.0
            while piece := client.recv(1_000_000 if clock.monotonic() > until else 10_000):
                received += len(piece)
            assert received > 20_000_000
        assert running.exit_code() == 0


@pytest.mark.parametrize(
    ("course", "code", "event"),
    [("crashes", 1, "service_failed"), ("misconfigured", 78, "wrong_settings"), ("leaves", 1, "service_ended_unasked")],
)
def test_a_service_that_ends_takes_the_process_with_it(course: str, code: int, event: str) -> None:
    """A supervisor sees it, and the log says why."""
    with process(course) as running:
        assert running.exit_code() == code
        assert event in running.events()


def test_wrong_settings_are_one_readable_line() -> None:
    """Exit code 78 before anything is opened."""
    environment = os.environ | {"TUTTI_TOPICS__HOME_PARTITIONS": "none"}
    done = subprocess.run([sys.executable, "-c", PROGRAM, "waits"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 78
    assert done.stderr.startswith("tutti planner: wrong settings: TUTTI_TOPICS__HOME_PARTITIONS: ")
    assert done.stderr.count("\n") == 1


def test_an_idle_shell_is_small() -> None:
    """Half of a service's memory budget of 120 MB is the service's own."""
    with process("waits") as running:
        port = running.until("listening")["port"]
        with urlopen(f"http://127.0.0.1:{port}/metrics") as response:
            lines = response.read().decode().splitlines()
        resident = next(float(line.split()[1]) for line in lines if line.startswith("process_resident_memory_bytes"))
        assert resident < 70e6
