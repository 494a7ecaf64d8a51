"""What is simulated: fleets from YAML, requests from CSV or drawn. Each random number comes from a named seed."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Annotated, Any, Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from infra.lab.simulators.ollama.parameters import PROFILES, Parameters
from shared.contracts.base import PriorityClass


class Change(BaseModel):
    """What happens to a node at an instant. `slow`: everything takes `factor` times as long; `fails`: every call fails after `seconds`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at_seconds: float = Field(ge=0)
    what: Literal["dies", "returns", "slow", "fails", "mends"]
    factor: PositiveFloat = 1.0
    seconds: float = Field(default=0.01, ge=0)


class NodeSpec(BaseModel):
    """One machine, or `count` alike. `parameters` change the profile's (`infra.lab.simulators.ollama.parameters`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9-]{1,40}$")
    count: PositiveInt = 1
    profile: Literal["gpu-server", "workstation", "mini-pc"] = "workstation"
    speed: PositiveFloat = 1.0
    """Times the profile's speeds of reading and writing."""
    slots: PositiveInt = 1
    parameters: dict[str, Any] = {}
    changes: tuple[Change, ...] = ()

    def machine(self) -> Parameters:
        """The node's Ollama."""
        base = PROFILES[self.profile].with_(num_parallel=self.slots, **self.parameters)
        models = tuple(
            model.model_copy(
                update={
                    "prefill_tokens_per_second": self.speed
                    * (model.prefill_tokens_per_second or base.prefill_gb_per_second / model.size_gb),
                    "decode_tokens_per_second": self.speed * (model.decode_tokens_per_second or base.decode_gb_per_second / model.size_gb),
                }
            )
            for model in base.models
        )
        return base.model_copy(update={"models": models})


class Fleet(BaseModel):
    """All machines, and how far apart the services are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    nodes: Annotated[tuple[NodeSpec, ...], Field(min_length=1, max_length=1_000)]
    hop_seconds: float = Field(default=0.004, ge=0)
    """From one service to the next, by Kafka."""

    @classmethod
    def read(cls, path: Path) -> Fleet:
        """Of a YAML file. Raises ValueError."""
        return cls.model_validate(yaml.safe_load(path.read_text()))

    def each(self) -> Iterator[tuple[str, NodeSpec]]:
        """Node id to what it is."""
        for spec in self.nodes:
            for number in range(spec.count):
                yield (spec.name if spec.count == 1 else f"{spec.name}-{number}"), spec


@dataclass(frozen=True, slots=True)
class Request:
    """`at`: seconds since the beginning. Tokens are what the model really reads and writes; the router is told estimates."""

    at: float
    prompt: int
    output: int
    model: str = "llama3.2:1b"
    priority_class: PriorityClass = PriorityClass.INTERACTIVE
    tenant: str = "default"


class Arrival(NamedTuple):
    """A row of a trace."""

    at: float
    prompt: int
    output: int


def azure(path: Path) -> list[Arrival]:
    """Of the Azure LLM inference trace 2023 (TIMESTAMP, ContextTokens, GeneratedTokens)."""
    with path.open(newline="") as file:
        rows = [(_instant(row["TIMESTAMP"]), int(row["ContextTokens"]), int(row["GeneratedTokens"])) for row in csv.DictReader(file)]
    first = rows[0][0]
    return [Arrival(at - first, max(1, prompt), max(1, output)) for at, prompt, output in rows]


def _instant(text: str) -> float:
    return datetime.fromisoformat(text[:26]).timestamp()


def at_load(arrivals: Sequence[Arrival], per_second: float, fleet_per_second: float, share: float) -> list[Arrival]:
    """The same arrivals, so much faster or slower that they ask `share` of what the fleet does; both in one unit of work a second."""
    factor = per_second / (fleet_per_second * share)
    return [Arrival(at * factor, prompt, output) for at, prompt, output in arrivals]


def mixed(arrivals: Iterable[Arrival], models: Sequence[str], seed: int, *, skew: float = 1.0) -> list[Request]:
    """Each arrival asks one of the models: the first most often, each further one `skew` times less (Zipf)."""
    random, weights = Random(seed), [1.0 / (rank + 1) ** skew for rank in range(len(models))]
    return [Request(at, prompt, output, random.choices(models, weights)[0]) for at, prompt, output in arrivals]
