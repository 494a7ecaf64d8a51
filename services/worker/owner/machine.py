"""What the machine tells of its owner: keyboard and mouse, who computes, memory. What it does not tell is None.

Input: X's own count where `xprintidle` and a display are there, else systemd-logind's idle hint (which desktops set after minutes, and
which counts terminals, so somebody who works over ssh is there), else macOS's `ioreg`. Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterable, Sequence
from math import inf
from pathlib import Path
from typing import NamedTuple

import psutil

from services.worker.hardware import said
from services.worker.owner.manners import OwnerFacts, OwnerSettings

ENDPOINTS = ("ollama", "llama-server", "llama_server", "rpc-server")
"""Beginnings of the names of programs that serve models: what they use is this node's."""
_SECONDS = 5.0
_PRESSURE = Path("/proc/pressure/memory")


class Times(NamedTuple):
    """Seconds of processor time since the start: of all programs, of this node's, and in all."""

    busy: float
    ours: float
    total: float


class Machine:
    """`look` compares processor times with those of the look before."""

    def __init__(self) -> None:
        self._before: Times | None = None

    def look(self, rules: OwnerSettings, wall: float, *, in_use: bool) -> OwnerFacts:
        """The facts that the rules ask for; `in_use`: all that tells whether somebody uses the machine, too. `wall`: now, epoch seconds.
        May take a tenth of a second.
        """
        memory = psutil.virtual_memory() if rules.least_free else None
        processes = list(_own(os.getpid())) if rules.others_load or rules.least_free or in_use else []
        return OwnerFacts(
            input_seconds=input_seconds(wall) if rules.away_seconds or in_use else None,
            others_load=self._others(processes) if rules.others_load or in_use else None,
            memory_stall=_stall() if rules.memory_stall else None,
            memory_free=memory.available / memory.total if memory else None,
            memory_ours=_held(processes) / memory.total if memory else 0.0,
        )

    def _others(self, own: Iterable[psutil.Process]) -> float | None:
        before, self._before = self._before, _times(own)
        return None if before is None else others_load(before, self._before)


def others_load(before: Times, after: Times) -> float | None:
    """Share of all processors that others used in between; None where no time has passed. A program that ended took its times along."""
    total, ours = after.total - before.total, max(0.0, after.ours - before.ours)
    return None if total <= 0 else min(1.0, max(0.0, after.busy - before.busy - ours) / total)


def _times(own: Iterable[psutil.Process]) -> Times:
    cpu = psutil.cpu_times()
    idle = cpu.idle + getattr(cpu, "iowait", 0.0) + getattr(cpu, "steal", 0.0)
    total = sum(cpu[:8])  # what is behind (guests of a virtual machine) is counted in the first ones already
    ours = 0.0
    for process in own:
        try:
            used = process.cpu_times()
        except psutil.Error:
            continue
        ours += used.user + used.system
    return Times(total - idle, ours, total)


def _own(pid: int) -> Iterable[psutil.Process]:
    """This process and those that serve models, whoever started them."""
    for process in psutil.process_iter(["name"]):
        if process.pid == pid or str(process.info["name"] or "").lower().startswith(ENDPOINTS):
            yield process


def _held(own: Iterable[psutil.Process]) -> int:
    held = 0
    for process in own:
        try:
            held += process.memory_info().rss
        except psutil.Error:
            continue
    return held


def _stall() -> float | None:
    try:
        return memory_stall(_PRESSURE.read_text(encoding="ascii"))
    except OSError:
        return None


def memory_stall(pressure: str) -> float | None:
    """Percent of the last ten seconds in which something stood still for memory, of /proc/pressure/memory."""
    found = re.search(r"^some avg10=(\d{1,3}(?:\.\d+)?) ", pressure, re.MULTILINE)
    return float(found[1]) if found else None


# Keyboard and mouse


def input_seconds(wall: float) -> float | None:
    """Since somebody last touched them; inf: nobody is logged in."""
    if os.environ.get("DISPLAY") and (shown := said("xprintidle", seconds=_SECONDS)).strip().isdecimal():
        return int(shown) / 1000
    told = logind_idle(said("loginctl", "show", "--property=IdleHint", "--property=IdleSinceHint", seconds=_SECONDS), wall)
    return hid_idle(said("ioreg", "-c", "IOHIDSystem", "-d", "4", seconds=_SECONDS)) if told is None else told


def logind_idle(shown: str, wall: float) -> float | None:
    """Of `loginctl show`: microseconds since the epoch, 0 where nobody has been there since the start."""
    told = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    since = told.get("IdleSinceHint", "")
    if told.get("IdleHint") == "no":
        return 0.0
    if told.get("IdleHint") != "yes" or not since.isdecimal():
        return None
    return max(0.0, wall - int(since[:18]) / 1e6) if int(since[:18]) else inf


def hid_idle(shown: str) -> float | None:
    """Of macOS's `ioreg -c IOHIDSystem`: nanoseconds."""
    found = re.search(r'"HIDIdleTime" = (\d{1,18})\b', shown)
    return int(found[1]) / 1e9 if found else None


# Asleep


def mac_towards(servers: str) -> str | None:
    """The address of the network interface by which the first of these (`host:port,…`) is reached; None where there is none: loopback."""
    host, _, port = servers.split(",", maxsplit=1)[0].strip().rpartition(":")
    try:
        family, kind, _, _, where = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(where)  # sends nothing
            own = probe.getsockname()[0]
    except (OSError, ValueError):
        return None
    for addresses in psutil.net_if_addrs().values():
        if any(one.address.split("%")[0] == own for one in addresses):
            return spelled(next((one.address for one in addresses if one.family == psutil.AF_LINK), ""))
    return None


def spelled(mac: str) -> str | None:
    """As Node records have it; None of what is no address of a machine."""
    plain = mac.lower().replace("-", ":")
    real = re.fullmatch("(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", plain) and plain != "00:00:00:00:00:00"
    return plain if real else None


def put_to_sleep(command: Sequence[str]) -> int:
    """Run it, without a shell; its exit code, -1 where it cannot be run or does not end within a minute."""
    try:
        return subprocess.run(list(command), stdin=subprocess.DEVNULL, capture_output=True, timeout=60.0, check=False).returncode  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return -1
