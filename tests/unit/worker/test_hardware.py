"""What a machine says of itself, from outputs as vendors' libraries and programs give them. No accelerator is needed, and none is used."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from services.worker import hardware
from services.worker.settings import WorkerSettings
from shared.contracts.base import MOST
from shared.contracts.node import MOST_GPUS, Gpu, Hardware

MIB, GIB = 2**20, 2**30


class NvmlError(Exception):
    """As `pynvml.NVMLError`."""


class Nvml:
    """The calls of `pynvml` that are made. A card is (name, bytes of memory); an exception in its place is raised."""

    NVMLError = NvmlError

    def __init__(self, *cards: Any, driver: Any = "580.65.06", there: bool = True) -> None:
        self.cards, self.driver, self.there, self.open = cards, driver, there, 0

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.there:
            raise NvmlError("driver not loaded")
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> Any:  # noqa: N802
        return self.driver

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, number: int) -> Any:  # noqa: N802
        return self.cards[number]

    def nvmlDeviceGetName(self, card: Any) -> Any:  # noqa: N802
        return _of(card[0])

    def nvmlDeviceGetMemoryInfo(self, card: Any) -> Any:  # noqa: N802
        return SimpleNamespace(total=_of(card[1]), free=0, used=0)


def _of(value: Any) -> Any:
    if isinstance(value, Exception):
        raise value
    return value


H200 = ("NVIDIA H200", 150_754_820_096)
"""As NVML 13 with driver 580 tells it (143,771 MiB)."""


def test_nvml_is_read_card_by_card() -> None:
    """Sums over several; a card that does not answer is left out, one that shares the machine's memory has none of its own."""
    nvml = Nvml(H200, (NvmlError("lost"), 0), (b"NVIDIA GB10", NvmlError("not supported")))
    found = hardware.nvidia(nvml)
    assert found == [
        Gpu(name="NVIDIA H200", vram_bytes=143_771 * MIB, driver="580.65.06"),
        Gpu(name="NVIDIA GB10", driver="580.65.06"),
    ]
    assert nvml.open == 0
    one = hardware.hardware(16, 128 * GIB, hardware.nvidia(Nvml(H200)))
    assert (one.accelerator, one.vram_bytes, one.bandwidth) == ("NVIDIA H200", 143_771 * MIB, 4_800)
    assert hardware.hardware(16, 0, [*found[:1]] * 8).accelerator == "8 x NVIDIA H200"


@pytest.mark.parametrize("nvml", [None, Nvml(there=False), Nvml()])
def test_without_a_driver_there_is_none(nvml: Any) -> None:
    """No library, no driver, no card: a machine without any of it works."""
    assert hardware.nvidia(nvml) == []
    bare = hardware.hardware(4, 8 * GIB, [])
    assert (bare.accelerator, bare.vram_bytes, bare.gpus, bare.bandwidth) == (None, 0, (), 40)


def test_the_real_library_is_asked_without_harm() -> None:
    """On a machine without a driver its first call fails; with one it tells."""
    found = hardware.found()
    assert found.cpu_count > 0
    assert found.ram_bytes > GIB / 2
    assert found.vram_bytes == sum(gpu.vram_bytes for gpu in found.gpus)
    assert hardware.found(accelerators=False).gpus == ()


def test_what_is_beyond_all_bounds_is_cut() -> None:
    """More cards than a record shows are still summed; names are cut."""
    found = hardware.hardware(4, 0, [Gpu(name="x", vram_bytes=MOST)] * (MOST_GPUS + 4))
    assert (len(found.gpus), found.vram_bytes) == (MOST_GPUS, MOST)
    assert len(hardware.nvidia(Nvml(("y" * 500, 1)))[0].name) == 96


