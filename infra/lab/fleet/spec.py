"""What is simulated: fleets from YAML, requests from CSV or drawn. Each random number comes from a named seed."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Annotated, Any, Literal, NamedTuple

import click
import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from infra.lab.simulators.ollama.parameters import PROFILES, Parameters
from shared.contracts.base import PriorityClass


class Change(BaseModel):
    """What happens to a node at an instant. `dies`: its model server; `vanishes`: all of it, unheard. `slow`: everything takes `factor`
    times as long; `fails`: every call fails after `seconds`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    at_seconds: float = Field(ge=0)
    what: Literal["dies", "vanishes", "returns", "slow", "fails", "mends"]
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
                    "prefill_tokens_per_second": self.speed * base.prefill_speed(model),
                    "decode_tokens_per_second": self.speed * base.decode_speed(model),
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
        try:
            return cls.model_validate(yaml.safe_load(path.read_text()))
        except yaml.YAMLError as error:
            raise ValueError(f"{path.name} is no YAML: {error}") from error

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
    limit: int | None = None
    """Tokens of an answer that its caller allows, which the router is told."""


class Arrival(NamedTuple):
    """A row of a trace."""

    at: float
    prompt: int
    output: int


TRACE = Path(__file__).with_name("azure_conversations_2023.csv.gz")
"""Arrivals of a conversation service: Azure Public Dataset, LLM inference 2023, CC-BY 4.0 (Patel et al., "Splitwise", ISCA 2024); instants
as milliseconds from the first one, otherwise unchanged."""


def recorded(path: Path = TRACE) -> list[Arrival]:
    """Of a trace in that form: `milliseconds,prompt_tokens,output_tokens`, as CSV, packed or not. Raises ValueError."""
    return [_arrival(row) for row in _rows(path)]


def _rows(path: Path) -> Iterator[dict[str, str]]:
    packed = path.read_bytes()
    yield from csv.DictReader((gzip.decompress(packed) if path.suffix == ".gz" else packed).decode().splitlines())


def _arrival(row: Mapping[str, str]) -> Arrival:
    try:
        return Arrival(int(row["milliseconds"]) / 1e3, max(1, int(row["prompt_tokens"])), max(1, int(row["output_tokens"])))
    except (KeyError, TypeError) as error:
        raise ValueError("a trace has milliseconds, prompt_tokens and output_tokens in each row") from error


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FLEET_OPTIONS = (
    click.Option(["--fleet", "fleet_file"], type=_FILE, help="YAML (infra/lab/fleet/office.yaml); the trace is played on it."),
    click.Option(["--trace"], type=_FILE, default=TRACE, help="CSV: milliseconds,prompt_tokens,output_tokens[,model][,class]."),
    click.Option(["--rows"], type=click.IntRange(1), default=1_000, help="So many of the trace, from its beginning."),
    click.Option(["--faster"], type=click.FloatRange(0, min_open=True), default=1.0, help="The rows' times are divided by this."),
)
"""Of a bench that plays a fleet and a trace of one's own: `fleet_file`, `trace`, `rows`, `faster`, as `requests` takes them."""


def requests(path: Path, fleet: Fleet, seed: int, *, most: int, faster: float = 1.0) -> list[Request]:
    """The first `most` rows of such a trace, from their first one on, as requests to `fleet`. Columns `model` and `class` are optional:
    without one it is the first node's models, the first most often, and interactive. Raises ValueError.
    """
    rows = list(islice(_rows(path), most))
    if not rows:
        raise ValueError(f"{path.name} has no rows")
    known = [model.name for model in fleet.nodes[0].machine().models if "completion" in model.capabilities]
    drawn = mixed(map(_arrival, rows), known, seed)
    begun = drawn[0].at
    found = [
        replace(
            one,
            at=(one.at - begun) / faster,
            model=row.get("model") or one.model,
            priority_class=PriorityClass(row.get("class") or one.priority_class),
        )
        for row, one in zip(rows, drawn, strict=True)
    ]
    there = {model.name for _, spec in fleet.each() for model in spec.machine().models}
    if missing := {one.model for one in found} - there:
        raise ValueError(f"no node has {', '.join(sorted(missing))}")
    return found


def at_load(arrivals: Sequence[Arrival], work: Callable[[Arrival], float], share: float) -> list[Arrival]:
    """From their first one on, so much faster or slower that they ask `share` of the fleet. `work`: seconds of the whole fleet."""
    first, last = arrivals[0].at, arrivals[-1].at
    factor = sum(map(work, arrivals)) / share / (last - first)
    return [Arrival((at - first) * factor, prompt, output) for at, prompt, output in arrivals]


def mixed(arrivals: Iterable[Arrival], models: Sequence[str], seed: int, *, skew: float = 1.0) -> list[Request]:
    """Each arrival asks one of the models: the first most often, each further one `skew` times less (Zipf)."""
    random, weights = Random(seed), [1.0 / (rank + 1) ** skew for rank in range(len(models))]
    return [Request(at, prompt, output, random.choices(models, weights)[0]) for at, prompt, output in arrivals]
