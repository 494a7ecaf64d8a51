"""What a model is likely to do on a machine that nobody has measured."""

from __future__ import annotations

import pytest

from shared.contracts.node import Gpu, Hardware, NodeModel
from shared.placement.prior import bandwidth, prior_speeds

GIB = 2**30
SMALL = NodeModel(name="m:8b", size_bytes=4_900_000_000)
"""8 thousand million weights of 4.9 bits."""
LARGE = NodeModel(name="m:70b", size_bytes=42_500_000_000)


def machine(name: str, vram: int = 0, cpus: int = 16, count: int = 1) -> Hardware:
    gpus = (Gpu(name=name, vram_bytes=vram * GIB),) * count if name else ()
    return Hardware(cpu_count=cpus, vram_bytes=vram * GIB * count, accelerator=name or None, gpus=gpus)


@pytest.mark.parametrize(
    ("name", "speed"),
    [
        ("NVIDIA H200", 4_800),
        ("NVIDIA H100 80GB HBM3", 3_350),
        ("NVIDIA H100 PCIe", 2_000),
        ("NVIDIA L40S", 864),
        ("NVIDIA L4", 300),
        ("NVIDIA GeForce RTX 4090", 1_008),
        ("NVIDIA GeForce RTX 3060 Laptop GPU", 360),
        ("AMD Instinct MI300X", 5_300),
        ("AMD Radeon RX 7900 XTX", 960),
        ("Apple M2 Ultra", 800),
        ("Apple M4", 120),
        ("NVIDIA Quadro P1000", 300),  # not a P100
        ("NVIDIA Tesla M40", 300),  # not an M4
        ("something new", 300),
    ],
)
def test_a_product_has_its_makers_bandwidth(name: str, speed: float) -> None:
    """A name that is longer counts before what it holds; a number does not end in the middle."""
    assert bandwidth(8, [Gpu(name=name)], name) == speed


def test_what_is_in_no_list_has_a_class_by_its_size() -> None:
    """Of several graphics processors the slowest; without one the machine's memory."""
    assert bandwidth(8, [Gpu(name="new", vram_bytes=48 * GIB)]) == 800
    assert bandwidth(8, [Gpu(name="RTX 4090"), Gpu(name="RTX 3060")]) == 360
    assert (bandwidth(8, []), bandwidth(16, []), bandwidth(96, []), bandwidth(0, [])) == (40, 80, 200, 40)


@pytest.mark.parametrize(
    ("hardware", "model", "decode", "prefill"),
    [  # what llama.cpp was seen to do, give or take half
        (machine("NVIDIA GeForce RTX 4090", 24), SMALL, 120, 6_000),
        (machine("NVIDIA H100 80GB HBM3", 80), SMALL, 180, 10_000),
        (machine("Apple M2 Ultra"), SMALL, 76, 1_000),
        (machine("", cpus=16), SMALL, 10, 60),
        (machine("NVIDIA H100 80GB HBM3", 80), LARGE, 40, 1_500),
    ],
)
def test_a_prior_is_of_the_right_size(hardware: Hardware, model: NodeModel, decode: float, prefill: float) -> None:
    """Within a factor of two."""
    found = prior_speeds(hardware, model)
    assert decode / 2 <= found.decode <= decode * 2
    assert prefill / 2 <= found.prefill <= prefill * 2


def test_what_does_not_fit_is_slower_and_what_is_told_counts() -> None:
    """A part in the machine's own memory bounds all; the same over two machines fits. Order of sizes and of bandwidths is kept."""
    one, two = machine("RTX 4090", 24), machine("RTX 4090", 24, count=2)
    assert prior_speeds(one, LARGE).decode < prior_speeds(two, LARGE).decode / 3
    assert prior_speeds(one, SMALL).decode > prior_speeds(one, LARGE).decode
    assert prior_speeds(one.changed(bandwidth=100.0), SMALL).decode < prior_speeds(one, SMALL).decode / 3
    assert prior_speeds(Hardware(), NodeModel(name="?")).decode == 500.0
    assert prior_speeds(one, SMALL).load_seconds == pytest.approx(5.9)
