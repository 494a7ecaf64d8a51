"""A keeper: the parent of one service of `tutti up`. It starts again what ends by itself, after pauses that grow, and says so.

    python -m infra.native.keeper '{"name": …, "command": […], "pid_file": …, "log": …, "port": …}'

What it says stands in the service's log, and the newest of it in the service's row of `tutti up` and `tutti status`. A service that
refuses its settings (exit code 78) would refuse them again: it is told and left. SIGTERM ends the keeper and not the service, so
`tutti down` ends the keeper first; one that finds its service running takes it over, and only does not know how that one ends.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from math import inf
from pathlib import Path

from infra.native.processes import Daemon
from infra.native.waiting import now, seconds_since, wait_until

FIRST_SECONDS = 0.25
LONGEST_SECONDS = 30.0
GOOD_SECONDS = 60.0
"""One that has lived so long had no trouble in starting: its next pause is the shortest again."""
_LOOK_SECONDS = 0.1


def pause_seconds(ends: int) -> float:
    """Before the next start, after so many ends that came one soon after the other."""
    return float(min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** min(ends - 1, 10)))


def how_it_ended(code: int | None) -> str:
    """For people. Negative codes are signals, as subprocess has them; None: another keeper's."""
    if code is None:
        return "ended"
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


class Keeper:
    """One daemon, kept until told to stop."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._told = False

    def stop(self, *_: object) -> None:
        """A signal handler: the service goes on without a keeper."""
        self._told = True

    def run(self) -> int:
        """Keep it; returns its exit code when it is not to be started again."""
        starts = ends = 0
        why = ""
        while not self._stopping():
            self._daemon.start()
            begun, starts = now(), starts + 1
            if why:
                self._daemon.remark(f"restarts: {starts - 1}, the last because it {why}")
            self._wait(lambda: self._daemon.pid() is None, inf)
            if self._stopping():
                break
            code = self._daemon.exit_code()
            why = how_it_ended(code)
            if code == os.EX_CONFIG:
                self._say(f"{why}: it refuses its settings and is not started again; mend them, then `tutti up`")
                return code
            ends = 1 if seconds_since(begun) >= GOOD_SECONDS else ends + 1
            self._say(f"{why}; it is started again in {pause_seconds(ends):g} s")
            self._wait(lambda: False, pause_seconds(ends))
        return 0

    def _stopping(self) -> bool:
        return self._told

    def _wait(self, over: Callable[[], bool], seconds: float) -> None:
        wait_until(lambda: self._told or over(), seconds, every_seconds=_LOOK_SECONDS)

    def _say(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {self._daemon.name} {text}", flush=True)  # noqa: T201
        self._daemon.remark(text)


def command(daemon: Daemon) -> tuple[str, ...]:
    """The command of a keeper of this one."""
    spec = {
        "name": daemon.name,
        "command": list(daemon.command),
        "pid_file": str(daemon.pid_file),
        "log": str(daemon.log),
        "port": daemon.port,
        "dies_with_parent": daemon.dies_with_parent,
    }
    return (sys.executable, "-m", "infra.native.keeper", json.dumps(spec))


def main(spec: str) -> int:
    """Keep what `command` named; its environment is the keeper's."""
    read = json.loads(spec)
    daemon = Daemon(**{**read, "pid_file": Path(read["pid_file"]), "log": Path(read["log"])})
    keeper = Keeper(daemon)
    signal.signal(signal.SIGTERM, keeper.stop)
    return keeper.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
