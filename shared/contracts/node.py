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

Ability = Literal["vision", "tools", "thinking"]
"""What a model can do besides its operations."""


class NodeModel(Contract):
    """A model on the node's disk. Speeds are the worker's own measurements (EWMA), absent until measured."""

    name: ModelName
    size_bytes: Count = 0
    digest: Label = ""
    """Of the model's file, as the endpoint names it; empty where it does not."""
    quantisation: Label = ""
    """For example `Q4_K_M`; empty where the endpoint does not say."""
    context_length: Ordinal | None = None
    """The model's own maximum, tokens."""
    window: Ordinal | None = None
    """Tokens of prompt and answer together that one call has here, as the model is loaded, or as this worker will have it loaded.

    None: not known (an endpoint that decides when it loads, or never tells)."""
    abilities: dict[Ability, bool] = Field(default={}, max_length=16)
    """What the endpoint says that the model can or cannot do; what it does not mention is not here."""
    operations: tuple[Label, ...] = Field(default=("chat", "generate"), max_length=8)
    resident: bool = False
    broken: bool = False
    """Its calls fail here: it is given no steps until one of them has been seen to succeed."""
    prefill_tokens_per_second: PerSecond | None = None
    decode_tokens_per_second: PerSecond | None = None
    load_seconds: Seconds | None = None

    @property
    def room(self) -> int | None:
        """The tokens that a call may count on: the window, else the model's own maximum; None when neither is known."""
        return self.window or self.context_length


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
    backend: Label
    version: Label = ""
    simulated: bool = False
    slots: Ordinal = 1
    capabilities: tuple[Capability, ...] = Field(default=("chat",), max_length=1_000)
    tags: tuple[Capability, ...] = Field(default=(), max_length=64)
    hardware: Hardware = Hardware()
    models: tuple[NodeModel, ...] = Field(default=(), max_length=256)
    draining: bool = False
    waits: bool = False
    """An earlier boot of the node may still run: until that is known to be over this one offers nothing."""
    reachable: bool = True
    """The model endpoint answered its last probe."""
    pause_seconds: Seconds = 0.0
    """How long from this record on the endpoint asks not to be called (`Retry-After`): until then the node offers no places."""
    pause_of_group: bool = False
    """It is another member of its rate group that was asked."""
    rate_group: Label = ""
    """Nodes of this group use one account: what one is asked for holds for all."""
    broken: bool = False
    """Its calls fail, whatever the model: it offers no places."""
    at: EpochSeconds
