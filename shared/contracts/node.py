"""Node: one Ollama (or OpenAI-compatible) endpoint with its hardware, as its worker registers it on `nodes`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from shared.contracts.base import Capability, Contract, EpochSeconds, NodeId


class NodeModel(Contract):
    """A model on the node's disk. Speeds are the worker's own measurements (EWMA), absent until measured."""

    name: str
    size_bytes: NonNegativeInt = 0
    context_length: PositiveInt | None = None
    operations: tuple[str, ...] = ("chat", "generate")
    resident: bool = False
    prefill_tokens_per_second: PositiveFloat | None = None
    decode_tokens_per_second: PositiveFloat | None = None
    load_seconds: PositiveFloat | None = None


class Hardware(Contract):
    """What the worker found, or was told."""

    cpu_count: NonNegativeInt = 0
    ram_bytes: NonNegativeInt = 0
    vram_bytes: NonNegativeInt = 0
    accelerator: str | None = None


class Node(Contract):
    """`boot` is new at every start of the worker. A mailbox number belongs to the first live node that names it in the log."""

    id: NodeId
    boot: str
    mailbox: NonNegativeInt
    backend: Literal["ollama", "openai", "embedded", "in_process"]
    version: str = ""
    simulated: bool = False
    slots: PositiveInt = 1
    capabilities: tuple[Capability, ...] = ("chat",)
    tags: tuple[Capability, ...] = ()
    hardware: Hardware = Hardware()
    models: tuple[NodeModel, ...] = Field(default=(), max_length=256)
    draining: bool = False
    reachable: bool = True
    """The model endpoint answered its last probe."""
    at: EpochSeconds
