"""What the node is made of: processors, memory, graphics processors. Read once, at the start. Nothing that is read here must be there.

NVIDIA's by its own library (NVML), AMD's by `rocm-smi` or what the kernel's driver shows, Apple's by the chip's name.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from services.worker.settings import WorkerSettings
from shared.contracts.base import at_most, sentence
from shared.contracts.node import MOST_GPUS, Gpu, Hardware
from shared.placement.prior import bandwidth

PROGRAM_SECONDS = 10.0
_ROCM = ("--showproductname", "--showmeminfo", "vram", "--showdriverversion", "--json")
_DRM, _AMDGPU = Path("/sys/class/drm"), Path("/sys/module/amdgpu/version")
_AMD = "0x1002"
_LEAST_VRAM = 2**30
"""Of a processor with memory of its own: one beside the CPU is lent less."""
_WORD = 96
GIB = 2**30


def found(*, accelerators: bool = True) -> Hardware:
    """This machine's hardware; 0 and None where it does not say. May take seconds where a vendor's program is asked: not for a loop."""
    cpus, ram = os.cpu_count() or 0, at_most(psutil.virtual_memory().total)
    if accelerators and sys.platform == "darwin" and (chip := apple(said("sysctl", "-n", "machdep.cpu.brand_string"))):
        return hardware(cpus, ram, [chip], shared_vram=apple_vram(ram))
    return hardware(cpus, ram, [*nvidia(_nvml()), *_amd()] if accelerators else [])


def hardware(cpu_count: int, ram_bytes: int, gpus: Sequence[Gpu], *, shared_vram: int = 0) -> Hardware:
    """The facts as registered. Pure. `shared_vram`: what graphics may take of the machine's memory."""
    shown = tuple(gpus[:MOST_GPUS])
    named = shown[0].name if shown else ""
    return Hardware(
        cpu_count=cpu_count,
        ram_bytes=ram_bytes,
        vram_bytes=at_most(sum(gpu.vram_bytes for gpu in gpus) + shared_vram),
        accelerator=(named if len(gpus) == 1 else f"{len(gpus)} x {named}") if named else None,
        gpus=shown,
        bandwidth=bandwidth(cpu_count, shown, named),
    )


def told(here: Hardware, settings: WorkerSettings) -> Hardware:
    """With what the settings say in place of what was found: of a group of machines nobody can find the sums."""
    said = {"ram_bytes": settings.ram_bytes, "vram_bytes": settings.vram_bytes, "bandwidth": settings.bandwidth or None}
    return here.changed(members=len(settings.members), **{name: value for name, value in said.items() if value is not None})


# NVIDIA


def _nvml() -> Any:
    """The library; None where it cannot be imported. Without a driver its first call fails."""
    try:
        import pynvml
    except ImportError:
        return None
    return pynvml


def nvidia(nvml: Any) -> list[Gpu]:
    """What NVML says: processors that do not answer are left out. `nvml`: the module `pynvml`."""
    if nvml is None:
        return []
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return []
    try:
        driver = _word(nvml.nvmlSystemGetDriverVersion())
        numbers = range(min(nvml.nvmlDeviceGetCount(), MOST_GPUS))
        return [gpu for number in numbers if (gpu := _nvidia(nvml, number, driver)) is not None]
    except nvml.NVMLError:
        return []
    finally:
        nvml.nvmlShutdown()


def _nvidia(nvml: Any, number: int, driver: str) -> Gpu | None:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(number)
        name = _word(nvml.nvmlDeviceGetName(handle))
    except nvml.NVMLError:
        return None
    try:
        vram = int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
    except nvml.NVMLError:  # it shares the machine's memory (Grace, Jetson)
        vram = 0
    return Gpu(name=name, vram_bytes=at_most(vram), driver=driver)


# AMD


def _amd() -> list[Gpu]:
    return rocm(said("rocm-smi", *_ROCM)) or amdgpu(_DRM, _AMDGPU)


def rocm(output: str) -> list[Gpu]:
    """What `rocm-smi --json` says; nothing of what is no such output."""
    try:
        cards = json.loads(output)
        driver = _word(cards.get("system", {}).get("Driver version", ""))
        rows = [card for name, card in sorted(cards.items()) if name.startswith("card")]
        return [_rocm(card, driver) for card in rows[:MOST_GPUS]]
    except (ValueError, TypeError, AttributeError):
        return []


def _rocm(card: dict[str, Any], driver: str) -> Gpu:
    name = next((card[key] for key in ("Card Series", "Card series", "Card Model", "Card model") if card.get(key)), "AMD")
    return Gpu(name=_word(name), vram_bytes=at_most(max(0, int(card.get("VRAM Total Memory (B)", 0)))), driver=driver)


def amdgpu(drm: Path, version: Path) -> list[Gpu]:
    """What the kernel's driver shows below /sys/class/drm: a name only of some, and of the others the number of the product."""
    found_ = []
    for device in sorted(drm.glob("card*/device")):
        vram = _text(device / "mem_info_vram_total")
        if _text(device / "vendor") != _AMD or not vram.isdigit() or int(vram) < _LEAST_VRAM:
            continue
        name = _text(device / "product_name") or f"AMD {_text(device / 'device')}"
        found_.append(Gpu(name=_word(name), vram_bytes=at_most(int(vram)), driver=_word(_text(version))))
    return found_[:MOST_GPUS]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


# Apple


def apple(brand: str) -> Gpu | None:
    """Of a chip's name as `sysctl` says it; None of Intel's: their graphics are not used."""
    return Gpu(name=_word(brand)) if brand.startswith("Apple") else None


def apple_vram(ram_bytes: int) -> int:
    """What macOS lets graphics have of the machine's memory by default: two thirds, of more than 36 GiB three quarters."""
    return ram_bytes * 3 // 4 if ram_bytes > 36 * GIB else ram_bytes * 2 // 3


def said(program: str, *arguments: str, seconds: float = PROGRAM_SECONDS) -> str:
    """What a program prints; nothing where it is not there, fails, or takes too long."""
    path = shutil.which(program)
    if path is None:
        return ""
    try:
        done = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=seconds, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError, ValueError):
        return ""
    return done.stdout.strip()


def _word(value: Any) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return sentence(text.strip()[:_WORD])
