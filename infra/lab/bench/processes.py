"""What a process has used, from /proc: CPU seconds and resident memory (Linux only; elsewhere nothing is reported); and pauses."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_UTIME, _STIME = 11, 12
"""Fields after the command's closing bracket (proc(5): 14 and 15)."""


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads so far; 0 when the process is gone or this is not Linux. Resolution: one tick, 10 ms."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[_UTIME]) + int(fields[_STIME])) / _TICKS


def resident_bytes(pid: int) -> int:
    """VmRSS; 0 when unknown."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    line = next((line for line in status.splitlines() if line.startswith("VmRSS:")), None)
    return int(line.split()[1]) * 1024 if line else 0


def stop_processes(pids: Iterable[int]) -> None:
    """SIGSTOP; one that has ended is left out."""
    _signal(pids, signal.SIGSTOP)


def continue_processes(pids: Iterable[int]) -> None:
    """SIGCONT; one that runs goes on."""
    _signal(pids, signal.SIGCONT)


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@dataclass(frozen=True, slots=True)
class CpuMark:
    """CPU seconds of several processes at one moment."""

    seconds: Mapping[str, float]

    @classmethod
    def now(cls, pids: Mapping[str, int]) -> CpuMark:
        """Read all of them."""
        return cls({name: cpu_seconds(pid) for name, pid in pids.items()})

    def since(self, earlier: CpuMark) -> dict[str, float]:
        """CPU seconds used in between, by name."""
        return {name: seconds - earlier.seconds.get(name, 0.0) for name, seconds in self.seconds.items()}
