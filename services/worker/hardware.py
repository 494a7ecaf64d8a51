"""What the node is made of: processors, memory, accelerators. Read once, at the start."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from shared.contracts.base import at_most, sentence
from shared.contracts.node import Hardware

NVIDIA_QUERY = ("--query-gpu=name,memory.total", "--format=csv,noheader,nounits")
NVIDIA_SECONDS = 10.0
MIB = 1024 * 1024


def found(*, accelerators: bool = True) -> Hardware:
    """This machine's hardware; 0 and None where it does not say. May take seconds where `nvidia-smi` is installed: not for a loop."""
    name, vram = _nvidia() if accelerators else (None, 0)
    return Hardware(
        cpu_count=os.cpu_count() or 0, ram_bytes=at_most(_ram()), vram_bytes=at_most(vram), accelerator=name and sentence(name[:128])
    )


def _ram() -> int:
    try:
        return total_memory(Path("/proc/meminfo").read_text(encoding="ascii"))
    except OSError:
        return 0


def total_memory(meminfo: str) -> int:
    """Bytes in the `MemTotal` line (kibibytes) of /proc/meminfo; 0 without it."""
    for line in meminfo.splitlines():
        name, _, rest = line.partition(":")
        if name == "MemTotal":
            return int(rest.split()[0]) * 1024
    return 0


def _nvidia() -> tuple[str | None, int]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None, 0
    try:
        done = subprocess.run([program, *NVIDIA_QUERY], capture_output=True, text=True, timeout=NVIDIA_SECONDS, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None, 0
    return accelerators(done.stdout)


def accelerators(table: str) -> tuple[str | None, int]:
    """(name, memory in bytes of all together) from nvidia-smi's `name, MiB` lines; a count precedes the name where there are several."""
    rows = [line.rsplit(",", 1) for line in table.splitlines() if "," in line]
    usable = [(name.strip(), int(size)) for name, size in rows if size.strip().isdigit()]
    if not usable:
        return None, 0
    name = usable[0][0] if len(usable) == 1 else f"{len(usable)} x {usable[0][0]}"
    return name, sum(size for _, size in usable) * MIB
