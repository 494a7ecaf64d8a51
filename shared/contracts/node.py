"""Node: one Ollama (or OpenAI-compatible) endpoint with its hardware, as its worker registers it on `nodes`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from shared.contracts.base import (
    Capability,
    Contract,
    Cost,
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
from shared.contracts.tasks import RunningTask

YIELDS = "yields to the machine's owner"
"""How a worker says so, in `/readyz` and where it gives steps back; behind it, why."""
Ability = Literal["vision", "tools", "thinking"]
"""What a model can do besides its operations."""
MOST_SLOWDOWN = 1e3
Word = Annotated[str, StringConstraints(max_length=96)]
"""A product's name, a driver's version."""
GigabytesPerSecond = Annotated[float, Field(ge=0, le=1e6)]
MOST_GPUS = 16
MOST_ADVICE = 12
MOST_DEMANDED, HOURS = 8, 24
CallsByHour = Annotated[tuple[Count, ...], Field(min_length=HOURS, max_length=HOURS)]
"""Of the day, in UTC."""


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
    pinned: bool = False
    """It stays in memory while others come and go."""
    loaded_bytes: Count = 0
    """Of memory that it takes where it is resident, with its context; 0 where the endpoint does not say."""
    vram_bytes: Count = 0
    """How much of that lies in graphics memory."""
    prompt_per_million: Cost | None = None
    completion_per_million: Cost | None = None
    """What a million tokens cost here; None where nobody has said."""
    broken: bool = False
    """Its calls fail here: it is given no steps until one of them has been seen to succeed."""
    prefill_tokens_per_second: PerSecond | None = None
    """What a prompt's tokens take beyond `prefill_fixed_seconds`."""
    prefill_fixed_seconds: Seconds | None = None
    decode_tokens_per_second: PerSecond | None = None
    """Of a call that runs alone."""
    decode_slowdown: float | None = Field(default=None, ge=0, le=MOST_SLOWDOWN)
    """By which share a token takes longer for each call that runs beside it."""
    load_seconds: Seconds | None = None

    @property
    def room(self) -> int | None:
        """The tokens that a call may count on: the window, else the model's own maximum; None when neither is known."""
        return self.window or self.context_length


class Gpu(Contract):
    """A graphics processor."""

    name: Word = ""
    vram_bytes: Count = 0
    """Its own; 0 where it shares the machine's memory."""
    driver: Word = ""


class Hardware(Contract):
    """What the worker found, or was told. Of a node of several machines: the sums."""

    cpu_count: Count = 0
    ram_bytes: Count = 0
    vram_bytes: Count = 0
    disk_free_bytes: Count | None = None
    """Where the endpoint keeps its models; None where nobody can tell."""
    accelerator: Label | None = None
    gpus: tuple[Gpu, ...] = Field(default=(), max_length=MOST_GPUS)
    bandwidth: GigabytesPerSecond = 0.0
    """GB a second at which weights are read from memory, as products of this kind have it (`placement/prior`); 0: not known."""
    members: Count = 0
    """Servers that one model is split over; 0: it is whole."""


class Advice(Contract):
    """What to do, in one sentence. `bad`: the node serves nobody; `warn`: it serves badly; `note`: it is so on purpose."""

    code: Capability
    """Which advice it is: the text may say other numbers each time."""
    level: Literal["bad", "warn", "note"]
    text: Annotated[str, StringConstraints(max_length=320)]


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
    most_models: Ordinal | None = None
    """As many are in memory at once at most; None: nobody said."""
    cost_per_hour: Cost = 0.0
    """What the machine costs, in the cluster's currency."""
    draining: bool = False
    maintenance: bool = False
    """An administrator has taken it out of service; its worker drains, and does so again whenever it starts, until he takes it back."""
    yields: Label = ""
    """Why the node leaves its machine to the machine's owner at present: it offers no places. Empty: it does not."""
    asleep: bool = False
    """The machine was put to sleep, or is about to be: its models are there once it is woken."""
    mac: str | None = Field(default=None, pattern="^(?:[0-9a-f]{2}:){5}[0-9a-f]{2}$", max_length=17)
    """Of the network interface that a magic packet wakes."""
    waits: bool = False
    """An earlier boot of the node may still run: until that is known to be over this one offers nothing."""
    reachable: bool = True
    """The model endpoint answered its last probe."""
    pause_seconds: Seconds = 0.0
    """How long from this record on the endpoint asks not to be called (`Retry-After`): until then the node offers no places."""
    manages: Capability | None = None
    """Its endpoint pulls, deletes, copies and loads models at a word, in steps of this capability, of which it may have no model yet."""
    tasks: tuple[RunningTask, ...] = Field(default=(), max_length=128)
    """What is being done to its models."""
    advice: tuple[Advice, ...] = Field(default=(), max_length=MOST_ADVICE)
    """What its worker has seen that could be better. What the record itself shows is not among it (`placement/advice`)."""
    pause_of_group: bool = False
    """It is another member of its rate group that was asked."""
    rate_group: Label = ""
    """Nodes of this group use one account: what one is asked for holds for all."""
    broken: bool = False
    """Its calls fail, whatever the model: it offers no places."""
    demand: dict[ModelName, CallsByHour] = Field(default={}, max_length=MOST_DEMANDED)
    """Of the models that it is asked for most: calls that are likely in each hour, by those that it has had."""
    at: EpochSeconds

    @property
    def at_work(self) -> bool:
        """It takes steps as far as it says itself: a pause of its endpoint is short, and counts for nothing here."""
        return self.reachable and not (self.draining or self.yields or self.asleep)
