"""Priors: how fast a model is likely to be on a machine, before anything was measured there. Pure.

To write a token its weights are read once, so memory bandwidth bounds it; to read a prompt a machine computes, and how much faster than
writing that is depends on its kind. Bandwidths are the makers' own figures by product, else a class by size; shares of them that are
really reached, and the ratio of reading to writing, are of llama.cpp (decision 0058).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from shared.contracts.node import Gpu, Hardware, NodeModel

LOAD_BYTES_PER_SECOND = 1e9
LOAD_MINIMUM_SECONDS = 1.0
"""A guess for loads that were never measured: a model file from a disk."""
TOKEN_SECONDS = 0.002
"""What a token takes besides its weights: small models are no faster than that."""
_GB = 1e9

_PRODUCTS: Sequence[tuple[str, float]] = (
    # NVIDIA: data centre
    ("b200", 8_000), ("h200", 4_800), ("h100 nvl", 3_900), ("h100 pcie", 2_000), ("h100", 3_350), ("a100", 1_935), ("l40", 864),
    ("l4", 300), ("a10g", 600), ("a10", 600), ("a40", 696), ("a6000", 768), ("a5000", 768), ("a4000", 448), ("v100", 900), ("t4", 320),
    ("p100", 732), ("p40", 346), ("gb10", 273),
    # NVIDIA: desks
    ("rtx pro 6000", 1_792), ("6000 ada", 960), ("5090", 1_792), ("5080", 960), ("5070 ti", 896), ("5070", 672), ("5060", 448),
    ("4090", 1_008), ("4080", 717), ("4070 ti super", 672), ("4070", 504), ("4060 ti", 288), ("4060", 272), ("3090", 936), ("3080", 760),
    ("3070", 448), ("3060", 360), ("2080", 448), ("1080 ti", 484),
    # AMD
    ("mi355", 8_000), ("mi350", 8_000), ("mi325", 6_000), ("mi300", 5_300), ("mi250", 3_277), ("mi210", 1_638), ("mi100", 1_229),
    ("mi60", 1_024), ("mi50", 1_024), ("7900 xtx", 960), ("7900 xt", 800), ("7800 xt", 624), ("9070", 640), ("6900 xt", 512),
    ("6800", 512), ("8060s", 256), ("w7900", 864),
    # Apple
    ("apple m1 ultra", 800), ("apple m2 ultra", 800), ("apple m3 ultra", 819), ("apple m1 max", 400), ("apple m2 max", 400),
    ("apple m3 max", 400), ("apple m4 max", 546), ("apple m1 pro", 200), ("apple m2 pro", 200), ("apple m3 pro", 150),
    ("apple m4 pro", 273), ("apple m1", 68), ("apple m2", 100), ("apple m3", 100), ("apple m4", 120), ("apple m5", 153),
)  # fmt: skip
"""Words of a product's name → GB a second. The first that fits counts, so what is longer stands before what it holds."""
_BY_VRAM: Sequence[tuple[float, float]] = ((40e9, 800.0), (16e9, 500.0), (0.0, 300.0))
"""(bytes from which on, GB a second) of a graphics processor that is not in the list."""
_BY_CPUS: Sequence[tuple[int, float]] = ((64, 200.0), (16, 80.0), (0, 40.0))
"""(processors from which on, GB a second): a server, a workstation, a laptop."""


class Prior(NamedTuple):
    """Tokens a second of one call alone, and seconds until the model is in memory."""

    prefill: float
    decode: float
    load_seconds: float


class _Kind(NamedTuple):
    """`reached`: share of the bandwidth. `reading`: how many times faster a prompt is read than an answer is written."""

    reached: float
    reading: float


_GPU, _APPLE, _CPU = _Kind(0.65, 40.0), _Kind(0.55, 13.0), _Kind(0.7, 6.0)


def bandwidth(cpu_count: int, gpus: Sequence[Gpu], accelerator: str = "") -> float:
    """GB a second: of the slowest graphics processor, since layers are read one after the other; else of the machine's own memory."""
    if gpus:
        return min(_of_gpu(gpu.name, gpu.vram_bytes) for gpu in gpus)
    return (accelerator and _of_product(accelerator)) or _of_cpus(cpu_count)


def prior_speeds(hardware: Hardware, model: NodeModel) -> Prior:
    """What this model is likely to do there. Weights beyond the graphics memory are read from the machine's own, which is slower."""
    weights = float(model.size_bytes)
    apple = (hardware.accelerator or "").lower().startswith("apple")
    kind = _APPLE if apple else _GPU if hardware.vram_bytes else _CPU
    fast = hardware.bandwidth or bandwidth(hardware.cpu_count, hardware.gpus, hardware.accelerator or "")
    inside = min(weights, float(hardware.vram_bytes)) if kind is _GPU else weights
    inside_seconds = inside / (fast * _GB * kind.reached)
    outside_seconds = (weights - inside) / (_of_cpus(hardware.cpu_count) * _GB * _CPU.reached)
    decode = inside_seconds + outside_seconds + TOKEN_SECONDS
    prefill = (inside_seconds + TOKEN_SECONDS) / kind.reading + outside_seconds / _CPU.reading
    return Prior(1 / prefill, 1 / decode, load_seconds(model))


def load_seconds(model: NodeModel) -> float:
    """Until a model of this size is in memory."""
    return LOAD_MINIMUM_SECONDS + model.size_bytes / LOAD_BYTES_PER_SECOND


def _of_gpu(name: str, vram_bytes: int) -> float:
    return _of_product(name) or next(speed for least, speed in _BY_VRAM if vram_bytes >= least)


def _of_product(name: str) -> float:
    """0 for one that is not in the list."""
    words = f" {name.lower().replace('-', ' ')} "
    for product, speed in _PRODUCTS:
        _, found, after = words.partition(f" {product}")
        if found and not after[0].isdigit():
            return speed
    return 0.0


def _of_cpus(count: int) -> float:
    return next(speed for least, speed in _BY_CPUS if count >= least)
