"""How much memory a runner takes, where it lies, and what that costs. Pure.

A runner's memory is its weights plus parallel sequences by context by bytes per token. What VRAM cannot hold lies in RAM and is slower.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from infra.lab.simulators.ollama.parameters import GIGABYTE, ModelParameters, Parameters


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of one runner. `vram_bytes` of them lie in video memory."""

    total_bytes: int
    vram_bytes: int

    @property
    def offloaded(self) -> float:
        """Share that lies in RAM, 0 to 1."""
        return 1 - self.vram_bytes / self.total_bytes if self.total_bytes else 0.0


def needed_bytes(model: ModelParameters, parallel: int, context: int) -> int:
    """Weights plus the key-value cache of all parallel sequences."""
    return model.weights_bytes + parallel * context * model.bytes_per_context_token


def place(needed: int, node: Parameters, others: Iterable[Footprint]) -> Footprint | None:
    """Where a new runner would lie beside `others`; None when it must not be loaded now.

    Beside others a runner must fit completely into what is free of the fast memory (VRAM, or RAM on a node without a GPU).
    Alone, it may spill from VRAM into RAM, but not beyond.
    """
    present = list(others)
    vram, ram = int(node.vram_gb * GIGABYTE), int(node.ram_gb * GIGABYTE)
    if vram == 0:
        return Footprint(needed, 0) if needed <= ram - sum(other.total_bytes for other in present) else None
    free = vram - sum(other.vram_bytes for other in present)
    if needed <= free:
        return Footprint(needed, needed)
    return Footprint(needed, vram) if not present and needed <= vram + ram else None


def slowdown(footprint: Footprint, node: Parameters) -> float:
    """How many times slower than completely in VRAM; on a node without a GPU the rates are those of RAM already."""
    if node.vram_gb == 0:
        return 1.0
    return 1 + footprint.offloaded * (node.offload_slowdown - 1)


def refusal(needed: int, node: Parameters) -> str:
    """Ollama's words for a model that will never fit."""
    available = (node.vram_gb + node.ram_gb) * GIGABYTE
    return f"model requires more system memory ({needed / 2**30:.1f} GiB) than is available ({available / 2**30:.1f} GiB)"
