"""Facts without which a figure means nothing: when, machine, versions, commit; and what processes have used."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from infra.lab.bench.figures import MIB
from infra.native.processes import cpu_seconds
from shared.clock import SystemClock

PACKAGES = ("aiokafka", "pydantic", "uvicorn", "uvloop", "aiohttp", "starlette")


def facts() -> dict[str, Any]:
    """Everything that is known without asking for privileges."""
    return {
        "date": datetime.fromtimestamp(SystemClock().wall(), UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_mb": psutil.virtual_memory().total // MIB,
        "load_before": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "commit": _git("rev-parse", "--short", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _git(*arguments: str) -> str:
    root = Path(__file__).parents[3]
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def resident_bytes(pid: int | None) -> int:
    """0 of a process that is not there."""
    try:
        return int(psutil.Process(pid or -1).memory_info().rss)
    except (psutil.Error, ValueError):
        return 0


def cpu_since(pids: Mapping[str, int | None]) -> Callable[[], dict[str, float]]:
    """From now on: CPU seconds of each until it is asked."""
    before = {name: cpu_seconds(pid) for name, pid in pids.items()}
    return lambda: {name: cpu_seconds(pid) - before[name] for name, pid in pids.items()}


def with_children(pids: Mapping[str, int]) -> dict[str, int]:
    """And what they have started: Postgres serves each connection by a process."""
    found = dict(pids)
    for name, pid in pids.items():
        with suppress(psutil.Error):
            found |= {f"{name}-{child.pid}": child.pid for child in psutil.Process(pid).children(recursive=True)}
    return found


def pause(pids: Iterable[int], *, paused: bool) -> None:
    """SIGSTOP or SIGCONT; one that has ended is left out."""
    for pid in pids:
        with suppress(psutil.Error, ValueError):
            process = psutil.Process(pid or -1)
            process.suspend() if paused else process.resume()