ROCM = {
    "card0": {
        "VRAM Total Memory (B)": "206141652992", "VRAM Total Used Memory (B)": "297271296", "Card Series": "AMD Instinct MI300X",
        "Card Model": "0x74a1", "Card Vendor": "Advanced Micro Devices, Inc. [AMD/ATI]", "Card SKU": "M3000100",
    },
    "card1": {"VRAM Total Memory (B)": "206141652992", "Card series": "AMD Instinct MI300X"},
    "system": {"Driver version": "6.10.5"},
}  # fmt: skip
"""`rocm-smi --showproductname --showmeminfo vram --showdriverversion --json`, as its documentation shows it; versions differ in case."""


def test_rocm_is_read() -> None:
    """And what is no such output is nothing."""
    found = hardware.rocm(json.dumps(ROCM))
    assert found == [Gpu(name="AMD Instinct MI300X", vram_bytes=206_141_652_992, driver="6.10.5")] * 2
    for odd in ("", "no GPU", "[]", "null", '{"card0": 1}', '{"card0": {"VRAM Total Memory (B)": "much"}}', '{"system": []}'):
        assert hardware.rocm(odd) == []


def test_the_kernels_driver_is_read_where_no_program_is(tmp_path: Path) -> None:
    """A card of AMD's with memory of its own; one beside the CPU, and another maker's, are left out."""
    cards = {
        "card0": {"vendor": "0x10de", "mem_info_vram_total": str(24 * GIB)},
        "card1": {"vendor": "0x1002", "device": "0x744c", "mem_info_vram_total": str(24 * GIB)},
        "card2": {"vendor": "0x1002", "device": "0x164e", "mem_info_vram_total": str(512 * MIB)},
        "card3": {"vendor": "0x1002", "product_name": "AMD Radeon PRO W7900", "mem_info_vram_total": f"{48 * GIB}\n"},
        "card4": {"vendor": "0x1002"},
    }
    for card, files in cards.items():
        (tmp_path / card / "device").mkdir(parents=True)
        for name, text in files.items():
            (tmp_path / card / "device" / name).write_text(text)
    (tmp_path / "version").write_text("6.10.5\n")
    assert hardware.amdgpu(tmp_path, tmp_path / "version") == [
        Gpu(name="AMD 0x744c", vram_bytes=24 * GIB, driver="6.10.5"),
        Gpu(name="AMD Radeon PRO W7900", vram_bytes=48 * GIB, driver="6.10.5"),
    ]
    assert hardware.amdgpu(tmp_path / "nothing", tmp_path / "version") == []


def test_apples_chips_share_the_machines_memory() -> None:
    """By the chip's name; Intel's Macs have no such graphics."""
    chip = hardware.apple("Apple M2 Ultra")
    assert chip is not None
    found = hardware.hardware(24, 128 * GIB, [chip], shared_vram=hardware.apple_vram(128 * GIB))
    assert (found.accelerator, found.vram_bytes, found.bandwidth) == ("Apple M2 Ultra", 96 * GIB, 800)
    assert hardware.apple("Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz") is None
    assert hardware.apple_vram(24 * GIB) == 16 * GIB


def test_what_the_settings_say_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a group of machines: the sums, and how many servers its model is split over."""
    monkeypatch.setenv("TUTTI_WORKER__MEMBERS", "10.0.0.2:50052, [fd00::1]:50052,gpu-3.lan:50052")
    monkeypatch.setenv("TUTTI_WORKER__VRAM_BYTES", str(72 * GIB))
    found = hardware.told(Hardware(cpu_count=8, ram_bytes=GIB, bandwidth=40.0), WorkerSettings())
    assert found == Hardware(cpu_count=8, ram_bytes=GIB, vram_bytes=72 * GIB, bandwidth=40.0, members=3)
    for odd in ("nowhere", "h:", "a b:1", "http://h:1", "h:123456"):
        monkeypatch.setenv("TUTTI_WORKER__MEMBERS", odd)
        with pytest.raises(ValueError, match="members"):
            WorkerSettings()
