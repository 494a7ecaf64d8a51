"""Node: one Ollama (or OpenAI-compatible) endpoint with its hardware, as its worker registers it on `nodes`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from shared.contracts.base import (
    Capability,
    Contract,
    Count,
    EpochSeconds,
    Label,
    ModelName,
    NodeId,
    Ordinal,
    Partition,
    PerSecond,
    Seconds,
)


class NodeModel(Contract):
    """A model on the node's disk. Speeds are the worker's own measurements (EWMA), absent until measured."""

    name: ModelName
    size_bytes: Count = 0
    context_length: Ordinal | None = None
    operations: tuple[Label, ...] = Field(default=("chat", "generate"), max_length=8)
    resident: bool = False
    prefill_tokens_per_second: PerSecond | None = None
    decode_tokens_per_second: PerSecond | None = None
    load_seconds: Seconds | None = None


class Hardware(Contract):
    """What the worker found, or was told."""

    cpu_count: Count = 0
    ram_bytes: Count = 0
    vram_bytes: Count = 0
    accelerator: Label | None = None


class Node(Contract):
    """`boot` is new at every start of the worker. A mailbox number belongs to the first live node that names it in the log."""

    id: NodeId
    boot: Label
    mailbox: Partition
    backend: Literal["ollama", "openai", "embedded", "in_process"]
    version: Label = ""
    simulated: bool = False
    slots: Ordinal = 1
    capabilities: tuple[Capability, ...] = Field(default=("chat",), max_length=1_000)
    tags: tuple[Capability, ...] = Field(default=(), max_length=64)
    hardware: Hardware = Hardware()
    models: tuple[NodeModel, ...] = Field(default=(), max_length=256)
    draining: bool = False
    reachable: bool = True
    """The model endpoint answered its last probe."""
    at: EpochSeconds
